//! Node attributes for alerts: how many of the other node's legs are not here, and how far a resilver is. They live as long
//! as Pacemaker does on this node (attrd_updater(8)). What cannot be published is no failure of a leg.

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
    update(machine, ATTRIBUTE, Some(value))?;
    machine.replace_file(published, value)
}

/// Publishes how much of a pool's resilver is done, percent; `None` when there is none any more.
pub(crate) fn resilvered(machine: &Machine, pool: &str, percent: Option<u8>) {
    let value = percent.map(|percent| percent.to_string());
    if let Err(fault) = update(machine, &format!("hasan-resilvered-{pool}"), value.as_deref()) {
        tracing::debug!("the resilver's progress is not published: {}", fault.reason);
    }
}

fn update(machine: &Machine, name: &str, value: Option<&str>) -> Result<(), Fault> {
    let change = value.map_or(vec!["--delete"], |value| vec!["--update", value]);
    machine.run("attrd_updater", &[&["--name", name][..], &change].concat()).map(|_| ())
}

/// Nobody looks any more.
pub(crate) fn withdraw(machine: &Machine) {
    let delete = || -> Result<(), Fault> {
        if machine.read(Path::new(PUBLISHED))?.is_some() {
            update(machine, ATTRIBUTE, None)?;
            machine.remove_file(Path::new(PUBLISHED))?;
        }
        Ok(())
    };
    if let Err(fault) = delete() {
        tracing::warn!("{ATTRIBUTE} is not withdrawn: {}", fault.reason);
    }
}
