//! Two maps over each local disk, one for ZFS and one for the backend target; and that target, for
//! the other node's initiator alone.

use hasan::config::{self, Backend};
use hasan::legs::{self, Leg, Map, Role};
use hasan::lio::{self, Backstore, Lun, Shell, Tpg, TpgName};
use hasan::machine::Machine;
use hasan::ocf::Fault;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What is there of the export.
struct Actual {
    maps: Vec<Map>,
    tpg: Option<Tpg>,
    backstores: Vec<Backstore>,
}

fn observe(machine: &Machine, backend: &Backend) -> Result<Actual, Fault> {
    Ok(Actual {
        maps: legs::observe(machine)?,
        tpg: lio::tpg(machine, &group(backend))?,
        backstores: lio::backstores(machine)?,
    })
}

fn group(backend: &Backend) -> TpgName {
    TpgName { iqn: backend.iqn.clone(), tag: 1 }
}

/// Brings up what can be brought up; a disk that is missing does not hinder the others.
pub(crate) fn up(machine: &Machine, path: &Path) -> Result<(), Fault> {
    let backend = config::load(machine, path)?;
    let mut missing = Vec::new();
    let maps = legs::observe(machine)?;
    for (leg, disk) in &backend.legs {
        match make_maps(machine, leg, disk, &maps) {
            Ok(()) => {}
            Err(fault) => missing.push(format!("leg {leg}: {}", fault.reason)),
        }
    }
    let actual = observe(machine, &backend)?;
    let steps = steps_up(&backend, &actual);
    for step in &steps {
        lio::apply(machine, step)?;
    }
    let portals = BTreeSet::from([backend.portal.clone()]);
    let tpg = lio::tpg(machine, &group(&backend))?;
    for step in lio::door_up(&group(&backend), &portals, tpg.as_ref()).unwrap_or_default() {
        lio::apply(machine, &step)?;
    }
    tracing::info!("{} exports {} legs", backend.iqn, backend.legs.len() - missing.len());
    if missing.is_empty() { Ok(()) } else { Err(Fault::generic(missing.join("; "))) }
}

fn make_maps(machine: &Machine, leg: &Leg, disk: &Path, maps: &[Map]) -> Result<(), Fault> {
    let there = |role| maps.iter().any(|map| map.leg == *leg && map.role == role);
    if there(Role::Local) && there(Role::Export) {
        return Ok(());
    }
    let absent = || Fault::generic(format!("its disk {} is not there", disk.display()));
    let device = machine.resolved(disk)?.ok_or_else(absent)?;
    let block = device.file_name().and_then(|name| name.to_str()).ok_or_else(absent)?;
    let sectors = legs::sectors(machine, block)?.ok_or_else(absent)?;
    for role in [Role::Local, Role::Export] {
        if !there(role) {
            legs::make_linear(machine, leg, role, &device, sectors)?;
        }
    }
    Ok(())
}

fn steps_up(backend: &Backend, actual: &Actual) -> Vec<lio::Step> {
    lio::shell_up(&shell(backend, actual), actual.tpg.as_ref(), &actual.backstores)
}

/// The wanted target: a LUN for each leg whose map is there. A LUN keeps the number that it has,
/// because a change would tear it from a session; the peer tells legs by their serials.
fn shell(backend: &Backend, actual: &Actual) -> Shell {
    let mut luns = BTreeMap::new();
    let mut fresh = Vec::new();
    for leg in backend.legs.keys() {
        if !actual.maps.iter().any(|map| map.leg == *leg && map.role == Role::Export) {
            continue;
        }
        let lun =
            Lun { name: leg.name().to_string(), device: leg.export_device(), serial: leg.serial() };
        match number_of(&lun, actual) {
            Some(number) => {
                luns.insert(number, lun);
            }
            None => fresh.push(lun),
        }
    }
    for lun in fresh {
        let free = (0..).find(|number| !luns.contains_key(number)).expect("there is a next number");
        luns.insert(free, lun);
    }
    Shell {
        tpg: group(backend),
        attributes: BTreeMap::from([
            ("authentication", "0"),
            ("demo_mode_discovery", "0"),
            ("generate_node_acls", "0"),
            ("prod_mode_write_protect", "0"),
        ]),
        luns,
        initiators: BTreeSet::from([backend.peer.initiator.clone()]),
    }
}

fn number_of(lun: &Lun, actual: &Actual) -> Option<u64> {
    let backstore = actual.backstores.iter().find(|each| each.device == lun.device)?;
    let luns = &actual.tpg.as_ref()?.luns;
    luns.iter().find(|(_, at)| at.as_ref() == Some(&backstore.at)).map(|(number, _)| *number)
}

/// Takes the export down. The maps for ZFS stay: a pool may be on them.
pub(crate) fn down(machine: &Machine, path: &Path) -> Result<(), Fault> {
    let backend = config::load(machine, path)?;
    let actual = observe(machine, &backend)?;
    let exports: BTreeSet<_> = backend.legs.keys().map(Leg::export_device).collect();
    let is_ours = |device: &Path| exports.contains(device);
    let tpg = actual.tpg.as_ref();
    for step in lio::shell_down(&group(&backend), tpg, &actual.backstores, is_ours) {
        lio::apply(machine, &step)?;
    }
    for map in actual.maps.iter().filter(|map| map.role == Role::Export) {
        legs::remove(machine, map)?;
    }
    Ok(())
}

/// Says what is missing of the export.
pub(crate) fn check(machine: &Machine, path: &Path) -> Result<(), Fault> {
    let backend = config::load(machine, path)?;
    let actual = observe(machine, &backend)?;
    let mapped = |leg: &&Leg| {
        actual.maps.iter().filter(|map| map.leg == **leg && map.role != Role::Remote).count() == 2
    };
    let missing: Vec<&str> =
        backend.legs.keys().filter(|leg| !mapped(leg)).map(Leg::name).collect();
    if !missing.is_empty() {
        let advice = "see: systemctl status hasan-backend-export";
        return Err(Fault::generic(format!("legs without maps: {}; {advice}", missing.join(", "))));
    }
    let portals = BTreeSet::from([backend.portal.clone()]);
    let door = lio::door_up(&group(&backend), &portals, actual.tpg.as_ref());
    let is_complete = steps_up(&backend, &actual).is_empty() && door.is_some_and(|d| d.is_empty());
    if is_complete {
        return Ok(());
    }
    Err(Fault::generic(format!(
        "the backend target {} is not complete: run systemctl restart hasan-backend-export",
        backend.iqn
    )))
}
