//! Data disks that lose what was not flushed when their machine dies: nbdkit keeps writes in its own memory and passes
//! them on to the file at a flush. A killed QEMU alone would leave them in the host's page cache, as if flushed.

use crate::machine::Machine;
use crate::state::Lab;
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Duration;
use support::command::run;

/// Size of a data disk, bytes.
const SIZE: u64 = 1 << 30;

/// The file under a data disk.
pub(crate) fn file(lab: &Lab, machine: &Machine, number: u8) -> PathBuf {
    lab.file(&format!("{}-d{number}.img", machine.name))
}

/// The socket at which QEMU finds a data disk.
pub(crate) fn socket(lab: &Lab, machine: &Machine, number: u8) -> PathBuf {
    lab.file(&format!("{}-d{number}.sock", machine.name))
}

fn pid_file(lab: &Lab, machine: &Machine, number: u8) -> PathBuf {
    lab.file(&format!("{}-d{number}.pid", machine.name))
}

/// Serves the disks of a machine; makes those that are not there.
pub(crate) fn serve(lab: &Lab, machine: &Machine) -> Result<()> {
    for number in 1..=machine.disks {
        let image = file(lab, machine, number);
        if !image.exists() {
            File::create(&image)?.set_len(SIZE)?;
        }
        let socket = socket(lab, machine, number);
        // The one of a server that was killed is in the way.
        let _ = fs::remove_file(&socket);
        let pid_file = pid_file(lab, machine, number);
        let options = ["--filter=cache", "file"];
        let (socket, pid_file) = (socket.display().to_string(), pid_file.display().to_string());
        let (file, cache) = (format!("file={}", image.display()), "cache=writeback");
        let arguments = ["--unix", &socket, "--pidfile", &pid_file];
        run(
            Duration::from_secs(20),
            "nbdkit",
            &[&arguments[..], &options, &[&file, cache]].concat(),
        )
        .context("a data disk")?;
    }
    Ok(())
}

/// Kills the servers of a machine's disks, with all that they have not written yet.
pub(crate) fn kill(lab: &Lab, machine: &Machine) {
    for number in 1..=machine.disks {
        crate::machine::kill_by_file(&pid_file(lab, machine, number));
    }
}
