//! Two maps over each local disk, one for ZFS and one for the backend target; and that target, for
//! the other node's initiator alone. While that node is shut out, not even for that one: a node that
//! was taken for dead, and was only frozen, must not write to our legs when it wakes.

use crate::chap::Credentials;
use crate::config::{self, Backend};
use crate::leg_luns;
use crate::legs::{self, Leg, Map, Role};
use crate::lio::{self, Attributes, Backstore, Lun, Shell, Tpg, TpgName, Who};
use crate::machine::Machine;
use crate::ocf::{Fault, Rc};
use crate::parallel::in_parallel;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

/// Is there while the other node is shut out, so that a target that is made anew does not let it in. A boot clears it: then
/// nothing of ours is written to.
const PEER_IS_OUT: &str = "/run/hasan/peer-is-shut-out";

/// Time for the maps of a leg: udev's look at a new one waits for its disk, which may be dying, while the others are to be served.
const MAPS: Duration = Duration::from_secs(40);

/// How a leg gets over another disk. A unit whose start has failed, as it does while a disk is missing, runs no ExecStop=
/// (systemd.service(5)). `up` does not do it by itself: a LUN that is back within the time of a session carries the same serial, and
/// the other node, which has not missed it, would use the new disk as if it held the leg.
const ANEW: &str = "systemctl stop hasan-backend-export; /usr/lib/ocf/resource.d/hasan/iscsi-backend-export down; and when the \
                    journal of the other node has the legs as lost: systemctl start hasan-backend-export";

/// What is there of the export.
struct Actual {
    maps: Vec<Map>,
    tpg: Option<Tpg>,
    backstores: Vec<Backstore>,
    numbers: BTreeMap<Leg, u64>,
}

/// All that can be used.
fn observe(machine: &Machine, backend: &Backend) -> Result<Actual, Fault> {
    let mut actual = observe_all(machine, backend)?;
    leave_out_unnamed(machine, &mut actual);
    Ok(actual)
}

fn observe_all(machine: &Machine, backend: &Backend) -> Result<Actual, Fault> {
    let (tpg, backstores) = lio::observe(machine, &group(backend))?;
    let numbers = leg_luns::numbers(machine, backend.legs.keys())?;
    Ok(Actual { maps: legs::observe(machine)?, tpg, backstores, numbers })
}

fn group(backend: &Backend) -> TpgName {
    TpgName { iqn: backend.iqn.clone(), tag: 1 }
}

/// Brings up what can be brought up; a disk that is missing, or does not answer, does not hinder the others.
pub fn up(machine: &Machine, path: &Path) -> Result<(), Fault> {
    let backend = config::load(machine, path)?;
    let mut missing = make_all_maps(machine, &backend, MAPS)?;
    let _lock = lio::lock(machine)?;
    let actual = observe(machine, &backend)?;
    leg_luns::keep(machine, &actual.numbers)?;
    let credentials = backend.credentials(machine, &backend.peer.initiator)?;
    lio::apply_all(machine, &steps_up(machine, &backend, &actual, credentials)?)?;
    let portals = BTreeSet::from([backend.portal.clone()]);
    let tpg = lio::tpg(machine, &group(&backend))?;
    lio::apply_all(
        machine,
        &lio::door_up(&group(&backend), &portals, tpg.as_ref()).unwrap_or_default(),
    )?;
    let exported = |leg: &&Leg| exports(&actual.maps).any(|map| map.leg == **leg);
    let (there, absent): (Vec<&Leg>, Vec<&Leg>) = backend.legs.keys().partition(exported);
    tracing::info!("{} exports {} legs", backend.iqn, there.len());
    for leg in absent {
        missing.entry(leg.clone()).or_insert_with(|| "its map has no name yet".to_string());
    }
    for (map, steps) in left_over(&backend, &actual) {
        let removed = lio::apply_all(machine, &steps).map_err(Fault::from);
        if let Err(fault) = removed.and_then(|()| legs::remove(machine, map)) {
            let reason = format!("it is not configured any more: {}", fault.reason);
            missing.insert(map.leg.clone(), reason);
        }
    }
    told(&missing)
}

/// The maps for the target.
fn exports(maps: &[Map]) -> impl Iterator<Item = &Map> {
    maps.iter().filter(|map| map.role == Role::Export)
}

/// An error, if anything is wrong with any leg.
fn told(wrong: &BTreeMap<Leg, String>) -> Result<(), Fault> {
    let each: Vec<String> =
        wrong.iter().map(|(leg, reason)| format!("leg {leg}: {reason}")).collect();
    if each.is_empty() { Ok(()) } else { Err(Fault::generic(each.join("; "))) }
}

/// Makes the maps of all legs at once, so that none waits for another one's disk. Returns those that it could not be done for.
fn make_all_maps(
    machine: &Machine,
    backend: &Backend,
    at_most: Duration,
) -> Result<BTreeMap<Leg, String>, Fault> {
    let maps = legs::observe(machine)?;
    let machine = machine.with_time(at_most.min(machine.time_left()));
    let legs: Vec<(&Leg, &PathBuf)> = backend.legs.iter().collect();
    let (sender, failed) = mpsc::channel();
    // The receiver is there: nothing is ever lost.
    let _ = in_parallel(&legs, legs.len(), |(leg, disk)| {
        make_maps(&machine, leg, disk, &maps)
            .or_else(|fault| sender.send(((*leg).clone(), fault.reason)))
    });
    drop(sender);
    Ok(failed.into_iter().collect())
}

/// Leaves out the maps without a name, where udev waits for the disk: a backstore over one would fail, and all others with it.
fn leave_out_unnamed(machine: &Machine, actual: &mut Actual) {
    let backstores = &actual.backstores;
    actual.maps.retain(|map| {
        let device = map.leg.export_device();
        let is_open = || backstores.iter().any(|each| each.device == device);
        map.role != Role::Export || machine.exists(&device) || is_open()
    });
}

fn make_maps(machine: &Machine, leg: &Leg, disk: &Path, maps: &[Map]) -> Result<(), Fault> {
    let of_leg = |role| maps.iter().find(|map| map.leg == *leg && map.role == role);
    let absent = || Fault::generic(format!("its disk {} is not there", disk.display()));
    let Some(device) = machine.resolved(disk)? else {
        let are_there = of_leg(Role::Local).is_some() && of_leg(Role::Export).is_some();
        return if are_there { Ok(()) } else { Err(absent()) };
    };
    let block = block_of(&device).ok_or_else(absent)?;
    let folder = Path::new("/sys/class/block").join(block);
    let sectors = legs::sectors(machine, &folder)?.ok_or_else(absent)?;
    // The one that the target holds first: where it cannot go, the leg stays whole over the old disk.
    for role in [Role::Export, Role::Local] {
        match of_leg(role) {
            Some(map) if map.slaves.contains(block) => continue,
            // The disk was exchanged. A map in use is not removed: on this node a pool is on the disk that went.
            Some(map) => legs::remove(machine, map).map_err(|fault| {
                Fault::generic(format!(
                    "its map lies over a disk that went, not over {}, and is in use ({}); without the pool here: {ANEW}",
                    disk.display(),
                    fault.reason
                ))
            })?,
            None => {}
        }
        legs::make_linear(machine, leg, role, &device, sectors)?;
    }
    Ok(())
}

/// The kernel's name of a block device.
fn block_of(device: &Path) -> Option<&str> {
    device.file_name().and_then(|name| name.to_str())
}

/// The legs whose maps lie over another disk than the configured one, which was exchanged.
fn exchanged<'a>(
    machine: &Machine,
    backend: &'a Backend,
    maps: &[Map],
) -> Result<Vec<&'a str>, Fault> {
    let mut exchanged = Vec::new();
    for (leg, disk) in &backend.legs {
        let Some(device) = machine.resolved(disk)? else { continue };
        let Some(block) = block_of(&device) else { continue };
        let is_other =
            |map: &Map| map.leg == *leg && map.role != Role::Remote && !map.slaves.contains(block);
        if maps.iter().any(is_other) {
            exchanged.push(leg.name());
        }
    }
    Ok(exchanged)
}

fn steps_up(
    machine: &Machine,
    backend: &Backend,
    actual: &Actual,
    credentials: Option<Credentials>,
) -> Result<Vec<lio::Step>, Fault> {
    let is_out = machine.exists(Path::new(PEER_IS_OUT));
    let peer = Some(backend.peer.initiator.clone()).filter(|_| !is_out);
    let initiators: BTreeSet<String> = peer.into_iter().collect();
    let who = Who::Initiator(backend.peer.initiator.clone());
    let credentials = credentials.filter(|_| !is_out).map(|some| (who, some)).into_iter().collect();
    let shell = Shell { initiators, credentials, ..shell(machine, backend, actual)? };
    Ok(lio::shell_up(&shell, actual.tpg.as_ref(), &actual.backstores))
}

/// Whether the other node may not use this one's legs: the target does not let it in, or will not when it is there.
pub fn is_peer_shut_out(machine: &Machine, backend: &Backend) -> bool {
    machine.exists(Path::new(PEER_IS_OUT)) || is_kept_out(machine, backend)
}

/// Whether the target is there and does not let the other node in.
fn is_kept_out(machine: &Machine, backend: &Backend) -> bool {
    lio::lets_in(machine, &group(backend), &backend.peer.initiator) == Some(false)
}

/// Ends the other node's session with our legs, and lets it begin no other one.
pub fn shut_out_peer(machine: &Machine, backend: &Backend) -> Result<(), Fault> {
    let _lock = lio::lock(machine)?;
    machine.replace_file(Path::new(PEER_IS_OUT), "")?;
    let actual = observe(machine, backend)?;
    if actual.tpg.is_none() {
        return Ok(());
    }
    leg_luns::keep(machine, &actual.numbers)?;
    let shell = shell(machine, backend, &actual)?;
    lio::apply_all(machine, &lio::shell_up(&shell, actual.tpg.as_ref(), &actual.backstores))?;
    if is_kept_out(machine, backend) {
        return Ok(());
    }
    Err(Fault::generic(format!(
        "cannot keep {} away from the legs of this node",
        backend.peer.node
    )))
}

/// Lets the other node use our legs again.
pub fn let_peer_in(machine: &Machine, backend: &Backend) -> Result<(), Fault> {
    let _lock = lio::lock(machine)?;
    machine.remove_file(Path::new(PEER_IS_OUT))?;
    let actual = observe(machine, backend)?;
    if actual.tpg.is_none() {
        return Ok(());
    }
    leg_luns::keep(machine, &actual.numbers)?;
    let credentials = backend.credentials(machine, &backend.peer.initiator)?;
    Ok(lio::apply_all(machine, &steps_up(machine, backend, &actual, credentials)?)?)
}

/// The wanted target, without initiators: a LUN for each leg whose map is there, by the number that is the leg's.
fn shell(machine: &Machine, backend: &Backend, actual: &Actual) -> Result<Shell, Fault> {
    let mut luns: BTreeMap<u64, Lun> = BTreeMap::new();
    for leg in backend.legs.keys() {
        if !actual.maps.iter().any(|map| map.leg == *leg && map.role == Role::Export) {
            continue;
        }
        let device = leg.export_device();
        let block = machine.block(&device)?;
        let (name, serial) = (leg.name().to_string(), leg.serial());
        let lun = Lun {
            name,
            device,
            block,
            serial,
            reservations: String::new(),
            attributes: Attributes::default(),
        };
        let number = actual
            .numbers
            .get(leg)
            .ok_or_else(|| Fault::generic(format!("the leg {leg} has no number for its LUN")))?;
        luns.insert(*number, lun);
    }
    Ok(Shell {
        tpg: group(backend),
        attributes: BTreeMap::from([
            ("authentication", if backend.chap_file.is_some() { "1" } else { "0" }),
            ("demo_mode_discovery", "0"),
            ("generate_node_acls", "0"),
            ("prod_mode_write_protect", "0"),
        ]),
        luns,
        initiators: BTreeSet::new(),
        credentials: BTreeMap::new(),
    })
}

/// Takes the export down. The maps for ZFS stay: a pool may be on them.
pub fn down(machine: &Machine, path: &Path) -> Result<(), Fault> {
    let backend = config::load(machine, path)?;
    let _lock = lio::lock(machine)?;
    let actual = observe_all(machine, &backend)?;
    // One thing that does not go keeps no other one.
    let target = lio::apply_all(machine, &steps_down(&backend, &actual)).map_err(Fault::from);
    let mut wrong: Vec<String> = target.err().map(|fault| fault.reason).into_iter().collect();
    for map in exports(&actual.maps) {
        wrong.extend(legs::remove(machine, map).err().map(|fault| fault.reason));
    }
    if wrong.is_empty() { Ok(()) } else { Err(Fault::generic(wrong.join("; "))) }
}

/// Of legs that are not configured any more, too: what lies over a map of ours is ours.
fn steps_down(backend: &Backend, actual: &Actual) -> Vec<lio::Step> {
    let legs = backend.legs.keys().chain(exports(&actual.maps).map(|map| &map.leg));
    let devices: BTreeSet<_> = legs.map(Leg::export_device).collect();
    let is_ours = |backstore: &Backstore| devices.contains(&backstore.device);
    lio::shell_down(&group(backend), actual.tpg.as_ref(), &actual.backstores, is_ours)
}

/// The maps for the target of legs that are not configured any more, and the steps that free each. Their LUNs are gone by then.
fn left_over<'a>(backend: &Backend, actual: &'a Actual) -> Vec<(&'a Map, Vec<lio::Step>)> {
    let steps = |map: &Map| {
        let device = map.leg.export_device();
        let over = actual.backstores.iter().filter(|each| each.device == device);
        over.map(|each| lio::Step::RemoveBackstore(each.at.clone())).collect()
    };
    let maps = exports(&actual.maps).filter(|map| !backend.legs.contains_key(&map.leg));
    maps.map(|map| (map, steps(map))).collect()
}

/// Says what is missing of the export.
pub fn check(machine: &Machine, path: &Path) -> Result<(), Fault> {
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
    let exchanged = exchanged(machine, &backend, &actual.maps)?;
    if !exchanged.is_empty() {
        return Err(Fault::new(
            Rc::Degraded,
            format!(
                "legs over a disk that went: {}; see \"A failed disk\" in the README of hasan",
                exchanged.join(", ")
            ),
        ));
    }
    if is_peer_shut_out(machine, &backend) {
        return Err(Fault::new(
            Rc::Degraded,
            format!(
                "{} is shut out from the legs of this node until it has joined anew, without the pool",
                backend.peer.node
            ),
        ));
    }
    let portals = BTreeSet::from([backend.portal.clone()]);
    let door = lio::door_up(&group(&backend), &portals, actual.tpg.as_ref());
    // Which password is asked for is not looked up each time: that may take a program.
    let who = Who::Initiator(backend.peer.initiator.clone());
    let asked = actual.tpg.as_ref().and_then(|tpg| tpg.credentials.get(&who)).cloned();
    let is_complete = asked.is_some() == backend.chap_file.is_some()
        && steps_up(machine, &backend, &actual, asked)?.is_empty()
        && door.is_some_and(|door| door.is_empty());
    if is_complete {
        return Ok(());
    }
    Err(Fault::generic(format!(
        "the backend target {} is not complete: run systemctl reload-or-restart hasan-backend-export",
        backend.iqn
    )))
}

#[cfg(test)]
#[path = "export_tests.rs"]
mod tests;
