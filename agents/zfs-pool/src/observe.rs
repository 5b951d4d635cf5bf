//! Reads what the decision rests on, and who holds the pool.

use crate::decide::Seen;
use hasan::config::Backend;
use hasan::legs;
use hasan::machine::Machine;
use hasan::ocf::Fault;
use hasan::pacemaker::NodeState;
use hasan::{iscsi, lio, pacemaker, zfs};
use std::collections::BTreeMap;
use std::path::Path;

pub(crate) fn observe(
    machine: &Machine,
    pool: &str,
    backend: &Backend,
    peer_state: NodeState,
) -> Result<Seen, Fault> {
    let maps = legs::observe(machine)?;
    let sessions = iscsi::observe(machine, &backend.peer.iqn)?;
    let answering = legs::answering(&maps, &sessions);
    let mut labels = BTreeMap::new();
    for map in &answering {
        let label = zfs::read_label(machine, &map.leg.device())?;
        if let Some(label) = label.filter(|label| label.pool == pool) {
            labels.insert(map.leg.clone(), label);
        }
    }
    let answers = |leg: &&legs::Leg| answering.iter().any(|map| map.leg == **leg);
    let expected = backend.legs.keys().chain(&backend.peer.legs);
    let own_name = pacemaker::own_name(machine)?;
    Ok(Seen {
        labels,
        absent: expected.filter(|leg| !answers(leg)).cloned().collect(),
        peer_legs_answer: backend.peer.legs.iter().all(|leg| answers(&leg)),
        hostid: zfs::hostid(machine)?,
        peer: backend.peer.node.clone(),
        peer_state,
        dirty_since: pacemaker::attribute(machine, &own_name, &pacemaker::dirty_mark(pool))?,
    })
}

/// Who holds zvols of the pool, in words. The kernel shows LIO's hold on a device nowhere but in
/// configfs: /sys/block/zdN/holders stays empty.
pub(crate) fn holders(machine: &Machine, pool: &str) -> Result<Vec<String>, Fault> {
    let zvols = Path::new("/dev/zvol").join(pool);
    let held = lio::backstores(machine)?.into_iter().filter(|each| each.device.starts_with(&zvols));
    Ok(held.map(|each| format!("the LIO backstore {}", each.at.name)).collect())
}
