//! Reads what the decision rests on, and who holds the pool.

use crate::decide::Seen;
use hasan::config::Backend;
use hasan::legs::{self, Map, Role};
use hasan::machine::Machine;
use hasan::ocf::Fault;
use hasan::{iscsi, lio, pacemaker, zfs};
use std::collections::BTreeMap;
use std::path::Path;

pub(crate) fn observe(machine: &Machine, pool: &str, backend: &Backend) -> Result<Seen, Fault> {
    let maps = legs::observe(machine)?;
    let answering = answering(machine, backend, &maps)?;
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
        peer_state: pacemaker::node_state(machine, &backend.peer.node)?,
        dirty_since: pacemaker::attribute(machine, &own_name, &pacemaker::dirty_mark(pool))?,
    })
}

/// The maps for ZFS whose I/O goes through: the local ones, and the remote ones with a live path.
fn answering(machine: &Machine, backend: &Backend, maps: &[Map]) -> Result<Vec<Map>, Fault> {
    let live = live_disks(machine, backend)?;
    let answers = |map: &&Map| match map.role {
        Role::Local => true,
        Role::Remote => map.slaves.iter().any(|slave| live.contains(slave)),
        Role::Export => false,
    };
    Ok(maps.iter().filter(answers).cloned().collect())
}

/// The disks from the other node that take I/O.
pub(crate) fn live_disks(machine: &Machine, backend: &Backend) -> Result<Vec<String>, Fault> {
    let sessions = iscsi::observe(machine, &backend.peer.iqn)?;
    let disks = sessions.into_iter().flat_map(|session| session.disks);
    Ok(disks
        .filter(|disk| disk.state == iscsi::DiskState::Running)
        .map(|disk| disk.block)
        .collect())
}

/// Who holds zvols of the pool, in words. The kernel shows LIO's hold on a device nowhere but in
/// configfs: /sys/block/zdN/holders stays empty.
pub(crate) fn holders(machine: &Machine, pool: &str) -> Result<Vec<String>, Fault> {
    let zvols = Path::new("/dev/zvol").join(pool);
    let held = lio::backstores(machine)?.into_iter().filter(|each| each.device.starts_with(&zvols));
    Ok(held.map(|each| format!("the LIO backstore {}", each.at.name)).collect())
}
