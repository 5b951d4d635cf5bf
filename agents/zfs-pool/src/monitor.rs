//! The state of the pool on this node. Healthy, it costs the reading of a file and no program.

use crate::{DEGRADED_IS_OK, start};
use hasan::machine::Machine;
use hasan::ocf::{self, Fault, Outcome, Rc, Values};
use hasan::pacemaker::{self, Change, Cib, Condition, Owner};
use hasan::zfs::{self, PoolState};
use std::time::Duration;

/// The user property that a deep check writes: the time, which nobody reads.
const CHECKED: &str = "hasan:checked";

/// How long `zpool status` may take, and the cluster's tools; and half of what time there is.
const DETAILS: Duration = Duration::from_secs(10);

/// The machine for such a question.
fn in_brief(machine: &Machine) -> Machine {
    machine.with_time(DETAILS.min(machine.time_left() / 2))
}

pub(crate) fn monitor(machine: &Machine, pool: &str, values: &Values) -> Outcome {
    let Some(state) = zfs::settled_pool_state(machine, pool, zfs::BETWEEN)? else {
        return absent(machine, pool);
    };
    if !state.is_usable() {
        return Err(unusable(pool, &state));
    }
    let is_deep = ocf::check_level() >= 10;
    if is_deep {
        write_and_sync(machine, pool)?;
    }
    // The kernel's word for the pool can lag behind that for its vdevs, on ZFS 2.3 by minutes: a deep look asks for both.
    let may_be_degraded = values.is_set(&DEGRADED_IS_OK);
    if !may_be_degraded && (is_deep || state != PoolState::Online) {
        check_vdevs(machine, pool, &state)?;
    }
    if !is_deep {
        return Ok(Rc::Success);
    }
    is_recorded(machine, pool)?;
    can_take_over(machine, values)
}

/// All vdevs of a pool that works are well.
fn check_vdevs(machine: &Machine, pool: &str, state: &PoolState) -> Result<(), Fault> {
    // A pool that is known to work does not fail for want of words: while a leg's I/O waits, so does "zpool status".
    let unwell = unwell(machine, pool).map_err(|fault| {
        let state = state.word();
        let reason = format!("the pool {pool} is {state}, no more is known, {}", fault.reason);
        Fault::new(Rc::Degraded, reason)
    })?;
    if unwell.is_empty() && *state == PoolState::Online {
        return Ok(());
    }
    Err(Fault::new(Rc::Degraded, format!("the pool {pool} is DEGRADED: {unwell}")))
}

/// A pool that was moved by hand runs with the other node's record: neither would be allowed to let the other's legs go, nor to
/// take the pool over. A cluster that gives no answer says nothing of the pool.
fn is_recorded(machine: &Machine, pool: &str) -> Result<(), Fault> {
    let brief = in_brief(machine);
    let ask = || -> Result<_, Fault> {
        let cib = pacemaker::cib(&brief)?;
        Ok((cib.owner(pool)?, cib, pacemaker::own_name(&brief)?))
    };
    let (record, cib, own) = match ask() {
        Ok(known) => known,
        Err(fault) => {
            tracing::warn!("who has the pool {pool} by the cluster's record: {}", fault.reason);
            return Ok(());
        }
    };
    let Some(record) = record.as_ref().filter(|record| record.node == own) else {
        return Err(Fault::new(Rc::Degraded, not_recorded(pool, &own, record.as_ref())));
    };
    if let Err(fault) = record_cut(&in_brief(machine), pool, record, &cib) {
        tracing::warn!("the record of who has the pool {pool}: {}", fault.reason);
    }
    Ok(())
}

/// A fencing that this node has come back from proves nothing of it any more: the record has to know of it.
fn record_cut(machine: &Machine, pool: &str, record: &Owner, cib: &Cib) -> Result<(), Fault> {
    let cut = pacemaker::last_cut(machine, &record.node)?;
    if record.knows(cut) {
        return Ok(());
    }
    let mut known = Owner { fenced: cut, ..record.clone() };
    // An administrator's record says who has the pool, and no more.
    if known.pool_guid.is_none() {
        known.pool_guid = Some(zfs::pool_guid(machine, pool)?);
        known.hostids = vec![zfs::hostid(machine)?];
        known.txg = Some(0);
    }
    let condition = Condition::Record { pool, record };
    cib.change(machine, &record.node, condition, &[Change::Record { pool, record: &known }])
}

fn not_recorded(pool: &str, own: &str, record: Option<&Owner>) -> String {
    let node = record.map_or("nobody", |record| &record.node);
    format!("the cluster's record says {node} has {pool}: {}", Owner::command(pool, own))
}

/// An update of ZFS can be one that takes no pool over from a dead node: better said now than then.
fn can_take_over(machine: &Machine, values: &Values) -> Outcome {
    start::validate(machine, values).map_err(|fault| Fault::new(Rc::Degraded, fault.reason))
}

/// A pool that is here and does not work.
pub(crate) fn unusable(pool: &str, state: &PoolState) -> Fault {
    Fault::generic(format!("the pool {pool} is imported, but it is {}", state.word()))
}

/// No pool in the kernel means no pool only while nobody imports it.
fn absent(machine: &Machine, pool: &str) -> Outcome {
    if zfs::is_importing(machine, pool)? {
        return Err(Fault::generic(format!("an import of the pool {pool} is under way")));
    }
    Ok(Rc::NotRunning)
}

/// A property that is set is on the legs when `zfs set` returns: it waits for its transaction group.
fn write_and_sync(machine: &Machine, pool: &str) -> Result<(), Fault> {
    let assignment = format!("{CHECKED}={}", pacemaker::now());
    // A program that is missing is no reason to keep the pool from this node: it is here.
    let set = machine.run("zfs", &["set", &assignment, pool]);
    set.map(|_| ()).map_err(|fault| Fault::generic(fault.reason))
}

/// The vdevs that are not well, in words; empty if all are. Only a deep look, and a pool that is not well, pay for it.
fn unwell(machine: &Machine, pool: &str) -> Result<String, Fault> {
    let machine = in_brief(machine);
    let status = zfs::parse_status(&machine.run("zpool", &["status", "-p", pool])?)?;
    let is_leaf = |vdev: &&zfs::Vdev| {
        vdev.name != pool && !vdev.name.starts_with("mirror-") && !vdev.name.starts_with("raidz")
    };
    let is_unwell = |vdev: &&zfs::Vdev| vdev.state != "ONLINE" || vdev.errors > 0;
    let words: Vec<String> =
        status.vdevs.iter().filter(is_leaf).filter(is_unwell).map(ToString::to_string).collect();
    Ok(words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_degraded_pool_that_tells_no_more_is_degraded_and_not_failed() {
        let root = std::env::temp_dir().join(format!("hasan-monitor-{}", std::process::id()));
        let machine = Machine::recorded(&root);
        machine.replace_file(Path::new("/proc/spl/kstat/zfs/none/state"), "DEGRADED").unwrap();
        let fault = monitor(&machine, "none", &Values::default()).unwrap_err();
        assert_eq!(fault.rc, Rc::Degraded, "{}", fault.reason);
        assert!(fault.reason.contains("no more is known"), "{}", fault.reason);
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_pool_that_is_between_two_states_for_a_moment_has_not_failed() {
        let root = std::env::temp_dir().join(format!("hasan-moment-{}", std::process::id()));
        let machine = Machine::recorded(&root);
        let state = Path::new("/proc/spl/kstat/zfs/none/state");
        machine.replace_file(state, "OFFLINE").unwrap();
        let outcome = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(300));
                machine.replace_file(state, "ONLINE").unwrap();
            });
            monitor(&machine, "none", &Values::default())
        });
        assert_eq!(outcome.unwrap(), Rc::Success);
        std::fs::remove_dir_all(&root).unwrap();
    }
}
