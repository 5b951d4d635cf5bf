//! The image of the machines: built once, kept under a digest of its recipe.

use crate::state::Lab;
use anyhow::Result;
use std::path::PathBuf;
use std::time::Duration;
use support::cache::digest;
use support::command::stage;
use support::{debian, recipe};

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
    let image = folder(lab)?;
    if image.is_dir() {
        println!("the image is there: {}", image.display());
        return Ok(image);
    }
    let log = lab.cache.join(format!("image-{}.log", lab.release));
    stage("image", || recipe::make(&image, &script(lab), &lab.release, &log, BUILD))?;
    Ok(image)
}

/// Where the image is, or will be.
pub(crate) fn folder(lab: &Lab) -> Result<PathBuf> {
    let key = digest(&[script(lab)])?;
    Ok(lab.cache.join(format!("image-{}-{key}", lab.release)))
}

fn script(lab: &Lab) -> PathBuf {
    lab.project.join("tests/lab/image.sh")
}
