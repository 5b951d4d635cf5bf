//! What is left to do when the watch has ended because the node goes down. The distribution logs out of all targets then, and
//! in the end systemd flushes each map that is there, which for one without a path would wait for ever: the node would stay on.

use hasan::config::{self, Backend};
use hasan::legs::{self, Map, Role};
use hasan::machine::Machine;
use hasan::ocf::{Fault, Rc, open_log};
use hasan::zfs;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tracing::level_filters::LevelFilter;

/// Time for it, below the unit's own (TimeoutStopSec=, 90 s unless the administrator says otherwise).
const TIME: Duration = Duration::from_secs(60);

pub(crate) fn main(name: &str) -> ExitCode {
    open_log(name, LevelFilter::DEBUG);
    match shut_down(&Machine::local(Instant::now() + TIME)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            tracing::error!("{}", fault.reason);
            ExitCode::from(Rc::Generic as u8)
        }
    }
}

/// A watch that ends for another reason is begun anew, and takes the maps up as they are.
fn shut_down(machine: &Machine) -> Result<(), Fault> {
    if !is_going_down(machine)? {
        return Ok(());
    }
    remove_maps(machine, &config::load(machine, Path::new(config::PATH))?)
}

/// `stopping` (systemctl(1), `is-system-running`); its exit code says no more.
fn is_going_down(machine: &Machine) -> Result<bool, Fault> {
    Ok(machine.ask("systemctl", &["is-system-running"])?.stdout.trim() == "stopping")
}

/// Removes the maps of the other node's legs. With a pool on them they stay, and its writes wait: without the cluster nobody
/// can be told that the other node misses them.
fn remove_maps(machine: &Machine, backend: &Backend) -> Result<(), Fault> {
    for pool in &backend.pools {
        if zfs::pool_state(machine, pool)?.is_some() {
            return Err(Fault::generic(format!(
                "{pool} is imported while the node goes down: the legs of {} stay, and what is written waits",
                backend.peer.node
            )));
        }
    }
    let failures: Vec<String> = legs::observe(machine)?
        .iter()
        .filter(|map| map.role == Role::Remote)
        .filter_map(|map| remove_map(machine, map).err())
        .map(|fault| fault.reason)
        .collect();
    if failures.is_empty() { Ok(()) } else { Err(Fault::generic(failures.join("; "))) }
}

/// One whose path is lost may have a reader that waits, and is in use for as long.
fn remove_map(machine: &Machine, map: &Map) -> Result<(), Fault> {
    legs::fail_if_no_path(machine, &map.leg)?;
    legs::remove(machine, map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_that_a_pool_may_be_on_stay() {
        let root = std::env::temp_dir().join(format!("hasan-shutdown-{}", std::process::id()));
        let machine = Machine::recorded(&root);
        let put = |path: &str, text: &str| machine.replace_file(Path::new(path), text).unwrap();
        for (block, uuid) in [("dm-0", "HASAN-local-data-a1"), ("dm-1", "HASAN-remote-data-b1")] {
            let folder = format!("/sys/block/{block}");
            put(&format!("{folder}/dm/uuid"), uuid);
            put(&format!("{folder}/size"), "2048");
            put(&format!("{folder}/stat"), &"0 ".repeat(17));
        }
        let pools = ["one", "two"].map(String::from).to_vec();
        let backend = Backend { pools, ..Backend::default() };
        let reason = || remove_maps(&machine, &backend).unwrap_err().reason;
        // No program is there: the only one that is missed is that which removes the map of the other node's leg.
        assert_eq!(reason().matches("dmsetup").count(), 1, "{}", reason());
        put("/proc/spl/kstat/zfs/two/state", "SUSPENDED");
        assert!(reason().starts_with("two is imported"), "{}", reason());
        std::fs::remove_dir_all(&root).unwrap();
    }
}
