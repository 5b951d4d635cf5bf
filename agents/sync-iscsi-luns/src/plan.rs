//! From zvols and LUNs to steps; pure functions.

use crate::Config;
use crate::access::Access;
use crate::identity::{self, Identities, Identity, Patience, Seen};
use crate::observe::{Actual, is_leftover, is_over_zvol, live, zvols};
use hasan::lio::{self, Attributes, Backstore, BackstoreName, Lun, Shell, Step};
use hasan::zfs;
use std::collections::{BTreeMap, BTreeSet};

pub(crate) fn identities(
    config: &Config,
    actual: &Actual,
    patience: Option<Patience>,
) -> Identities {
    let live = live(actual);
    let ours: BTreeSet<u64> = live.values().map(|live| live.lun).collect();
    let by_name = lio::by_name(&actual.backstores);
    let is_gone = |at: &BackstoreName| {
        by_name.get(at).is_some_and(|each| is_over_zvol(&config.dataset, each))
    };
    let zvols = zvols(&actual.blocks);
    let elsewhere = actual.backstores.iter().filter_map(|each| {
        let (group, zvol) = (actual.elsewhere.get(&each.at)?, zvols.get(each.block.as_deref()?)?);
        Some((zvol.to_string(), group.clone()))
    });
    let shown = actual.tpg.iter().flat_map(|tpg| tpg.luns.iter());
    let leads = shown.filter(|(number, at)| at.is_some() && !ours.contains(number));
    identity::identities(&Seen {
        root: &config.dataset,
        datasets: &actual.datasets,
        pool_guid: actual.pool_guid,
        naming: &config.naming,
        live: &live,
        elsewhere: &elsewhere.collect(),
        foreign: &leads
            .filter(|(_, at)| !at.as_ref().is_some_and(is_gone))
            .map(|(number, _)| *number)
            .collect(),
        patience,
        served: actual.served.as_ref(),
    })
}

pub(crate) fn skip_without_device(actual: &Actual, identities: &mut Identities) {
    for each in identities.luns.clone() {
        if !actual.blocks.contains_key(&each.zvol) {
            identities.skip(&each.zvol, "it has no device below /dev/zvol".to_string());
        }
    }
}

/// The steps to the LUNs, and away from those of zvols that are gone or are not to be served; their backstores too.
pub(crate) fn plan(
    config: &Config,
    access: &Access,
    actual: &Actual,
    identities: &Identities,
) -> Vec<Step> {
    let shell = shell(config, access, actual, identities);
    let mut steps = lio::shell_up(&shell, actual.tpg.as_ref(), &actual.backstores);
    let removed: BTreeSet<u64> = steps
        .iter()
        .filter_map(|step| match step {
            Step::RemoveLun(_, number) => Some(*number),
            _ => None,
        })
        .collect();
    let mut stays = BTreeSet::new();
    let mut goes = BTreeSet::new();
    for (number, at) in actual.tpg.iter().flat_map(|tpg| &tpg.luns) {
        if removed.contains(number) { &mut goes } else { &mut stays }.extend(at);
    }
    // One of ours that no LUN leads to: a sync was cut off behind the LUN, or failed at another zvol.
    let is_done_with = |each: &&Backstore| goes.contains(&each.at) || each.is_of_hasan();
    let is_served = |each: &&Backstore| shell.luns.values().any(|lun| each.serves(lun));
    let backstores: Vec<Step> = actual
        .backstores
        .iter()
        .filter(|each| {
            each.enabled && is_leftover(&config.dataset, each) && !stays.contains(&each.at)
        })
        .filter(is_done_with)
        .filter(|each| !is_served(each) && !actual.elsewhere.contains_key(&each.at))
        .map(|each| Step::RemoveBackstore(each.at.clone()))
        .collect();
    // Before anything that may fail.
    let behind = steps.iter().rposition(|step| matches!(step, Step::RemoveLun(..)));
    let behind = behind.map_or(0, |at| at + 1);
    steps.splice(behind..behind, backstores);
    steps
}

fn shell(config: &Config, access: &Access, actual: &Actual, identities: &Identities) -> Shell {
    let everyone = access.everyone;
    let flag = |is_set: bool| if is_set { "1" } else { "0" };
    let mut wanted: BTreeMap<u64, Lun> = kept(config, actual, identities);
    wanted.extend(identities.luns.iter().map(|each| (each.lun, lun(actual, each))));
    Shell {
        tpg: config.tpg.clone(),
        attributes: BTreeMap::from([
            ("authentication", flag(access.is_authenticated())),
            ("generate_node_acls", flag(everyone)),
            ("cache_dynamic_acls", flag(everyone)),
            ("demo_mode_write_protect", flag(!everyone)),
            ("demo_mode_discovery", flag(everyone)),
            ("prod_mode_write_protect", "0"),
        ]),
        luns: wanted,
        initiators: access.initiators.clone(),
        credentials: access.credentials.clone(),
    }
}

/// LUNs that stay as they are: those that somebody has put into the group over something else; and all, while a zvol lacks its
/// device, whose LUN may be the one that seems to have lost its zvol: it was renamed, and udev is behind. One that has none for
/// a reason of its own holds up nothing.
fn kept(config: &Config, actual: &Actual, identities: &Identities) -> BTreeMap<u64, Lun> {
    let luns = &identities.luns;
    let is_behind = actual.datasets.iter().any(|zvol| {
        zvol.is("type", "volume")
            && !zvol.is("volmode", "none")
            && !zvol.is("keystatus", "unavailable")
            && !zvol.values.contains_key("receive_resume_token")
            && !actual.blocks.contains_key(&zvol.name)
    });
    let mut kept = BTreeMap::new();
    let by_name = lio::by_name(&actual.backstores);
    let served: BTreeSet<Option<&String>> =
        luns.iter().map(|each| actual.blocks.get(&each.zvol)).collect();
    for (number, at) in actual.tpg.iter().flat_map(|tpg| &tpg.luns) {
        let Some(backstore) = at.as_ref().and_then(|at| by_name.get(at)) else { continue };
        let is_gone = is_over_zvol(&config.dataset, backstore) && !is_behind;
        if !is_gone && !served.contains(&backstore.block.as_ref()) {
            let name = backstore.at.name.clone();
            let (device, block) = (backstore.device.clone(), backstore.block.clone());
            let serial = backstore.serial.clone();
            let reservations = String::new();
            kept.insert(
                *number,
                Lun {
                    name,
                    device,
                    block,
                    serial,
                    reservations,
                    attributes: Attributes::default(),
                },
            );
        }
    }
    kept
}

fn lun(actual: &Actual, identity: &Identity) -> Lun {
    let zvol = actual.datasets.iter().find(|each| each.name == identity.zvol);
    let takes_no_writes = zvol.is_some_and(|zvol| zvol.is("readonly", "on"));
    let read_only = identity.attributes.read_only || takes_no_writes;
    Lun {
        name: identity.name.clone(),
        device: zfs::zvol_device(&identity.zvol),
        block: actual.blocks.get(&identity.zvol).cloned(),
        serial: identity.serial.clone(),
        reservations: identity.reservations.clone(),
        attributes: Attributes { read_only, ..identity.attributes },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Source;
    use crate::identity::Naming;
    use crate::observe::Elsewhere;
    use hasan::lio::{Tpg, TpgName};

    fn at(hba: u32, name: &str) -> BackstoreName {
        BackstoreName { hba: format!("iblock_{hba}"), name: name.to_string() }
    }

    /// A backstore over a zvol of the VLAN, by its name.
    fn store(hba: u32, name: &str) -> Backstore {
        Backstore {
            at: at(hba, name),
            device: format!("/dev/zvol/p/v/{name}").into(),
            block: Some(format!("zd-{name}")),
            enabled: true,
            read_only: false,
            serial: String::new(),
        }
    }

    /// What is planned of backstores where no zvol is to be served and these LUNs are there.
    fn backstores_removed(luns: &[(u64, BackstoreName)], backstores: Vec<Backstore>) -> Vec<Step> {
        backstores_removed_beside(luns, backstores, BTreeMap::new())
    }

    /// The same where another group shows some of them.
    fn backstores_removed_beside(
        luns: &[(u64, BackstoreName)],
        backstores: Vec<Backstore>,
        elsewhere: Elsewhere,
    ) -> Vec<Step> {
        let access =
            Source { everyone: true, initiators: BTreeSet::new(), acl_file: None, chap_file: None };
        let config = Config {
            tpg: TpgName { iqn: "iqn.2025-01.lab.home:a".to_string(), tag: 1 },
            dataset: "p/v".to_string(),
            naming: Naming::Proxmox,
            settle: 60,
            access,
        };
        let luns = luns.iter().map(|(number, at)| (*number, Some(at.clone()))).collect();
        let actual = Actual {
            tpg: Some(Tpg { luns, ..Tpg::default() }),
            backstores,
            elsewhere,
            datasets: Vec::new(),
            pool_guid: 0,
            blocks: BTreeMap::new(),
            reservations: BTreeMap::new(),
            attributes: BTreeMap::new(),
            served: None,
        };
        let steps = plan(&config, &Access::default(), &actual, &Identities::default());
        let is_of_lun = |step: &&Step| {
            matches!(
                step,
                Step::RemoveLun(..) | Step::RemoveBackstore(..) | Step::MakeBackstore(..)
            )
        };
        steps.iter().filter(is_of_lun).cloned().collect()
    }

    #[test]
    fn a_backstore_goes_behind_its_lun_and_also_where_that_is_gone_already() {
        let tpg = TpgName { iqn: "iqn.2025-01.lab.home:a".to_string(), tag: 1 };
        let both = [store(100_000, "a"), store(100_001, "b")];
        let want = [
            Step::RemoveLun(tpg, 3),
            Step::RemoveBackstore(at(100_000, "a")),
            Step::RemoveBackstore(at(100_001, "b")),
        ];
        assert_eq!(backstores_removed(&[(3, at(100_000, "a"))], both.to_vec()), want);
        assert_eq!(backstores_removed(&[], both.to_vec()), want[1..]);
        let other =
            BTreeMap::from([(at(100_001, "b"), "iqn.2025-01.lab.home:b/tpgt_1".to_string())]);
        assert_eq!(backstores_removed_beside(&[], both.to_vec(), other), want[1..2]);
        // Somebody else makes a LUN in several steps; and another dataset's zvols are none of ours.
        let elsewhere = Backstore { device: "/dev/zvol/p/w/c".into(), ..store(100_002, "c") };
        assert_eq!(backstores_removed(&[], vec![store(7, "a"), elsewhere]), []);
    }

    #[test]
    fn a_lun_over_a_snapshot_or_a_partition_is_somebody_elses() {
        let luns = [(3, at(7, "a@s"))];
        let zvol = Backstore { block: Some("zd16".to_string()), ..store(7, "a@s") };
        assert_eq!(backstores_removed(&luns, vec![zvol.clone()]), []);
        let name = at(7, "a-part1");
        let luns = [(3, name.clone())];
        let part = Backstore { at: name, device: "/dev/zvol/p/v/a-part1".into(), ..zvol };
        let removed = |block: &str| {
            let block = Some(block.to_string());
            backstores_removed(&luns, vec![Backstore { block, ..part.clone() }]).len()
        };
        assert_eq!((removed("zd16p1"), removed("zd16")), (0, 2));
    }
}
