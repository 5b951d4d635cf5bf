//! Start, stop and state of one VLAN's LUNs.

use crate::identity::{self, Identities, Identity, LUN, NEXT, SERIAL};
use crate::{Access, Config};
use hasan::lio::{self, Backstore, Lun, Shell, Step, Tpg, TpgName};
use hasan::machine::Machine;
use hasan::ocf::{Fault, Outcome, Rc};
use hasan::zfs;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

/// How long the nodes of zvols may take to appear after an import.
const NODES: Duration = Duration::from_secs(30);

pub(crate) fn start(machine: &Machine, config: &Config) -> Outcome {
    if zfs::pool_state(machine, config.pool())?.is_none() {
        return Err(Fault::generic(format!("the pool {:?} is not imported here", config.pool())));
    }
    let identities = give_identities(machine, config)?;
    await_nodes(machine, &identities.luns)?;
    let shell = shell(config, &identities.luns);
    for step in plan(machine, &shell)? {
        lio::apply(machine, &step)?;
    }
    match plan(machine, &shell)?.first() {
        None => Ok(Rc::Success),
        Some(step) => Err(Fault::generic(format!("the LUNs are not complete: left to do: {step}"))),
    }
}

fn plan(machine: &Machine, shell: &Shell) -> Result<Vec<Step>, Fault> {
    let tpg = lio::tpg(machine, &shell.tpg)?;
    Ok(lio::shell_up(shell, tpg.as_ref(), &lio::backstores(machine)?))
}

/// The identities of the zvols; new ones are on disk before any LUN shows them.
fn give_identities(machine: &Machine, config: &Config) -> Result<Identities, Fault> {
    let properties = format!("type,guid,volmode,{LUN},{SERIAL},{NEXT}");
    let columns = "name,property,value,source";
    let kinds = "filesystem,volume";
    let dataset = config.dataset.as_str();
    let arguments = ["get", "-Hp", "-r", "-t", kinds, "-o", columns, &properties, dataset];
    let datasets = zfs::parse_datasets(&machine.run("zfs", &arguments)?)?;
    let guid = machine.run("zpool", &["get", "-Hp", "-o", "value", "guid", config.pool()])?;
    let guid = guid.trim();
    let pool_guid = guid.parse().map_err(|_| {
        Fault::generic(format!("the pool {:?} has the strange guid {guid:?}", config.pool()))
    })?;
    let identities = identity::identities(dataset, &datasets, pool_guid);
    for skipped in &identities.skipped {
        tracing::warn!("not served: {skipped}");
    }
    // The mark goes first: a number that is written is then never free again.
    if let Some(next) = identities.next {
        machine.run("zfs", &["set", &format!("{NEXT}={next}"), dataset])?;
    }
    for new in &identities.new {
        let (lun, serial) = (format!("{LUN}={}", new.lun), format!("{SERIAL}={}", new.serial));
        machine.run("zfs", &["set", &lun, &serial, &new.zvol])?;
    }
    Ok(identities)
}

fn await_nodes(machine: &Machine, luns: &[Identity]) -> Result<(), Fault> {
    let missing = || -> Vec<&str> {
        let is_missing = |lun: &&Identity| !machine.exists(&zfs::zvol_device(&lun.zvol));
        luns.iter().filter(is_missing).map(|lun| lun.zvol.as_str()).collect()
    };
    if machine.await_condition(NODES, || Ok(missing().is_empty()))? {
        return Ok(());
    }
    Err(Fault::generic(format!("no device below /dev/zvol for {}", missing().join(", "))))
}

fn shell(config: &Config, luns: &[Identity]) -> Shell {
    let everyone = matches!(config.access, Access::Everyone);
    let flag = |is_set: bool| if is_set { "1" } else { "0" };
    Shell {
        tpg: config.tpg.clone(),
        attributes: BTreeMap::from([
            ("authentication", "0"),
            ("generate_node_acls", flag(everyone)),
            ("cache_dynamic_acls", flag(everyone)),
            ("demo_mode_write_protect", flag(!everyone)),
            ("demo_mode_discovery", flag(everyone)),
            ("prod_mode_write_protect", "0"),
        ]),
        luns: luns.iter().map(|each| (each.lun, lun(config, each))).collect(),
        initiators: match &config.access {
            Access::Listed(initiators) => initiators.clone(),
            Access::Everyone => BTreeSet::new(),
        },
    }
}

fn lun(config: &Config, identity: &Identity) -> Lun {
    let below = identity.zvol.strip_prefix(&format!("{}/", config.dataset));
    let name = below.unwrap_or(&identity.zvol).replace(['/', ' '], "-");
    Lun {
        name: config.vlan.as_ref().map_or(name.clone(), |vlan| format!("{vlan}-{name}")),
        device: zfs::zvol_device(&identity.zvol),
        serial: identity.serial.clone(),
    }
}

pub(crate) fn stop(machine: &Machine, name: &TpgName, dataset: &str) -> Outcome {
    let zvols = zfs::zvol_device(dataset);
    let is_ours = |device: &Path| device.starts_with(&zvols);
    let observe = || -> Result<(Option<Tpg>, Vec<Backstore>), Fault> {
        Ok((lio::tpg(machine, name)?, lio::backstores(machine)?))
    };
    let (tpg, backstores) = observe()?;
    for step in lio::shell_down(name, tpg.as_ref(), &backstores, is_ours) {
        lio::apply(machine, &step)?;
    }
    let (tpg, backstores) = observe()?;
    match lio::shell_down(name, tpg.as_ref(), &backstores, is_ours).first() {
        None => Ok(Rc::Success),
        Some(step) => Err(Fault::generic(format!("the LUNs are not gone: left to do: {step}"))),
    }
}

pub(crate) fn state(machine: &Machine, name: &TpgName, dataset: &str) -> Outcome {
    let pool = dataset.split('/').next().unwrap_or_default();
    let is_imported = zfs::pool_state(machine, pool)?.is_some();
    let zvols = zfs::zvol_device(dataset);
    let mut ours = lio::backstores(machine)?;
    ours.retain(|each| each.device.starts_with(&zvols));
    decide_state(lio::tpg(machine, name)?.as_ref(), &ours, is_imported)
}

/// A shell without LUNs is not running where the pool is not; anything that is left over from a
/// zvol counts as running badly, so that it is stopped and not forgotten.
fn decide_state(tpg: Option<&Tpg>, ours: &[Backstore], is_imported: bool) -> Outcome {
    let Some(tpg) = tpg.filter(|tpg| is_imported || !tpg.luns.is_empty()) else {
        return match ours.first() {
            None => Ok(Rc::NotRunning),
            Some(left) => {
                let name = &left.at.name;
                Err(Fault::generic(format!("the backstore {name} is there without its LUN")))
            }
        };
    };
    if !is_imported {
        return Err(Fault::generic("there are LUNs of a pool that is not imported here"));
    }
    for (number, at) in &tpg.luns {
        let backstore = ours.iter().find(|each| Some(&each.at) == at.as_ref());
        if !backstore.is_some_and(|each| each.enabled) {
            return Err(Fault::generic(format!("LUN {number} leads to no open zvol")));
        }
    }
    if let Some(left) =
        ours.iter().find(|each| !tpg.luns.values().flatten().any(|at| *at == each.at))
    {
        let name = &left.at.name;
        return Err(Fault::generic(format!("the backstore {name} is there without its LUN")));
    }
    Ok(Rc::Success)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hasan::lio::BackstoreName;

    fn at() -> BackstoreName {
        BackstoreName { hba: "iblock_100000".to_string(), name: "vm-1".to_string() }
    }

    fn store(enabled: bool) -> Backstore {
        let device = "/dev/zvol/p/v/vm-1".into();
        Backstore { at: at(), device, enabled, serial: String::new() }
    }

    #[test]
    fn the_state_says_what_the_kernel_holds() {
        let empty = Tpg::default();
        let full = Tpg { luns: BTreeMap::from([(0, Some(at()))]), ..Tpg::default() };
        let broken = Tpg { luns: BTreeMap::from([(0, None)]), ..Tpg::default() };
        for (tpg, ours, is_imported, want) in [
            (None, vec![], true, Rc::NotRunning),
            (None, vec![], false, Rc::NotRunning),
            (None, vec![store(true)], true, Rc::Generic),
            (Some(&empty), vec![], false, Rc::NotRunning),
            (Some(&empty), vec![], true, Rc::Success),
            (Some(&empty), vec![store(true)], false, Rc::Generic),
            (Some(&empty), vec![store(true)], true, Rc::Generic),
            (Some(&full), vec![store(true)], true, Rc::Success),
            (Some(&full), vec![store(false)], true, Rc::Generic),
            (Some(&full), vec![store(true)], false, Rc::Generic),
            (Some(&broken), vec![], true, Rc::Generic),
        ] {
            let rc = decide_state(tpg, &ours, is_imported).unwrap_or_else(|fault| fault.rc);
            assert_eq!(rc, want, "{tpg:?} {ours:?} {is_imported}");
        }
    }
}
