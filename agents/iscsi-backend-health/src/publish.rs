//! The node attribute for alerts: how many of the other node's legs are not here. It lives as long as Pacemaker does on this
//! node (attrd_updater(8)). What cannot be published is no failure of a leg.

use hasan::machine::Machine;
use hasan::ocf::Fault;
use std::path::Path;

const ATTRIBUTE: &str = "hasan-legs-missing";
/// What was published last, so that a monitor of a well node starts no program.
const PUBLISHED: &str = "/run/hasan/legs-missing";

/// Publishes the number, if it has changed since, or always.
pub(crate) fn publish(machine: &Machine, missing: usize, always: bool) {
    let value = missing.to_string();
    if let Err(fault) = try_publish(machine, &value, always) {
        tracing::warn!("{ATTRIBUTE} is not published: {}", fault.reason);
    }
}

fn try_publish(machine: &Machine, value: &str, always: bool) -> Result<(), Fault> {
    let published = Path::new(PUBLISHED);
    if !always && machine.read(published)?.is_some_and(|before| before.trim() == value) {
        return Ok(());
    }
    machine.run("attrd_updater", &["--name", ATTRIBUTE, "--update", value])?;
    machine.replace_file(published, value)
}

/// Nobody looks any more.
pub(crate) fn withdraw(machine: &Machine) {
    let delete = || -> Result<(), Fault> {
        if machine.read(Path::new(PUBLISHED))?.is_some() {
            machine.run("attrd_updater", &["--name", ATTRIBUTE, "--delete"])?;
            machine.remove_file(Path::new(PUBLISHED))?;
        }
        Ok(())
    };
    if let Err(fault) = delete() {
        tracing::warn!("{ATTRIBUTE} is not withdrawn: {}", fault.reason);
    }
}
