//! Reads what the decision rests on.

use crate::decide::{Policy, Seen};
use hasan::config::Backend;
use hasan::legs::{self, Leg, Map};
use hasan::machine::Machine;
use hasan::ocf::Fault;
use hasan::pacemaker::{Cib, Cluster};
use hasan::{iscsi, pacemaker, zfs};
use std::collections::BTreeMap;

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
    let carried = labels(machine, &legs::answering(&maps, &sessions))?;
    let missing = |legs: &mut dyn Iterator<Item = &Leg>| -> Vec<Leg> {
        legs.filter(|leg| !carried.contains_key(*leg)).cloned().collect()
    };
    let own = pacemaker::own_name(machine)?;
    let cib = pacemaker::cib(machine)?;
    let attribute = |node: &str, name: &str| cib.attribute(node, name).map(str::to_string);
    let mark = |node: &str| attribute(node, &pacemaker::dirty_mark(pool));
    let seen = Seen {
        own_missing: missing(&mut backend.legs.keys()),
        peer_missing: missing(&mut backend.peer.legs.iter()),
        hostid: zfs::hostid(machine)?,
        version: zfs::load_module(machine)?,
        policy,
        peer: backend.peer.node.clone(),
        cluster,
        peer_hostid: attribute(&backend.peer.node, pacemaker::HOSTID),
        peer_fresh: attribute(&backend.peer.node, pacemaker::FRESH),
        own_mark: mark(&own),
        peer_mark: mark(&backend.peer.node),
        record: cib.owner(pool)?,
        own,
        labels: carried.into_iter().filter(|(_, label)| label.pool == pool).collect(),
    };
    Ok((seen, cib))
}

/// What lies on each leg that answers. One that carries no pool is not among them.
fn labels(machine: &Machine, answering: &[&Map]) -> Result<BTreeMap<Leg, zfs::Label>, Fault> {
    let mut labels = BTreeMap::new();
    for map in answering {
        // The map of a leg that has just arrived is there before udev has made its node.
        if !machine.exists(&map.leg.device()) {
            continue;
        }
        let label = zfs::read_label(machine, &map.leg.device())?;
        if let Some(label) = label.filter(|label| label.state != zfs::LabelState::NoPool) {
            labels.insert(map.leg.clone(), label);
        }
    }
    Ok(labels)
}
