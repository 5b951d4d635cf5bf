//! Every small state of the kernel's tree, both ways: a simulation of the kernel refuses each step whose precondition
//! does not hold, as the kernel does, and in the end nothing is left to do.

use super::plan::{door_down, door_up, shell_down, shell_up};
use super::{Attributes, Backstore, BackstoreName, Lun, Shell, Step, Tpg, TpgName, Who};
use crate::chap::{Credentials, Secret};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const PORTAL: &str = "10.0.0.1:3260";
const FRIEND: &str = "iqn.2025-01.lab.home:friend";
const STRANGER: &str = "iqn.2025-01.lab.home:stranger";

#[derive(Clone, Debug, Default)]
struct Kernel {
    tpg: Option<Tpg>,
    backstores: Vec<Backstore>,
}

impl Kernel {
    /// The group, for a step that needs it.
    fn tpg(&mut self) -> &mut Tpg {
        self.tpg.as_mut().expect("the group is there")
    }

    fn set(&mut self, who: &Who, credentials: Option<&Credentials>) {
        if let Who::Initiator(name) = who {
            assert!(self.tpg().acls.contains_key(name), "no such ACL");
            self.tpg().asks.insert(name.clone(), Some(credentials.is_some()));
        }
        self.tpg().credentials.remove(who);
        self.tpg().credentials.extend(credentials.map(|some| (who.clone(), some.clone())));
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::MakeTpg(_) => self.tpg = Some(Tpg::default()),
            Step::SetAttribute(_, name, value) => {
                self.tpg().attributes.insert(name, value.to_string());
            }
            Step::MakeBackstore(at, lun) => {
                assert!(!self.backstores.iter().any(|each| each.at.name == lun.name), "EEXIST");
                assert!(
                    !self.backstores.iter().any(|each| each.at.hba == at.hba),
                    "two in a folder"
                );
                let made = backstore(&lun.name, &lun.device, true);
                self.backstores.push(Backstore { at: at.clone(), ..made });
            }
            Step::MakeLun(_, number, at) => {
                let is_it = |each: &&Backstore| each.enabled && each.at == *at;
                assert!(self.backstores.iter().any(|each| is_it(&each)), "ENODEV");
                assert!(self.tpg().luns.insert(*number, Some(at.clone())).is_none(), "EEXIST");
            }
            Step::MakeAcl(_, initiator) => {
                assert!(self.tpg().acls.insert(initiator.clone(), BTreeMap::new()).is_none());
            }
            Step::SetCredentials(_, who, credentials) => self.set(who, credentials.as_ref()),
            Step::MapLun(_, initiator, number) => {
                assert!(self.tpg().luns.contains_key(number), "no such LUN");
                let acl = self.tpg().acls.get_mut(initiator).expect("no such ACL");
                acl.insert(*number, Some(*number));
            }
            Step::MakePortal(_, portal) => assert!(self.tpg().portals.insert(portal.clone())),
            Step::Enable(_) => self.tpg().enabled = true,
            Step::Disable(_) => self.tpg().enabled = false,
            Step::RemovePortal(_, portal) => assert!(self.tpg().portals.remove(portal)),
            Step::UnmapLun(_, initiator, number) => {
                let acl = self.tpg().acls.get_mut(initiator).expect("no such ACL");
                assert!(acl.remove(number).is_some(), "no such mapped LUN");
            }
            Step::RemoveAcl(_, initiator) => {
                assert_eq!(self.tpg().acls.remove(initiator), Some(BTreeMap::new()), "ENOTEMPTY");
                self.tpg().credentials.remove(&Who::Initiator(initiator.clone()));
                self.tpg().asks.remove(initiator);
            }
            Step::RemoveLun(_, number) => {
                let mapped = self.tpg().acls.values().any(|acl| acl.contains_key(number));
                assert!(!mapped, "EBUSY: a mapped LUN leads here");
                assert!(self.tpg().luns.remove(number).is_some());
            }
            Step::RemoveBackstore(at) => {
                let tpg = self.tpg.iter();
                let mut links = tpg.flat_map(|tpg| tpg.luns.values()).flatten();
                assert!(!links.any(|link| link == at), "EBUSY: a LUN leads here");
                self.backstores.retain(|each| each.at != *at);
            }
            Step::RemoveTpg(_) => {
                let tpg = self.tpg.take().expect("the group is there");
                let is_empty = tpg.luns.is_empty() && tpg.acls.is_empty() && tpg.portals.is_empty();
                assert!(is_empty, "ENOTEMPTY");
            }
            Step::RemoveTarget(_) => panic!("no plan for a group asks for this"),
        }
    }
}

fn name() -> TpgName {
    TpgName { iqn: "iqn.2025-01.lab.home:x".to_string(), tag: 1 }
}

fn device(name: &str) -> PathBuf {
    Path::new("/dev/zvol/p").join(name)
}

fn at(name: &str) -> BackstoreName {
    BackstoreName { hba: format!("iblock_{name}"), name: name.to_string() }
}

fn backstore(name: &str, device: &Path, enabled: bool) -> Backstore {
    let device = if enabled { device.to_path_buf() } else { PathBuf::new() };
    let block = enabled.then(|| format!("zd-{name}"));
    let serial = String::new();
    Backstore { at: at(name), device, block, enabled, read_only: false, serial }
}

fn lun(name: &str) -> Lun {
    let block = Some(format!("zd-{name}"));
    let (name, device) = (name.to_string(), device(name));
    Lun {
        name,
        device,
        block,
        serial: "s".to_string(),
        reservations: String::new(),
        attributes: Attributes::default(),
    }
}

fn wanted() -> Shell {
    Shell {
        tpg: name(),
        attributes: BTreeMap::from([("authentication", "0")]),
        luns: BTreeMap::from([(0, lun("a")), (1, lun("b"))]),
        initiators: BTreeSet::from([FRIEND.to_string()]),
        credentials: BTreeMap::from([(friend(), credentials("new"))]),
    }
}

fn friend() -> Who {
    Who::Initiator(FRIEND.to_string())
}

fn credentials(password: &str) -> Credentials {
    let password = Secret::new(password.to_string());
    Credentials { user: "user".to_string(), password, mutual: None }
}

/// Every state that the pieces can be in.
fn every_kernel() -> Vec<Kernel> {
    let foreign = || backstore("foreign", Path::new("/dev/sdz"), true);
    let stores = |kind: u8, name: &str| match kind {
        0 => Vec::new(),
        1 => vec![backstore(name, &device(name), false)],
        _ => vec![backstore(name, &device(name), true)],
    };
    let mut all = Vec::new();
    for (a, b) in (0..3).flat_map(|a| (0..3).map(move |b| (a, b))) {
        let backstores = [vec![foreign()], stores(a, "a"), stores(b, "b")].concat();
        all.push(Kernel { tpg: None, backstores: backstores.clone() });
        let links = |kind: u8, own: &str| match kind {
            2 => vec![None, Some(None), Some(Some(at(own))), Some(Some(at("foreign")))],
            _ => vec![None, Some(None), Some(Some(at("foreign")))],
        };
        for first in links(a, "a") {
            for second in links(b, "b") {
                for (acl, door) in (0..4).flat_map(|acl| (0..3).map(move |door| (acl, door))) {
                    let mut luns = BTreeMap::new();
                    luns.extend(first.clone().map(|link| (0, link)));
                    luns.extend(second.clone().map(|link| (1, link)));
                    all.push(Kernel {
                        tpg: Some(tpg(luns, acl, door)),
                        backstores: backstores.clone(),
                    });
                }
            }
        }
    }
    all
}

/// ACLs: none; the friend without LUNs; the friend and a stranger with all of them; the friend with a number that leads
/// nowhere. Door: closed; with a portal; open.
fn tpg(luns: BTreeMap<u64, Option<BackstoreName>>, acl: u8, door: u8) -> Tpg {
    let mapped: BTreeMap<u64, Option<u64>> = luns.keys().map(|key| (*key, Some(*key))).collect();
    let nowhere = luns.keys().map(|key| (*key, None)).collect();
    let acls = match acl {
        0 => BTreeMap::new(),
        1 => BTreeMap::from([(FRIEND.to_string(), BTreeMap::new())]),
        2 => BTreeMap::from([(FRIEND.to_string(), mapped.clone()), (STRANGER.to_string(), mapped)]),
        _ => BTreeMap::from([(FRIEND.to_string(), nowhere)]),
    };
    let portals = if door == 0 { BTreeSet::new() } else { BTreeSet::from([PORTAL.to_string()]) };
    let credentials = match acl {
        0 => BTreeMap::from([(Who::Everyone, credentials("old"))]),
        2 => BTreeMap::from([(friend(), credentials("old"))]),
        3 => BTreeMap::from([(friend(), credentials("new"))]),
        _ => BTreeMap::new(),
    };
    // A kernel that asks each initiator by a rule of its own, and one that does not know such rules.
    let asks = match acl {
        1 => BTreeMap::from([(FRIEND.to_string(), None)]),
        3 => BTreeMap::from([(FRIEND.to_string(), Some(false))]),
        _ => BTreeMap::new(),
    };
    Tpg { enabled: door == 2, portals, attributes: BTreeMap::new(), luns, acls, credentials, asks }
}

#[test]
fn every_state_goes_up_and_down() {
    let want = wanted();
    let is_ours = |each: &Backstore| each.device.starts_with("/dev/zvol/p") || !each.enabled;
    let all = every_kernel();
    for start in &all {
        let mut kernel = start.clone();
        for step in shell_up(&want, kernel.tpg.as_ref(), &kernel.backstores) {
            kernel.apply(&step);
        }
        let left = shell_up(&want, kernel.tpg.as_ref(), &kernel.backstores);
        assert!(left.is_empty(), "{start:?} leaves {left:?}");
        assert_eq!(kernel.tpg().acls.keys().collect::<Vec<_>>(), [FRIEND]);
        assert_eq!(kernel.tpg().credentials, want.credentials, "{start:?}");
        assert_ne!(kernel.tpg().asks.get(FRIEND), Some(&Some(false)), "{start:?}");
        for (number, lun) in &want.luns {
            let at = kernel.tpg().luns[number].clone().expect("it leads somewhere");
            let backstore = kernel.backstores.iter().find(|each| each.at == at);
            assert!(backstore.is_some_and(|each| each.serves(lun)), "{start:?}");
        }

        let portals = BTreeSet::from([PORTAL.to_string()]);
        for step in door_up(&name(), &portals, kernel.tpg.as_ref()).expect("the group is there") {
            kernel.apply(&step);
        }
        assert!(kernel.tpg().enabled && kernel.tpg().portals == portals);

        for kernel in [&mut kernel, &mut start.clone()] {
            for step in shell_down(&name(), kernel.tpg.as_ref(), &kernel.backstores, is_ours) {
                kernel.apply(&step);
            }
            assert!(kernel.tpg.is_none(), "{start:?}");
            assert!(!kernel.backstores.iter().any(&is_ours), "{start:?}");
            assert!(kernel.backstores.iter().any(|each| each.at == at("foreign")), "{start:?}");
        }
    }
    assert_eq!(all.len(), 9 + (4 * 9 + 4 * 12 + 16) * 12);
}

#[test]
fn the_door_closes_before_its_portals_go_and_opens_after_they_are_there() {
    let open = tpg(BTreeMap::new(), 0, 2);
    let portal = PORTAL.to_string();
    let down = door_down(&name(), Some(&open));
    assert_eq!(down, [Step::Disable(name()), Step::RemovePortal(name(), portal.clone())]);
    let closed = tpg(BTreeMap::new(), 0, 0);
    let up = door_up(&name(), &BTreeSet::from([portal.clone()]), Some(&closed));
    assert_eq!(up, Some(vec![Step::MakePortal(name(), portal), Step::Enable(name())]));
    assert_eq!(door_up(&name(), &BTreeSet::new(), None), None);
}
