//! Short grace periods of RCU while LUNs come and go: the kernel waits for one or two with each link and each backstore,
//! about 16 ms each, and a thousand LUNs would take half a minute. The setting is the whole machine's, so it is put
//! back; if the process is killed before, by the next action.

use crate::machine::Machine;
use crate::ocf::Fault;
use std::fs::File;
use std::path::Path;

/// `Documentation/ABI/testing/sysfs-kernel-rcu…`, kernel parameter `rcupdate.rcu_expedited`.
const SETTING: &str = "/sys/kernel/rcu_expedited";
/// The value before ours, while ours holds.
const BEFORE: &str = "/run/hasan/rcu_expedited";
const LOCK: &str = "/run/hasan/rcu_expedited.lock";

/// The setting holds while this lives.
pub(super) struct Expedited<'a> {
    machine: &'a Machine,
    _lock: File,
}

impl Expedited<'_> {
    /// `None` if another process has set it, or the kernel has no such setting: then it goes at its own pace.
    pub(super) fn begin(machine: &Machine) -> Option<Expedited<'_>> {
        let lock = machine.try_lock(Path::new(LOCK)).ok()??;
        put_back(machine).ok()?;
        let before = machine.read(Path::new(SETTING)).ok()??;
        machine.replace_file(Path::new(BEFORE), &before).ok()?;
        machine.write_attribute(Path::new(SETTING), "1").ok()?;
        Some(Expedited { machine, _lock: lock })
    }
}

impl Drop for Expedited<'_> {
    fn drop(&mut self) {
        if let Err(fault) = put_back(self.machine) {
            tracing::warn!("{}", fault.reason);
        }
    }
}

/// Puts the setting back that a killed process has left.
pub fn mend(machine: &Machine) -> Result<(), Fault> {
    if !machine.exists(Path::new(BEFORE)) {
        return Ok(());
    }
    match machine.try_lock(Path::new(LOCK))? {
        Some(_lock) => put_back(machine),
        None => Ok(()),
    }
}

fn put_back(machine: &Machine) -> Result<(), Fault> {
    let Some(before) = machine.read(Path::new(BEFORE))? else { return Ok(()) };
    machine.write_attribute(Path::new(SETTING), &before)?;
    machine.remove_file(Path::new(BEFORE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_setting_is_put_back_also_after_a_kill() {
        let root = std::env::temp_dir().join(format!("hasan-expedite-{}", std::process::id()));
        fs::create_dir_all(root.join("sys/kernel")).unwrap();
        let machine = Machine::recorded(&root);
        let set = |value: &str| machine.write_attribute(Path::new(SETTING), value).unwrap();
        machine.replace_file(Path::new(SETTING), "0").unwrap();
        let value = || machine.read(Path::new(SETTING)).unwrap().unwrap();
        let held = Expedited::begin(&machine).unwrap();
        assert_eq!(value(), "1");
        assert!(Expedited::begin(&machine).is_none());
        mend(&machine).unwrap();
        assert_eq!(value(), "1", "it is in use");
        drop(held);
        assert_eq!(value(), "0");
        // A process that was killed leaves the setting and its record, and no lock.
        set("1");
        machine.replace_file(Path::new(BEFORE), "0").unwrap();
        mend(&machine).unwrap();
        assert_eq!(value(), "0");
        assert!(!machine.exists(Path::new(BEFORE)));
        fs::remove_dir_all(root).unwrap();
    }
}
