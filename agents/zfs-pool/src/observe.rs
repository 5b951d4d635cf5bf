//! Reads what the decision rests on.

use crate::decide::{Policy, Seen};
use crate::{members, release};
use hasan::aside::Aside;
use hasan::config::Backend;
use hasan::legs::{self, Leg, Map};
use hasan::machine::Machine;
use hasan::ocf::Fault;
use hasan::pacemaker::{Cib, Cluster};
use hasan::{iscsi, pacemaker, zfs};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What the decision rests on; and the cluster's configuration that it was taken from, in which the decision is written
/// down.
pub(crate) fn observe(
    machine: &Machine,
    pool: &str,
    backend: &Backend,
    policy: Policy,
    cluster: Cluster,
) -> Result<(Seen, Cib), Fault> {
    let maps = legs::observe(machine)?;
    let sessions = iscsi::observe(machine, &backend.peer.iqn)?;
    let carried = labels(machine, pool, backend, &legs::answering(&maps, &sessions))?;
    let members = members::members(pool, backend, &carried);
    let missing = |legs: &mut dyn Iterator<Item = &Leg>| -> Vec<Leg> {
        let is_missing = |leg: &&Leg| members::is_missing(pool, members.as_ref(), &carried, leg);
        legs.filter(is_missing).cloned().collect()
    };
    let own = pacemaker::own_name(machine)?;
    let cib = pacemaker::cib(machine)?;
    let attribute = |node: &str, name: &str| cib.attribute(node, name).map(str::to_string);
    let mark = |node: &str| attribute(node, &pacemaker::dirty_mark(pool));
    let record = cib.owner(pool)?;
    let seen = Seen {
        own_missing: missing(&mut backend.legs.keys()),
        peer_missing: missing(&mut backend.peer.legs.iter()),
        hostid: zfs::hostid(machine)?,
        version: zfs::load_module(machine)?,
        policy,
        peer: backend.peer.node.clone(),
        cluster: cluster.since(record.as_ref(), &backend.peer.node),
        peer_hostid: attribute(&backend.peer.node, pacemaker::HOSTID),
        peer_fresh: attribute(&backend.peer.node, pacemaker::FRESH),
        own_mark: mark(&own),
        peer_mark: mark(&backend.peer.node),
        record,
        own,
        beside: carried
            .iter()
            .filter(|(_, label)| label.state == zfs::LabelState::Beside)
            .map(|(leg, _)| leg.clone())
            .collect(),
        labels: carried.into_iter().filter(|(_, label)| label.pool == pool).collect(),
    };
    Ok((seen, cib))
}

/// How long a leg may take to show its label: far longer than a lost session takes to be known as such.
const LABEL: Duration = Duration::from_secs(30);
/// Pause between two looks at its path meanwhile.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a read takes to fail, once nothing waits any more.
const FREED: Duration = Duration::from_secs(5);

/// What lies on each leg that answers. One that carries no pool is not among them.
fn labels(
    machine: &Machine,
    pool: &str,
    backend: &Backend,
    answering: &[&Map],
) -> Result<BTreeMap<Leg, zfs::Label>, Fault> {
    let mut labels = BTreeMap::new();
    for map in answering {
        // The map of a leg that has just arrived is there before udev has made its node.
        if !machine.exists(&map.leg.device()) {
            continue;
        }
        let label = label(machine, pool, backend, &map.leg)?;
        if let Some(label) = label.filter(|label| label.state != zfs::LabelState::NoPool) {
            labels.insert(map.leg.clone(), label);
        }
    }
    Ok(labels)
}

/// The label of a leg; `None` of one that turns out to be lost, or whose disk fails the read: both have nothing to give, and
/// what is decided without them is decided as if they were away. The disks of a node that was fenced look well for some
/// seconds, and a read that is under way when the path fails would wait for the leg's return; so would one of a disk whose
/// errors dm-multipath takes for its path's: so it is let fail.
fn label(
    machine: &Machine,
    pool: &str,
    backend: &Backend,
    leg: &Leg,
) -> Result<Option<zfs::Label>, Fault> {
    let device = leg.device();
    let read = Aside::begin(machine, move |machine| zfs::read_label(machine, &device));
    let begun = Instant::now();
    while begun.elapsed() < LABEL {
        match read.result_within(PAUSE) {
            Some(Err(fault)) => {
                tracing::error!("{}: the leg {leg} counts as missing", fault.reason);
                return Ok(None);
            }
            Some(Ok(label)) => return Ok(label),
            None if is_lost_now(machine, backend, leg)? => break,
            None => {}
        }
    }
    tracing::warn!("leg {leg} does not show its label: it counts as missing");
    // A disk of this node that hangs is not waited for here; ZFS may do so.
    if backend.peer.legs.contains(leg) {
        release::let_go(machine, backend, pool, leg)?;
        if read.result_within(FREED).is_none() {
            let reason = format!("the leg {leg} is lost, and a read of it does not end");
            return Err(Fault::generic(reason));
        }
    }
    Ok(None)
}

/// Whether nothing takes the leg's I/O, and its session will not come back by itself soon.
pub(crate) fn is_lost_now(machine: &Machine, backend: &Backend, leg: &Leg) -> Result<bool, Fault> {
    let sessions = iscsi::observe(machine, &backend.peer.iqn)?;
    let disks = || sessions.iter().flat_map(|session| &session.disks);
    let is_blocked = disks().any(|disk| disk.state == iscsi::DiskState::Blocked);
    let maps = legs::observe(machine)?;
    Ok(!is_blocked && !legs::answering(&maps, &sessions).iter().any(|map| map.leg == *leg))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// A pipe stands for a map whose I/O waits: nobody answers there either.
    #[test]
    fn a_leg_that_is_lost_while_it_is_read_is_let_go() {
        let root = std::env::temp_dir().join(format!("hasan-label-{}", std::process::id()));
        let machine = Machine::recorded(&root);
        let leg = Leg::new("data-b1").unwrap();
        machine.replace_file(Path::new("/dev/mapper/other"), "").unwrap();
        let pipe = root.join("dev/mapper/data-b1").display().to_string();
        let local = Machine::local(Instant::now() + FREED);
        local.run("mkfifo", &[&pipe]).unwrap();
        // No such map can be told anything here.
        let mut backend = Backend::default();
        backend.peer.legs.push(leg.clone());
        let fault = label(&machine, "p", &backend, &leg).unwrap_err();
        assert!(fault.reason.contains("dmsetup"), "{}", fault.reason);
        std::fs::remove_dir_all(&root).unwrap();
    }
}
