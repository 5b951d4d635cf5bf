//! The image of the machines: built once, kept under a digest of its recipe.

use crate::state::Lab;
use anyhow::Result;
use std::path::PathBuf;
use std::time::Duration;
use support::command::stage;
use support::debian;
use support::recipe::Recipe;

/// Each program with the package that brings it.
const NEEDS: [(&str, &str); 9] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("qemu-img", "qemu-utils"),
    ("nbdkit", "nbdkit"),
    ("mmdebstrap", "mmdebstrap"),
    ("mke2fs", "e2fsprogs"),
    ("ip", "iproute2"),
    ("ssh", "openssh-client"),
    ("cpio", "cpio"),
    (ISCSI_BLOCK, "qemu-block-extra"),
];
/// For the image; a tenth of it is usual.
const BUILD: Duration = Duration::from_secs(5400);
/// QEMU's own iSCSI initiator is a module.
const ISCSI_BLOCK: &str = "x86_64-linux-gnu/qemu/block-iscsi.so";

/// The folder of the image: root.qcow2, vmlinuz, initrd, key. Built if it is not there.
pub(crate) fn ensure(lab: &Lab) -> Result<PathBuf> {
    stage("packages of the host", || debian::install(&NEEDS))?;
    recipe(lab).made(BUILD)
}

/// Where the image is, or will be.
pub(crate) fn folder(lab: &Lab) -> Result<PathBuf> {
    recipe(lab).folder()
}

fn recipe(lab: &Lab) -> Recipe<'_> {
    Recipe {
        cache: &lab.cache,
        name: format!("image-{}", lab.release),
        script: lab.project.join("tests/lab/image.sh"),
        release: &lab.release,
    }
}
