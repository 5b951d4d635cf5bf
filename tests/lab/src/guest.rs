//! A virtual machine of another kind: QEMU on the host, whose disk is a LUN by QEMU's own initiator (libiscsi), as Proxmox
//! runs them. In it there is nothing but the writer.

use crate::cluster::{PORTAL, TARGET};
use crate::load::{Acks, SLOTS};
use crate::machine::{self, CPU};
use crate::net::NAMESPACE;
use crate::state::Lab;
use crate::{image, timers};
use anyhow::{Result, bail};
use std::fs;
use std::path::PathBuf;
use support::command::{await_until, run};

/// Loads the driver of its disk and writes.
const INIT: &str = "#!/bin/sh
mkdir -p /proc /sys /dev
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
modprobe virtio_pci; modprobe virtio_blk
while [ ! -b /dev/vda ]; do sleep 1; done
sleep 1000000 | /lab-writer write /dev/vda SLOTS 1
";

fn log(lab: &Lab) -> PathBuf {
    lab.file("guest.log")
}

fn pid_file(lab: &Lab) -> PathBuf {
    lab.file("guest.pid")
}

/// Starts it on a LUN of the hypervisors' network.
pub(crate) fn start(lab: &Lab, lun: u8) -> Result<()> {
    let folder = lab.file("guest");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("lab-init"), INIT.replace("SLOTS", &SLOTS.to_string()))?;
    fs::copy(lab.program("lab-writer"), folder.join("lab-writer"))?;
    let image = image::folder(lab)?;
    let initrd = lab.file("guest.initrd");
    // The kernel unpacks several archives one after the other.
    let script = format!(
        "cd {folder} && chmod 755 * && {{ ls | cpio --quiet -o -H newc; cat {distribution}; }} > {initrd}",
        folder = folder.display(),
        distribution = image.join("initrd").display(),
        initrd = initrd.display()
    );
    run(timers::SSH, "bash", &["-c", &script])?;
    let disk = format!(
        "driver=iscsi,node-name=lun,transport=tcp,portal={PORTAL},target={TARGET},lun={lun},\
         initiator-name=iqn.2025-01.lab.home:guest,cache.direct=on"
    );
    let serial = format!("file:{}", log(lab).display());
    let arguments = [
        "netns exec NAMESPACE qemu-system-x86_64 -accel tcg -cpu CPU -m 384 -display none -nodefaults -no-user-config",
        "-daemonize -device virtio-blk-pci,drive=lun",
    ];
    let text = arguments.join(" ").replace("NAMESPACE", NAMESPACE).replace("CPU", CPU);
    let mut words: Vec<String> = text.split_whitespace().map(str::to_string).collect();
    let kernel_line = "console=ttyS0 quiet mitigations=off panic=-1 rdinit=/lab-init";
    for (option, value) in [
        ("-blockdev", disk),
        ("-kernel", image.join("vmlinuz").display().to_string()),
        ("-initrd", initrd.display().to_string()),
        ("-append", kernel_line.to_string()),
        ("-serial", serial),
        ("-pidfile", pid_file(lab).display().to_string()),
    ] {
        words.extend([option.to_string(), value]);
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    run(timers::SSH, "ip", &words).map(|_| ())
}

/// Stops it, if it runs.
pub(crate) fn stop(lab: &Lab) {
    machine::kill_by_file(&pid_file(lab));
}

/// What was acknowledged to it until now.
pub(crate) fn acks(lab: &Lab) -> Acks {
    let text = fs::read_to_string(log(lab)).unwrap_or_default();
    let mut acks = Acks::default();
    // The kernel's own lines are on the console, too; the last line may not be whole yet.
    for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        if let Some(line) = line.find("ack ").or(line.find("err ")).and_then(|at| line.get(at..)) {
            let _ = acks.take(line.trim_end());
        }
    }
    acks
}

/// Waits until it has written so many blocks more.
pub(crate) fn await_more(lab: &Lab, blocks: u64) -> Result<()> {
    let goal = acks(lab).count + blocks;
    await_until(&format!("{blocks} more blocks of the guest"), timers::CLUSTER, || {
        let acks = acks(lab);
        if acks.count >= goal { Ok(()) } else { bail!("{} of {goal}", acks.count) }
    })
}
