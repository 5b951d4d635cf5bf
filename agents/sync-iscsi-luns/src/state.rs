//! Stop and state of one VLAN's LUNs; they know no more of it than its group and its dataset.

use crate::identity::{ATTRIBUTES, LUN, NAME, RESERVATIONS, SERIAL};
use crate::observe::{Elsewhere, changed_reservations, elsewhere, is_leftover, served};
use crate::saved;
use hasan::lio::{self, Backstore, Step, Tpg, TpgName};
use hasan::machine::Machine;
use hasan::ocf::{Fault, Outcome, Rc};
use hasan::zfs;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a stop may write down what others have made: it is worth less than the stop.
const WRITE: Duration = Duration::from_secs(15);

pub(crate) fn stop(machine: &Machine, name: &TpgName, dataset: &str) -> Outcome {
    let _lock = lio::lock(machine)?;
    lio::mend(machine)?;
    if let Err(fault) = save_reservations(&machine.with_time(WRITE), name) {
        tracing::warn!("{}", fault.reason);
    }
    let zvols = zfs::zvol_device(dataset);
    let blocks = zfs::zvol_links(machine, &zvols)?;
    if let Err(fault) = save_identities(&machine.with_time(WRITE), name, &blocks) {
        tracing::warn!("{}", fault.reason);
    }
    // A backstore that was cut off before its device was open has no device to know it by.
    let is_ours = |each: &Backstore| {
        is_leftover(dataset, each)
            || each.block.as_ref().is_some_and(|block| blocks.contains_key(block))
            || each.is_half_made()
    };
    let plan = || -> Result<(Vec<Step>, Elsewhere), Fault> {
        let (tpg, backstores) = lio::observe(machine, name)?;
        let elsewhere = elsewhere(machine, name, None, &backstores, is_ours);
        let goes = |each: &Backstore| is_ours(each) && !elsewhere.contains_key(&each.at);
        let mut steps = lio::shell_down(name, tpg.as_ref(), &backstores, goes);
        if lio::is_target_empty(machine, name)? {
            steps.push(Step::RemoveTarget(name.clone()));
        }
        Ok((steps, elsewhere))
    };
    let (steps, elsewhere) = plan()?;
    for (at, group) in elsewhere {
        tracing::warn!("the backstore {} stays: {group} shows it", at.name);
    }
    lio::apply_all(machine, &steps)?;
    saved::show(machine, name, &zvols, None, &[], &BTreeMap::new());
    match plan()?.0.first() {
        None => Ok(Rc::Success),
        Some(step) => Err(Fault::generic(format!("the LUNs are not gone: left to do: {step}"))),
    }
}

/// What initiators have reserved since the last sync goes with the pool, too.
fn save_reservations(machine: &Machine, name: &TpgName) -> Result<(), Fault> {
    let changed = changed_reservations(machine, name)?;
    if changed.is_empty() {
        return Ok(());
    }
    for backstore in lio::backstores(machine)? {
        let Some(line) = changed.get(&backstore.serial) else { continue };
        let Some(zvol) = zfs::zvol_of(&backstore.device) else { continue };
        let written = match line.as_str() {
            "" => machine.run("zfs", &["inherit", RESERVATIONS, &zvol]),
            line => machine.run("zfs", &["set", &format!("{RESERVATIONS}={line}"), &zvol]),
        };
        // Those of the others go with the pool all the same.
        if let Err(fault) = written {
            tracing::warn!("the reservations of {zvol} are not kept: {}", fault.reason);
        }
    }
    Ok(())
}

/// LUNs that somebody has made since the last sync are the same ones on the other node: it would give them other serials.
fn save_identities(
    machine: &Machine,
    name: &TpgName,
    blocks: &BTreeMap<String, PathBuf>,
) -> Result<(), Fault> {
    let Some(served) = served(machine, name)? else { return Ok(()) };
    let (tpg, backstores) = lio::observe(machine, name)?;
    for (zvol, number, backstore) in shown(tpg.as_ref(), &backstores, blocks) {
        if !served.contains(&zvol) {
            let (serial, name) = (&backstore.serial, &backstore.at.name);
            let attributes = lio::attributes(machine, backstore)?;
            let values = [
                format!("{LUN}={number}"),
                format!("{SERIAL}={serial}"),
                format!("{NAME}={name}"),
                format!("{ATTRIBUTES}={attributes}"),
            ];
            machine.run(
                "zfs",
                &[&["set"], &values.each_ref().map(String::as_str)[..], &[&zvol]].concat(),
            )?;
        }
    }
    Ok(())
}

/// The zvols that the group shows, each with its number and its backstore.
fn shown<'a>(
    tpg: Option<&Tpg>,
    backstores: &'a [Backstore],
    blocks: &BTreeMap<String, PathBuf>,
) -> Vec<(String, u64, &'a Backstore)> {
    let by_name = lio::by_name(backstores);
    let luns = tpg.into_iter().flat_map(|tpg| &tpg.luns);
    let zvol_of = |backstore: &Backstore| -> Option<String> {
        let device: &Path = blocks.get(backstore.block.as_ref()?)?;
        zfs::zvol_of(device)
    };
    luns.filter_map(|(number, at)| {
        let backstore = *by_name.get(at.as_ref()?)?;
        Some((zvol_of(backstore)?, *number, backstore))
    })
    .collect()
}

pub(crate) fn state(
    machine: &Machine,
    name: &TpgName,
    dataset: &str,
    is_imported: bool,
) -> Outcome {
    let (tpg, mut backstores) = lio::observe(machine, name)?;
    if tpg.is_none() {
        let is_ours = |each: &Backstore| is_leftover(dataset, each);
        let elsewhere = elsewhere(machine, name, None, &backstores, is_ours);
        backstores.retain(|each| !elsewhere.contains_key(&each.at));
    }
    decide_state(tpg.as_ref(), &backstores, dataset, is_imported)
}

/// A shell without LUNs is not running where the pool is not; anything that is left over from a
/// zvol counts as running badly, so that it is stopped and not forgotten.
pub(crate) fn decide_state(
    tpg: Option<&Tpg>,
    backstores: &[Backstore],
    dataset: &str,
    is_imported: bool,
) -> Outcome {
    let Some(tpg) = tpg.filter(|tpg| is_imported || !tpg.luns.is_empty()) else {
        return match backstores.iter().find(|each| is_leftover(dataset, each)) {
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
    let by_name = lio::by_name(backstores);
    for (number, at) in &tpg.luns {
        let backstore = at.as_ref().and_then(|at| by_name.get(at));
        // What somebody has put there over another kind of backstore is not ours to judge.
        let is_foreign = at.as_ref().is_some_and(|at| !at.hba.starts_with("iblock_"));
        if !is_foreign && !backstore.is_some_and(|each| each.enabled) {
            return Err(Fault::generic(format!("LUN {number} leads to no open device")));
        }
    }
    // A backstore without its LUN may be somebody's half-done work: a sync sees to it.
    Ok(Rc::Success)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hasan::lio::BackstoreName;
    use std::collections::BTreeMap;

    fn at() -> BackstoreName {
        BackstoreName { hba: "iblock_100000".to_string(), name: "vm-1".to_string() }
    }

    fn store(enabled: bool) -> Backstore {
        let device = "/dev/zvol/p/v/vm-1".into();
        let serial = String::new();
        Backstore { at: at(), device, block: None, enabled, read_only: false, serial }
    }

    #[test]
    fn a_lun_is_known_by_the_device_that_is_open() {
        let tpg = Tpg { luns: BTreeMap::from([(3, Some(at())), (4, None)]), ..Tpg::default() };
        let links = BTreeMap::from([("zd16".to_string(), PathBuf::from("/dev/zvol/p/v/vm+1"))]);
        let of = |block: Option<&str>| {
            let store = Backstore { block: block.map(str::to_string), ..store(true) };
            let shown = shown(Some(&tpg), std::slice::from_ref(&store), &links);
            shown.into_iter().map(|(zvol, number, _)| (zvol, number)).collect::<Vec<_>>()
        };
        assert_eq!(of(Some("zd16")), [("p/v/vm 1".to_string(), 3)]);
        assert_eq!(of(Some("zd32")), []);
        assert_eq!(of(None), []);
    }

    #[test]
    fn the_state_says_what_the_kernel_holds() {
        let empty = Tpg::default();
        let full = Tpg { luns: BTreeMap::from([(0, Some(at()))]), ..Tpg::default() };
        let broken = Tpg { luns: BTreeMap::from([(0, None)]), ..Tpg::default() };
        let file = BackstoreName { hba: "fileio_0".to_string(), name: "x".to_string() };
        let foreign = Tpg { luns: BTreeMap::from([(0, Some(file))]), ..Tpg::default() };
        let theirs = || Backstore { device: "/dev/sdz".into(), ..store(true) };
        for (tpg, backstores, is_imported, want) in [
            (None, vec![theirs()], true, Rc::NotRunning),
            (Some(&foreign), vec![], true, Rc::Success),
            (Some(&full), vec![theirs()], true, Rc::Success),
            (None, vec![], true, Rc::NotRunning),
            (None, vec![], false, Rc::NotRunning),
            (None, vec![store(true)], true, Rc::Generic),
            (Some(&empty), vec![], false, Rc::NotRunning),
            (Some(&empty), vec![], true, Rc::Success),
            (Some(&empty), vec![store(true)], false, Rc::Generic),
            (Some(&empty), vec![store(true)], true, Rc::Success),
            (Some(&full), vec![store(true)], true, Rc::Success),
            (Some(&full), vec![store(false)], true, Rc::Generic),
            (Some(&full), vec![store(true)], false, Rc::Generic),
            (Some(&broken), vec![], true, Rc::Generic),
        ] {
            let state = decide_state(tpg, &backstores, "p/v", is_imported);
            let rc = state.unwrap_or_else(|fault| fault.rc);
            assert_eq!(rc, want, "{tpg:?} {backstores:?} {is_imported}");
        }
    }
}
