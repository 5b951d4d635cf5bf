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

/// Loads keys and mounts, as asked, and waits for the zvols' nodes.
pub(crate) fn open(machine: &Machine, pool: &str, options: &Options<'_>) -> Result<(), Fault> {
    if options.load_keys {
        let brief = machine.with_time(KEYS.min(machine.time_left() / 2));
        log_failure(brief.run("zfs", &["load-key", "-r", pool]));
        if options.mount {
            mount(machine, pool)?;
        }
    }
    await_nodes(machine, pool)
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

fn log_failure(result: Result<String, Fault>) {
    if let Err(fault) = result {
        tracing::error!("{}", fault.reason);
    }
}

/// The kernel makes the devices before an import returns; udev makes the names after it.
fn await_nodes(machine: &Machine, pool: &str) -> Result<(), Fault> {
    let zvols = zfs::datasets(machine, pool, "volume", "volmode,keystatus")?;
    let shown =
        |zvol: &&Dataset| !zvol.is("volmode", "none") && !zvol.is("keystatus", "unavailable");
    let names: Vec<String> = zvols.iter().filter(shown).map(|zvol| zvol.name.clone()).collect();
    let missing = || -> Vec<&String> {
        names.iter().filter(|name| !machine.exists(&zfs::zvol_device(name))).collect()
    };
    if machine.await_condition(AGAIN, || Ok(missing().is_empty()))? {
        return Ok(());
    }
    let again = ["trigger", "--action=change", "--subsystem-match=block", "--sysname-match=zd*"];
    log_failure(machine.run("udevadm", &again));
    if !machine.await_condition(NODES, || Ok(missing().is_empty()))? {
        let missing = missing();
        let first: Vec<&str> = missing.iter().take(NAMED).map(|name| name.as_str()).collect();
        tracing::error!("{} zvols have no node: {} …", missing.len(), first.join(", "));
    }
    Ok(())
}
