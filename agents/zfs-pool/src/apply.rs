//! Imports and exports.

use crate::decide::Seen;
use hasan::config::Backend;
use hasan::legs::{self, Leg, Role};
use hasan::machine::Machine;
use hasan::ocf::Fault;
use hasan::pacemaker::NodeState;
use hasan::{iscsi, pacemaker};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a start waits for the other node's legs to come, or to be known to be lost.
const PEER_LEGS: Duration = Duration::from_secs(20);

/// Waits while the other node's legs are neither there nor known to be lost: an import without them
/// pays for a resilver, and one with a leg whose I/O waits would wait with it.
pub(crate) fn await_peer_legs(
    machine: &Machine,
    backend: &Backend,
    peer_state: NodeState,
) -> Result<(), Fault> {
    let at_most = match peer_state {
        NodeState::Online => PEER_LEGS,
        NodeState::Fenced | NodeState::Offline | NodeState::Unclean => Duration::ZERO,
    };
    let sessions = || iscsi::observe(machine, &backend.peer.iqn);
    machine.await_condition(at_most, || {
        let maps = legs::observe(machine)?;
        let answering: BTreeSet<&Leg> =
            legs::answering(&maps, &sessions()?).into_iter().map(|map| &map.leg).collect();
        Ok(backend.peer.legs.iter().all(|leg| answering.contains(leg)))
    })?;
    machine.await_condition(PEER_LEGS, || {
        let blocked = |disk: &iscsi::Disk| disk.state == iscsi::DiskState::Blocked;
        Ok(!sessions()?.iter().flat_map(|session| &session.disks).any(blocked))
    })?;
    Ok(())
}

pub(crate) fn import(
    machine: &Machine,
    pool: &str,
    backend: &Backend,
    seen: &Seen,
    force: bool,
    mount: bool,
) -> Result<(), Fault> {
    if !seen.peer_legs_answer {
        let since = pacemaker::now();
        let mark = pacemaker::dirty_mark(pool);
        pacemaker::set_attribute(machine, &backend.peer.node, &mark, &since)?;
    }
    // A map whose I/O waits, for want of a path, would stop the import for ever. Somebody's look at
    // it may wait there too, and would hold it.
    for map in legs::observe(machine)? {
        if map.role == Role::Remote && seen.absent.contains(&map.leg) {
            legs::fail_if_no_path(machine, &map.leg)?;
            legs::remove(machine, &map)?;
        }
    }
    let devices: Vec<String> =
        seen.labels.keys().map(|leg| leg.device().display().to_string()).collect();
    let guid = seen.labels.values().map(|label| label.pool_guid.to_string()).next();
    let mut arguments = vec!["import", "-o", "cachefile=none"];
    if force {
        arguments.push("-f");
    }
    if !mount {
        arguments.push("-N");
    }
    for device in &devices {
        arguments.extend(["-d", device.as_str()]);
    }
    let guid = guid.ok_or_else(|| Fault::generic(format!("no leg carries the pool {pool:?}")))?;
    arguments.push(&guid);
    machine.run("zpool", &arguments).map(|_| ())
}

pub(crate) fn export(machine: &Machine, pool: &str) -> Result<(), Fault> {
    machine.run("zpool", &["export", pool]).map(|_| ())
}
