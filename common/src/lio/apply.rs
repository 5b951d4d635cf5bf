//! Does one step. Each can be cut off at any point and done again.

use super::observe::{CORE, ISCSI, folder, link_in};
use super::{BackstoreName, Lun, Step, TpgName, backstores};
use crate::machine::Machine;
use crate::ocf::Fault;
use std::path::{Path, PathBuf};

/// Our backstores lie above the numbers that targetcli gives, which takes the lowest free one.
const FIRST_HBA: u32 = 100_000;
const LAST_HBA: u32 = 200_000;

/// Does one step.
pub fn apply(machine: &Machine, what: &Step) -> Result<(), Fault> {
    machine.step(&what.to_string());
    match what {
        Step::MakeTpg(tpg) => make_tpg(machine, tpg),
        Step::SetAttribute(tpg, name, value) => {
            machine.write_attribute(&folder(tpg).join("attrib").join(name), value)
        }
        Step::MakeBackstore(lun) => make_backstore(machine, lun),
        Step::MakeLun(tpg, number, lun) => make_lun(machine, tpg, *number, lun),
        Step::MakeAcl(tpg, initiator) => machine.make_dir(&acl(tpg, initiator)),
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
    }
}

fn acl(tpg: &TpgName, initiator: &str) -> PathBuf {
    folder(tpg).join("acls").join(initiator)
}

fn lun_folder(tpg: &TpgName, number: u64) -> PathBuf {
    folder(tpg).join("lun").join(format!("lun_{number}"))
}

fn make_tpg(machine: &Machine, tpg: &TpgName) -> Result<(), Fault> {
    machine.make_dir(Path::new(ISCSI))?;
    machine.make_dir(&Path::new(ISCSI).join(&tpg.iqn))?;
    machine.make_dir(&folder(tpg))
}

fn make_backstore(machine: &Machine, lun: &Lun) -> Result<(), Fault> {
    let hba = free_hba(machine)?;
    let path = Path::new(CORE).join(&hba).join(&lun.name);
    machine.make_dir(&Path::new(CORE).join(&hba))?;
    machine.make_dir(&path)?;
    let device = lun.device.display().to_string();
    let opened = machine
        .write_attribute(&path.join("control"), &format!("udev_path={device}"))
        .and_then(|()| machine.write_attribute(&path.join("udev_path"), &device))
        .and_then(|()| machine.write_attribute(&path.join("wwn/vpd_unit_serial"), &lun.serial))
        .and_then(|()| machine.write_attribute(&path.join("enable"), "1"));
    if let Err(fault) = opened {
        // The reason counts, not whether the empty shell goes away: the next plan removes it.
        let _ = remove_backstore(machine, &BackstoreName { hba, name: lun.name.clone() });
        return Err(fault);
    }
    // UNMAP: refused by devices that know no discard, which is all right.
    let _ = machine.write_attribute(&path.join("attrib/emulate_tpu"), "1");
    Ok(())
}

fn free_hba(machine: &Machine) -> Result<String, Fault> {
    let taken = machine.list(Path::new(CORE))?.unwrap_or_default();
    (FIRST_HBA..LAST_HBA)
        .map(|number| format!("iblock_{number}"))
        .find(|hba| !taken.contains(hba))
        .ok_or_else(|| Fault::generic("there is no free number for a backstore"))
}

fn make_lun(machine: &Machine, tpg: &TpgName, number: u64, lun: &Lun) -> Result<(), Fault> {
    let is_it = |each: &super::Backstore| each.enabled && each.device == lun.device;
    let backstore = backstores(machine)?.into_iter().find(is_it).ok_or_else(|| {
        Fault::generic(format!("there is no backstore of {}", lun.device.display()))
    })?;
    let path = lun_folder(tpg, number);
    machine.make_dir(&path)?;
    let target = Path::new(CORE).join(&backstore.at.hba).join(&backstore.at.name);
    machine.make_link(&target, &path.join("hasan"))
}

fn map_lun(machine: &Machine, tpg: &TpgName, initiator: &str, number: u64) -> Result<(), Fault> {
    let path = acl(tpg, initiator).join(format!("lun_{number}"));
    // The kernel maps every LUN that is there into an ACL that is made with cached dynamic ACLs;
    // a mapped LUN that leads somewhere else would keep its old way.
    remove_linked(machine, &path)?;
    machine.make_dir(&path)?;
    machine.make_link(&lun_folder(tpg, number), &path.join("hasan"))
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
    machine.remove_dir(&hba.join(&at.name))?;
    machine.remove_dir(&hba)
}

/// The target goes with its last group: another group of the same target keeps it.
fn remove_tpg(machine: &Machine, tpg: &TpgName) -> Result<(), Fault> {
    machine.remove_dir(&folder(tpg))?;
    let target = Path::new(ISCSI).join(&tpg.iqn);
    let names = machine.list(&target)?.unwrap_or_default();
    if names.iter().any(|name| name.starts_with("tpgt_")) {
        return Ok(());
    }
    machine.remove_dir(&target)
}
