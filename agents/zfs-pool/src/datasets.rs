//! What lies in a pool that has just been imported: keys, mounts, nodes of zvols. None of it may keep
//! the pool from being started: one bad dataset must not hold up the others.

use crate::import::Options;
use hasan::machine::Machine;
use hasan::ocf::Fault;
use hasan::zfs::{self, Dataset};
use std::time::Duration;

/// How long a start waits for the nodes of the zvols, which udev makes.
const NODES: Duration = Duration::from_secs(20);
/// When it asks udev once more, because an event may have been lost.
const AGAIN: Duration = Duration::from_secs(5);
/// How long the keys may take: one that lies on a server that is away must not hold up the start.
const KEYS: Duration = Duration::from_secs(30);
/// How many missing nodes the log names.
const NAMED: usize = 8;

/// Loads keys and mounts, as asked, and waits for the zvols' nodes. What cannot be done of it is logged.
pub(crate) fn open(machine: &Machine, pool: &str, options: &Options<'_>) {
    if options.load_keys {
        let brief = machine.with_time(KEYS.min(machine.time_left() / 2));
        log_failure(brief.run("zfs", &["load-key", "-r", pool]));
        if options.mount {
            log_failure(mount(machine, pool));
        }
    }
    log_failure(await_nodes(machine, pool));
}

/// Mounts and shares what the import would have mounted and shared, parents first.
fn mount(machine: &Machine, pool: &str) -> Result<(), Fault> {
    let properties = "canmount,mountpoint,keystatus,mounted,sharenfs,sharesmb";
    for dataset in zfs::datasets(machine, pool, "filesystem", properties)? {
        let wanted = dataset.is("canmount", "on")
            && dataset.is("mounted", "no")
            && !dataset.is("mountpoint", "none")
            && !dataset.is("mountpoint", "legacy")
            && !dataset.is("keystatus", "unavailable");
        if !wanted {
            continue;
        }
        log_failure(machine.run("zfs", &["mount", &dataset.name]));
        // Unlike an import, `zfs mount` does not share.
        if !(dataset.is("sharenfs", "off") && dataset.is("sharesmb", "off")) {
            log_failure(machine.run("zfs", &["share", &dataset.name]));
        }
    }
    Ok(())
}

fn log_failure<T>(result: Result<T, Fault>) {
    if let Err(fault) = result {
        tracing::error!("{}", fault.reason);
    }
}

/// The kernel makes the devices before an import returns; udev makes the names after it.
fn await_nodes(machine: &Machine, pool: &str) -> Result<(), Fault> {
    let properties = "volmode,keystatus,receive_resume_token";
    let zvols = zfs::datasets(machine, pool, "volume", properties)?;
    let names = with_device(&zvols);
    let missing = || -> Vec<&str> {
        names.iter().copied().filter(|name| !machine.exists(&zfs::zvol_device(name))).collect()
    };
    if machine.await_condition(AGAIN, || Ok(missing().is_empty()))? {
        return Ok(());
    }
    let again = ["trigger", "--action=change", "--subsystem-match=block", "--sysname-match=zd*"];
    log_failure(machine.run("udevadm", &again));
    if !machine.await_condition(NODES, || Ok(missing().is_empty()))? {
        let missing = missing();
        let first = &missing[..missing.len().min(NAMED)];
        tracing::error!("{} zvols have no node: {} …", missing.len(), first.join(", "));
    }
    Ok(())
}

/// The zvols whose device is to be waited for. One of which a receive was broken off (zfs-receive(8), `-s`) has none until that
/// is done (it is inconsistent, so `dsl_dataset_tryown` refuses it).
fn with_device(zvols: &[Dataset]) -> Vec<&str> {
    let is_shown = |zvol: &&Dataset| {
        !zvol.is("volmode", "none")
            && !zvol.is("keystatus", "unavailable")
            && !zvol.values.contains_key("receive_resume_token")
    };
    zvols.iter().filter(is_shown).map(|zvol| zvol.name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    /// What is asked of a `zfs` that answers `get` so.
    fn asked(name: &str, get: &str) -> String {
        let root =
            std::env::temp_dir().join(format!("hasan-datasets-{name}-{}", std::process::id()));
        // What an earlier run has left.
        let _ = fs::remove_dir_all(&root);
        let machine = Machine::recorded(&root);
        let script =
            format!("echo \"$1 $2\" >> {}/asked\ncase \"$*\" in get*{get} esac", root.display());
        machine.record_program("zfs", &script).unwrap();
        open(&machine, "p", &Options { mount: true, load_keys: true, failmode: None });
        let asked = machine.read(Path::new("/asked")).unwrap().unwrap();
        fs::remove_dir_all(&root).unwrap();
        asked
    }

    #[test]
    fn a_zvol_without_a_device_is_not_waited_for() {
        let pairs = [
            ("p/none", "volmode", "none"),
            ("p/locked", "keystatus", "unavailable"),
            ("p/half", "receive_resume_token", "1-e604ea4bf-e0-789c6360"),
            ("p/open", "keystatus", "available"),
            ("p/plain", "receive_resume_token", "-"),
        ];
        let rows: Vec<String> = pairs
            .iter()
            .map(|(name, property, value)| format!("{name}\t{property}\t{value}\t-\n"))
            .collect();
        let zvols = zfs::parse_datasets(&rows.concat()).unwrap();
        assert_eq!(with_device(&zvols), ["p/open", "p/plain"]);
    }

    #[test]
    fn a_dataset_that_cannot_be_listed_keeps_neither_the_pool_nor_the_others() {
        assert_eq!(asked("none", ") exit 1 ;;"), "load-key -r\nget -Hp\nget -Hp");
        assert_eq!(asked("strange", ") echo strange ;;"), "load-key -r\nget -Hp\nget -Hp");
        let rows = ["canmount\ton", "mounted\tno", "sharenfs\toff", "sharesmb\toff"]
            .map(|pair| format!("p/a\t{pair}\t-\n"))
            .concat();
        let half = format!("*filesystem*) printf '{rows}'; echo 'I/O error' >&2 ;;");
        assert_eq!(asked("half", &half), "load-key -r\nget -Hp\nmount p/a\nget -Hp");
    }
}
