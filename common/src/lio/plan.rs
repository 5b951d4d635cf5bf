//! From what is there to what is wanted, as steps; pure functions. Set-up goes from the backstores
//! outwards, and taking down is its exact reverse, so that no initiator ever sees a part missing.

use super::{Backstore, BackstoreName, FIRST_HBA, Lun, Shell, Step, Tpg, TpgName, Who, by_name};
use std::collections::{BTreeMap, BTreeSet};

/// The steps to all that lies behind the door: group, attributes, backstores, LUNs, initiators.
/// What the group has beyond that goes away.
pub fn shell_up(want: &Shell, tpg: Option<&Tpg>, backstores: &[Backstore]) -> Vec<Step> {
    let mut steps = Vec::new();
    let name = &want.tpg;
    let empty = Tpg::default();
    if tpg.is_none() {
        steps.push(Step::MakeTpg(name.clone()));
    }
    let tpg = tpg.unwrap_or(&empty);
    for (attribute, value) in &want.attributes {
        if tpg.attributes.get(attribute).map(String::as_str) != Some(*value) {
            steps.push(Step::SetAttribute(name.clone(), attribute, value));
        }
    }
    // Nobody gets in without a password in between: the attribute that asks for it has been set before.
    steps.extend(set_credentials(want, tpg, &Who::Everyone));
    let wrong = wrong_luns(want, tpg, backstores);
    steps.extend(remove_luns(name, tpg, &wrong));
    for initiator in tpg.acls.keys().filter(|initiator| !want.initiators.contains(*initiator)) {
        steps.extend(remove_acl(name, tpg, initiator, &wrong));
    }
    steps.extend(luns_up(want, tpg, backstores, &wrong));
    steps.extend(initiators_up(want, tpg, &wrong));
    steps
}

/// Backstores first, then the LUNs over them, together: each of these waits for the kernel, and they can wait at once.
fn luns_up(want: &Shell, tpg: &Tpg, backstores: &[Backstore], wrong: &BTreeSet<u64>) -> Vec<Step> {
    let (mut steps, mut links) = (Vec::new(), Vec::new());
    let by_block: BTreeMap<&str, &Backstore> =
        backstores.iter().filter_map(|each| Some((each.block.as_deref()?, each))).collect();
    let serving = |lun: &Lun| match lun.block.as_deref().and_then(|block| by_block.get(block)) {
        Some(backstore) if backstore.serves(lun) => Some(*backstore),
        _ => backstores.iter().find(|each| each.serves(lun)),
    };
    let half: Vec<&Backstore> = backstores.iter().filter(|each| !each.enabled).collect();
    let mut free = free_hbas(backstores);
    for (number, lun) in &want.luns {
        // One that was cut off before its device was open cannot be trusted in any part.
        for backstore in half.iter().filter(|each| each.at.name == lun.name) {
            steps.push(Step::RemoveBackstore(backstore.at.clone()));
        }
        let at = match serving(lun) {
            Some(backstore) => backstore.at.clone(),
            None => {
                let hba = free.next().unwrap_or_default();
                let at = BackstoreName { hba, name: lun.name.clone() };
                steps.push(Step::MakeBackstore(at.clone(), lun.clone()));
                at
            }
        };
        if !tpg.luns.contains_key(number) || wrong.contains(number) {
            links.push(Step::MakeLun(want.tpg.clone(), *number, at));
        }
    }
    steps.extend(links);
    steps
}

fn initiators_up(want: &Shell, tpg: &Tpg, wrong: &BTreeSet<u64>) -> Vec<Step> {
    let mut steps = Vec::new();
    let name = &want.tpg;
    for initiator in &want.initiators {
        let mapped = tpg.acls.get(initiator);
        let who = Who::Initiator(initiator.clone());
        if mapped.is_none() {
            steps.push(Step::MakeAcl(name.clone(), initiator.clone()));
            let credentials = want.credentials.get(&who).cloned();
            steps.push(Step::SetCredentials(name.clone(), who, credentials));
        } else {
            steps.extend(set_credentials(want, tpg, &who));
        }
        for number in want.luns.keys() {
            let is_mapped = mapped.and_then(|mapped| mapped.get(number)) == Some(&Some(*number));
            if !is_mapped || wrong.contains(number) {
                steps.push(Step::MapLun(name.clone(), initiator.clone(), *number));
            }
        }
    }
    steps
}

fn set_credentials(want: &Shell, tpg: &Tpg, who: &Who) -> Option<Step> {
    let (wanted, there) = (want.credentials.get(who), tpg.credentials.get(who));
    let step = || Step::SetCredentials(want.tpg.clone(), who.clone(), wanted.cloned());
    let asks_wrongly = match who {
        Who::Everyone => false,
        Who::Initiator(name) => {
            tpg.asks.get(name).is_some_and(|asks| *asks != Some(wanted.is_some()))
        }
    };
    (wanted != there || asks_wrongly).then(step)
}

/// Folders for new backstores that no backstore is in. One that was left empty is as good as new.
fn free_hbas(backstores: &[Backstore]) -> impl Iterator<Item = String> {
    let taken: BTreeSet<String> = backstores.iter().map(|each| each.at.hba.clone()).collect();
    (FIRST_HBA..).map(|number| format!("iblock_{number}")).filter(move |hba| !taken.contains(hba))
}

/// The LUNs that lead nowhere, elsewhere than wanted, or are not wanted. A mapped LUN that is left
/// over from an earlier link maps nothing, so the LUN counts as wrong with it. A LUN over another kind of backstore is
/// somebody else's.
fn wrong_luns(want: &Shell, tpg: &Tpg, backstores: &[Backstore]) -> BTreeSet<u64> {
    let by_name = by_name(backstores);
    let is_right = |number: &u64, at: &Option<BackstoreName>| {
        let Some(at) = at else { return false };
        if !at.hba.starts_with("iblock_") {
            return true;
        }
        let backstore = by_name.get(at);
        let lun = want.luns.get(number);
        backstore.zip(lun).is_some_and(|(backstore, lun)| backstore.serves(lun))
    };
    tpg.luns
        .iter()
        .filter(|(number, at)| !is_right(number, at))
        .map(|(number, _)| *number)
        .collect()
}

fn remove_luns(name: &TpgName, tpg: &Tpg, numbers: &BTreeSet<u64>) -> Vec<Step> {
    let mut steps = Vec::new();
    for (initiator, mapped) in &tpg.acls {
        for number in mapped.keys().filter(|number| numbers.contains(number)) {
            steps.push(Step::UnmapLun(name.clone(), initiator.clone(), *number));
        }
    }
    steps.extend(numbers.iter().map(|number| Step::RemoveLun(name.clone(), *number)));
    steps
}

fn remove_acl(name: &TpgName, tpg: &Tpg, initiator: &str, done: &BTreeSet<u64>) -> Vec<Step> {
    let mapped = tpg.acls.get(initiator).into_iter().flat_map(|mapped| mapped.keys());
    let mut steps: Vec<Step> = mapped
        .filter(|number| !done.contains(number))
        .map(|number| Step::UnmapLun(name.clone(), initiator.to_string(), *number))
        .collect();
    steps.push(Step::RemoveAcl(name.clone(), initiator.to_string()));
    steps
}

/// The steps to nothing behind the door, and to no backstore of ours left.
pub fn shell_down(
    name: &TpgName,
    tpg: Option<&Tpg>,
    backstores: &[Backstore],
    is_ours: impl Fn(&Backstore) -> bool,
) -> Vec<Step> {
    let mut steps = Vec::new();
    if let Some(tpg) = tpg {
        steps.extend(door_down(name, Some(tpg)));
        let all: BTreeSet<u64> = tpg.luns.keys().copied().collect();
        for initiator in tpg.acls.keys() {
            steps.extend(remove_acl(name, tpg, initiator, &BTreeSet::new()));
        }
        steps.extend(all.iter().map(|number| Step::RemoveLun(name.clone(), *number)));
        steps.push(Step::RemoveTpg(name.clone()));
    }
    for backstore in backstores.iter().filter(|each| is_ours(each)) {
        steps.push(Step::RemoveBackstore(backstore.at.clone()));
    }
    steps
}

/// The steps to an open door: the portals, then the group. `None` where the group is not there.
pub fn door_up(name: &TpgName, portals: &BTreeSet<String>, tpg: Option<&Tpg>) -> Option<Vec<Step>> {
    let tpg = tpg?;
    let more = tpg.portals.difference(portals);
    let missing = portals.difference(&tpg.portals);
    let mut steps: Vec<Step> =
        more.map(|portal| Step::RemovePortal(name.clone(), portal.clone())).collect();
    steps.extend(missing.map(|portal| Step::MakePortal(name.clone(), portal.clone())));
    if !tpg.enabled {
        steps.push(Step::Enable(name.clone()));
    }
    Some(steps)
}

/// The steps to a closed door: the group first, which ends its sessions, then the portals.
pub fn door_down(name: &TpgName, tpg: Option<&Tpg>) -> Vec<Step> {
    let Some(tpg) = tpg else { return Vec::new() };
    let mut steps = Vec::new();
    if tpg.enabled {
        steps.push(Step::Disable(name.clone()));
    }
    let portals = tpg.portals.iter();
    steps.extend(portals.map(|portal| Step::RemovePortal(name.clone(), portal.clone())));
    steps
}
