//! The steps of a start before the import.

use crate::decide::{self, Seen};
use crate::release;
use hasan::config::Backend;
use hasan::legs::{self, Leg, Role};
use hasan::machine::Machine;
use hasan::ocf::Fault;
use hasan::pacemaker::{Change, Cib, Condition, NodeState, Owner};
use hasan::zfs::Label;
use hasan::{export, iscsi, pacemaker};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a start waits for the other node's legs to come, or to be known to be lost.
const PEER_LEGS: Duration = Duration::from_secs(20);

/// Waits while the other node's legs are neither there nor known to be lost: an import without them
/// pays for a resilver, and one with a leg whose I/O waits would wait with it.
pub(crate) fn await_peer_legs(
    machine: &Machine,
    backend: &Backend,
    peer: NodeState,
) -> Result<(), Fault> {
    let at_most = match peer {
        NodeState::Online => PEER_LEGS,
        NodeState::Fenced | NodeState::Offline | NodeState::Unclean => Duration::ZERO,
    };
    let sessions = || iscsi::observe(machine, &backend.peer.iqn);
    machine.await_condition(at_most, || {
        let maps = legs::observe(machine)?;
        let answering: BTreeSet<&Leg> =
            legs::answering(&maps, &sessions()?).into_iter().map(|map| &map.leg).collect();
        let is_here = |leg: &Leg| answering.contains(leg) && machine.exists(&leg.device());
        Ok(backend.peer.legs.iter().all(is_here))
    })?;
    machine.await_condition(PEER_LEGS, || {
        let blocked = |disk: &iscsi::Disk| disk.state == iscsi::DiskState::Blocked;
        Ok(!sessions()?.iter().flat_map(|session| &session.disks).any(blocked))
    })?;
    Ok(())
}

/// Has the cluster know, before anything is written, who has the pool, whose legs miss writes from now on, or have missed some
/// already, and that a node which is no member is shut out.
pub(crate) fn write_down(
    machine: &Machine,
    pool: &str,
    backend: &Backend,
    seen: &Seen,
    cib: &Cib,
    newest: &Label,
) -> Result<(), Fault> {
    let mut hostids = vec![seen.hostid];
    if newest.hostid != seen.hostid {
        hostids.push(newest.hostid);
    }
    let record = Owner {
        node: seen.own.clone(),
        pool_guid: Some(newest.pool_guid),
        hostids,
        txg: Some(newest.txg),
        fenced: seen.cluster.fenced.get(&seen.own).copied(),
    };
    let (mark, now) = (pacemaker::dirty_mark(pool), pacemaker::now());
    let mut changes = vec![Change::Record { pool, record: &record }];
    let behind = decide::behind(seen);
    for (missing, already, node) in [
        (&seen.peer_missing, &seen.peer_mark, &backend.peer.node),
        (&seen.own_missing, &seen.own_mark, &seen.own),
    ] {
        let is_own = |leg: &Leg| backend.legs.contains_key(leg) == (*node == seen.own);
        if !missing.is_empty() || behind.iter().any(|leg| is_own(leg)) {
            let value = already.as_deref().unwrap_or(&now);
            changes.push(Change::Attribute { node, name: &mark, value });
        }
    }
    let fresh = seen.peer_fresh.as_deref().unwrap_or("never");
    if seen.cluster.peer != NodeState::Online {
        let (node, name) = (backend.peer.node.as_str(), pacemaker::SHUT_OUT);
        changes.push(Change::Attribute { node, name, value: fresh });
    }
    let before = seen.record.as_ref().ok_or_else(|| {
        Fault::generic(format!("the cluster has no record of who has the pool {pool}"))
    })?;
    // The decision rests on what this node knew. If it was frozen since, somebody else may have decided, too.
    cib.change(machine, &seen.own, Condition::Record { pool, record: before }, &changes)
}

/// Keeps a node that is no member away from our legs, whatever it is: one that was frozen and wakes up
/// cannot write. Its watch daemon and ours let it in again.
pub(crate) fn shut_out_peer(
    machine: &Machine,
    backend: &Backend,
    seen: &Seen,
) -> Result<(), Fault> {
    if seen.cluster.peer == NodeState::Online {
        return Ok(());
    }
    export::shut_out_peer(machine, backend)
}

/// A map whose I/O waits, for want of a path, would stop the import for ever. Somebody's look at it may wait there, too, and
/// would hold it: so it fails first. And one that only fails I/O would stop a reclaim (`zhack.c` forgives legs that cannot be
/// opened). While another pool is here the map may be that pool's: then it is in use, and stays.
pub(crate) fn remove_dead_maps(
    machine: &Machine,
    pool: &str,
    backend: &Backend,
    seen: &Seen,
) -> Result<(), Fault> {
    let is_alone = release::others_here(machine, backend, pool)?.is_empty();
    for map in legs::observe(machine)? {
        if map.role == Role::Remote && seen.peer_missing.contains(&map.leg) {
            release::let_go(machine, backend, pool, &map.leg)?;
            match legs::remove(machine, &map) {
                Err(fault) if is_alone => return Err(fault),
                Err(fault) => tracing::info!("{}: it is another pool's", fault.reason),
                Ok(()) => {}
            }
        }
    }
    Ok(())
}
