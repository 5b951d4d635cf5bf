//! Does one step. Each can be cut off at any point and done again.

use super::expedite::Expedited;
use super::observe::{CORE, ISCSI, LINK, folder, is_target_empty, link_in};
use super::{BackstoreName, Lun, Step, TpgName, Who, attributes, reservations};
use crate::chap::Credentials;
use crate::machine::Machine;
use crate::ocf::Fault;
use crate::parallel::in_parallel;
use crate::zfs;
use sha2::{Digest, Sha256};
use std::mem::discriminant;
use std::path::{Path, PathBuf};

/// What the kernel takes for "not set" (`iscsi_target_configfs.c`, `__DEF_NACL_AUTH_STR`).
const UNSET: &str = "NULL";
/// The port group of each backstore that the kernel makes itself (`target_core_configfs.c`, `target_core_make_subdev`).
const KERNELS_GROUP: &str = "default_tg_pt_gp";
/// How many LUNs are linked or unlinked at once: each waits for grace periods of the kernel, which several can share.
const AT_ONCE: usize = 32;

/// A step that could not be done.
#[derive(Debug)]
pub struct Failure {
    /// The step.
    pub step: Step,
    /// Why not.
    pub fault: Fault,
}

impl From<Box<Failure>> for Fault {
    fn from(failure: Box<Failure>) -> Fault {
        failure.fault
    }
}

/// Does all steps, in their order.
///
/// # Errors
/// Of the first step that fails; those behind it are not begun.
pub fn apply_all(machine: &Machine, steps: &[Step]) -> Result<(), Box<Failure>> {
    log(steps);
    let waits = |step: &Step| {
        matches!(step, Step::MakeLun(..) | Step::RemoveLun(..) | Step::RemoveBackstore(..))
    };
    let _expedited = steps.iter().any(waits).then(|| Expedited::begin(machine));
    let mut rest = steps;
    while let Some(first) = rest.first() {
        let count = match first {
            Step::MakeLun(..) | Step::RemoveLun(..) => alike(rest),
            _ => 1,
        };
        let (batch, after) = rest.split_at(count);
        in_parallel(batch, AT_ONCE, |step| {
            machine.tell(&step.to_string());
            apply(machine, step).map_err(|fault| Box::new(Failure { step: step.clone(), fault }))
        })?;
        rest = after;
    }
    Ok(())
}

/// Many steps of a kind are one line: a thousand LUNs would keep the journal busy for longer than the kernel.
fn log(steps: &[Step]) {
    let mut rest = steps;
    while let Some(first) = rest.first() {
        let count = alike(rest);
        match count {
            1 => tracing::debug!("{first}"),
            count => tracing::debug!("{first}, and {} more like it", count - 1),
        }
        rest = &rest[count..];
    }
}

/// How many of the steps at the beginning are of the kind of the first.
fn alike(steps: &[Step]) -> usize {
    let kind = steps.first().map(discriminant);
    steps.iter().take_while(|step| Some(discriminant(*step)) == kind).count()
}

fn apply(machine: &Machine, what: &Step) -> Result<(), Fault> {
    match what {
        Step::MakeTpg(tpg) => make_tpg(machine, tpg),
        Step::SetAttribute(tpg, name, value) => {
            machine.write_attribute(&folder(tpg).join("attrib").join(name), value)
        }
        Step::MakeBackstore(at, lun) => make_backstore(machine, at, lun),
        Step::MakeLun(tpg, number, at) => make_lun(machine, tpg, *number, at),
        Step::MakeAcl(tpg, initiator) => machine.make_dir(&acl(tpg, initiator)),
        Step::SetCredentials(tpg, who, credentials) => {
            set_credentials(machine, tpg, who, credentials.as_ref())
        }
        Step::MapLun(tpg, initiator, number) => map_lun(machine, tpg, initiator, *number),
        Step::MakePortal(tpg, portal) => machine.make_dir(&folder(tpg).join("np").join(portal)),
        Step::Enable(tpg) => machine.write_attribute(&folder(tpg).join("enable"), "1"),
        Step::Disable(tpg) => machine.write_attribute(&folder(tpg).join("enable"), "0"),
        Step::RemovePortal(tpg, portal) => machine.remove_dir(&folder(tpg).join("np").join(portal)),
        Step::UnmapLun(tpg, initiator, number) => {
            remove_linked(machine, &acl(tpg, initiator).join(format!("lun_{number}")))
        }
        Step::RemoveAcl(tpg, initiator) => machine.remove_dir(&acl(tpg, initiator)),
        Step::RemoveLun(tpg, number) => remove_linked(machine, &lun_folder(tpg, *number)),
        Step::RemoveBackstore(at) => remove_backstore(machine, at),
        Step::RemoveTpg(tpg) => remove_tpg(machine, tpg),
        Step::RemoveTarget(tpg) => remove_target(machine, tpg),
    }
}

fn acl(tpg: &TpgName, initiator: &str) -> PathBuf {
    folder(tpg).join("acls").join(initiator)
}

/// The password first: a login in between knows the old name with the new password, and fails.
fn set_credentials(
    machine: &Machine,
    tpg: &TpgName,
    who: &Who,
    credentials: Option<&Credentials>,
) -> Result<(), Fault> {
    let folder = match who {
        Who::Everyone => folder(tpg),
        Who::Initiator(initiator) => acl(tpg, initiator),
    };
    let mutual = credentials.and_then(|credentials| credentials.mutual.as_ref());
    for (name, value) in [
        ("password", credentials.map(|each| each.password.expose())),
        ("userid", credentials.map(|each| each.user.as_str())),
        ("password_mutual", mutual.map(|(_, password)| password.expose())),
        ("userid_mutual", mutual.map(|(user, _)| user.as_str())),
    ] {
        machine.write_secret(&folder.join("auth").join(name), value.unwrap_or(UNSET))?;
    }
    // An initiator without a password beside others with one; older kernels cannot tell them apart.
    let asks = folder.join("attrib/authentication");
    if matches!(who, Who::Initiator(_)) && machine.exists(&asks) {
        machine.write_attribute(&asks, if credentials.is_some() { "1" } else { "0" })?;
    }
    Ok(())
}

fn lun_folder(tpg: &TpgName, number: u64) -> PathBuf {
    folder(tpg).join("lun").join(format!("lun_{number}"))
}

fn make_tpg(machine: &Machine, tpg: &TpgName) -> Result<(), Fault> {
    machine.make_dir(Path::new(ISCSI))?;
    machine.make_dir(&Path::new(ISCSI).join(&tpg.iqn))?;
    machine.make_dir(&folder(tpg))?;
    reservations::make_folder(machine)?;
    let port = folder(tpg).join("rtpi");
    if machine.exists(&port)
        && let Err(fault) = machine.write_attribute(&port, &relative_port(tpg).to_string())
    {
        tracing::warn!("{}; persistent reservations may not survive a move", fault.reason);
    }
    Ok(())
}

/// The relative port identifier of a group, the same on both nodes, because reservations are made for it. Kernels from 6.5
/// on give one to each group, in the order of their making, where older ones count for each LUN
/// (`drivers/target/target_core_tpg.c`, `target_tpg_register_rtpi`).
fn relative_port(tpg: &TpgName) -> u16 {
    let digest = Sha256::digest(format!("{} {}", tpg.iqn, tpg.tag));
    // Low numbers are what the kernel gives to others.
    u16::from_be_bytes([digest[0], digest[1]]) | 0x4000
}

fn make_backstore(machine: &Machine, at: &BackstoreName, lun: &Lun) -> Result<(), Fault> {
    let path = backstore_folder(at);
    machine.make_dir(&Path::new(CORE).join(&at.hba))?;
    machine.make_dir(&path)?;
    let device = lun.device.display().to_string();
    // The kernel opens a device for writing unless it is told not to, and fails where the device is read-only.
    let mode = if lun.attributes.read_only { ",readonly=1" } else { "" };
    let opened = machine
        .write_attribute(&path.join("control"), &format!("udev_path={device}{mode}"))
        .and_then(|()| machine.write_attribute(&path.join("udev_path"), &device))
        .and_then(|()| machine.write_attribute(&path.join("wwn/vpd_unit_serial"), &lun.serial))
        // Before it is open: one that was cut off here is made anew, and one that is open has all of them.
        .and_then(|()| restore_reservations(machine, &path, lun))
        .and_then(|()| machine.write_attribute(&path.join("enable"), "1"))
        .and_then(|()| attributes::set(machine, at, lun.attributes))
        // udev's link can be behind. The device is open by now, and to open it once more costs nothing.
        .and_then(|()| zfs::check_device(machine, &lun.device));
    if let Err(fault) = opened {
        // The reason counts, not whether the empty shell goes away: the next plan removes it.
        let _ = remove_backstore(machine, at);
        return Err(fault);
    }
    // UNMAP: refused by devices that know no discard, which is all right.
    if let Err(fault) = machine.write_attribute(&path.join("attrib/emulate_tpu"), "1") {
        tracing::info!("{}: no UNMAP there", fault.reason);
    }
    Ok(())
}

/// Only a backstore that no LUN leads to takes them (`target_core_configfs.c`, `target_pr_res_aptpl_metadata_store`).
fn restore_reservations(machine: &Machine, backstore: &Path, lun: &Lun) -> Result<(), Fault> {
    reservations::put_file(machine, &lun.serial, &lun.reservations)?;
    for registration in reservations::registrations(&lun.reservations) {
        machine.write_attribute(&backstore.join("pr/res_aptpl_metadata"), &registration)?;
    }
    Ok(())
}

fn backstore_folder(at: &BackstoreName) -> PathBuf {
    Path::new(CORE).join(&at.hba).join(&at.name)
}

fn make_lun(
    machine: &Machine,
    tpg: &TpgName,
    number: u64,
    at: &BackstoreName,
) -> Result<(), Fault> {
    let path = lun_folder(tpg, number);
    machine.make_dir(&path)?;
    machine.make_link(&backstore_folder(at), &path.join(LINK))
}

fn map_lun(machine: &Machine, tpg: &TpgName, initiator: &str, number: u64) -> Result<(), Fault> {
    let path = acl(tpg, initiator).join(format!("lun_{number}"));
    // The kernel maps every LUN that is there into an ACL that is made with cached dynamic ACLs;
    // a mapped LUN that leads somewhere else would keep its old way.
    remove_linked(machine, &path)?;
    machine.make_dir(&path)?;
    machine.make_link(&lun_folder(tpg, number), &path.join(LINK))
}

/// Removes a LUN's folder with the one link in it.
fn remove_linked(machine: &Machine, path: &Path) -> Result<(), Fault> {
    if let Some((link, _)) = link_in(machine, path)? {
        machine.remove_file(&link)?;
    }
    machine.remove_dir(path)
}

fn remove_backstore(machine: &Machine, at: &BackstoreName) -> Result<(), Fault> {
    let hba = Path::new(CORE).join(&at.hba);
    // A port group that somebody has made keeps its backstore; the kernel's own goes with it (`fs/configfs/dir.c`,
    // `configfs_detach_prep`).
    let groups = hba.join(&at.name).join("alua");
    for group in machine.list(&groups)?.unwrap_or_default() {
        if group != KERNELS_GROUP {
            machine.remove_dir(&groups.join(group))?;
        }
    }
    machine.remove_dir(&hba.join(&at.name))?;
    machine.remove_dir(&hba)
}

/// The target goes with its last group: another group of the same target keeps it.
fn remove_tpg(machine: &Machine, tpg: &TpgName) -> Result<(), Fault> {
    machine.remove_dir(&folder(tpg))?;
    if is_target_empty(machine, tpg)? { remove_target(machine, tpg) } else { Ok(()) }
}

fn remove_target(machine: &Machine, tpg: &TpgName) -> Result<(), Fault> {
    machine.remove_dir(&Path::new(ISCSI).join(&tpg.iqn))
}
