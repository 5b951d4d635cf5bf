//! Gives the pool back: an export, once nobody holds it any more.

use crate::{holders, lock};
use hasan::machine::Machine;
use hasan::ocf::{Fault, Outcome, Rc};
use hasan::zfs;
use std::time::Duration;

/// How `zpool export` ends while something in the kernel holds the pool.
const BUSY: &str = "pool is busy";
/// Pause before the second try.
const PAUSE: Duration = Duration::from_secs(1);

pub(crate) fn stop(machine: &Machine, pool: &str) -> Outcome {
    lock::end_import(machine, pool)?;
    // A stop that fails has the node fenced: the other half of the time is for the export.
    let patience = zfs::BETWEEN.max(machine.time_left() / 2);
    let Some(state) = zfs::settled_pool_state(machine, pool, patience)? else {
        return Ok(Rc::Success);
    };
    if !state.is_usable() {
        return Err(cannot(pool, format!("it is {}, and an export would hang", state.word())));
    }
    export(machine, pool)?;
    match zfs::pool_state(machine, pool)? {
        None => Ok(Rc::Success),
        Some(_) => Err(cannot(pool, "it is still imported after its export".to_string())),
    }
}

/// Once more, if ZFS calls the pool busy (`zpool_standard_error_fmt`, EBUSY) though nobody was seen: whoever has just begun to
/// hold it is seen then, and what held it for a moment is gone.
fn export(machine: &Machine, pool: &str) -> Result<(), Fault> {
    match try_export(machine, pool, false) {
        Err(fault) if fault.reason.contains(BUSY) && machine.time_left() > PAUSE => {
            tracing::warn!("{}; it is tried once more", fault.reason);
            std::thread::sleep(PAUSE);
            try_export(machine, pool, true)
        }
        other => other,
    }
}

fn try_export(machine: &Machine, pool: &str, is_busy: bool) -> Result<(), Fault> {
    let holders = holders::holders(machine, pool, is_busy)?;
    if !holders.is_empty() {
        tracing::error!("{pool} is in use by {}", holders.join(", "));
        return Err(cannot(pool, format!("in use by {}", holders::sentence(&holders))));
    }
    machine.run("zpool", &["export", pool]).map(|_| ())
}

fn cannot(pool: &str, why: String) -> Fault {
    Fault::generic(format!("cannot export the pool {pool}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    #[test]
    fn an_export_that_finds_the_pool_busy_is_tried_once_more() {
        let root = std::env::temp_dir().join(format!("hasan-stop-{}", std::process::id()));
        // What an earlier run has left.
        let _ = fs::remove_dir_all(&root);
        let machine = Machine::recorded(&root);
        machine.replace_file(Path::new("/proc/self/mountinfo"), "").unwrap();
        let state = Path::new("/proc/spl/kstat/zfs/p/state");
        let export = |busy: usize| {
            let script = format!(
                "cd {}\necho \"$*\" >> asked\n[ $(wc -l < asked) -gt {busy} ] || \
                 {{ echo \"cannot export 'p': pool is busy\" >&2; exit 1; }}\nrm -r proc/spl",
                root.display()
            );
            machine.replace_file(state, "ONLINE").unwrap();
            machine.remove_file(Path::new("/asked")).unwrap();
            machine.record_program("zpool", &script).unwrap();
            let result = stop(&machine, "p");
            (result, machine.read(Path::new("/asked")).unwrap().unwrap_or_default())
        };
        assert_eq!(export(0), (Ok(Rc::Success), "export p".to_string()));
        assert_eq!(export(1), (Ok(Rc::Success), "export p\nexport p".to_string()));
        let (stays, asked) = export(9);
        assert!(stays.unwrap_err().reason.contains(BUSY));
        assert_eq!(asked, "export p\nexport p");
        fs::remove_dir_all(&root).unwrap();
    }
}
