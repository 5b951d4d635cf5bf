//! The kernel's iSCSI target, by its configfs tree: what is there, what is wanted, and the steps
//! from the one to the other. Only objects that a program names are ever touched.
//!
//! Source of the tree and of its rules: `drivers/target/target_core_configfs.c` and
//! `drivers/target/iscsi/iscsi_target_configfs.c`.

mod apply;
mod attributes;
mod expedite;
mod lock;
mod observe;
mod plan;
#[cfg(test)]
mod plan_tests;
pub mod reservations;
pub mod saveconfig;

pub use apply::{Failure, apply_all};
pub use attributes::{Attributes, attributes};
pub use expedite::mend;
pub use lock::{lock, lock_targetcli};
pub use observe::{Stamp, backstores, glance, is_target_empty, lets_in, observe, other_group, tpg};
pub use plan::{door_down, door_up, shell_down, shell_up};

use crate::chap::Credentials;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;

/// Folders of our backstores begin at this number, above those of targetcli, which takes the lowest free one.
const FIRST_HBA: u32 = 100_000;

/// A target portal group: the target's name and the group's tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TpgName {
    /// Name of the target.
    pub iqn: String,
    /// Tag of the group.
    pub tag: u64,
}

/// A target portal group as the kernel has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tpg {
    /// Whether it takes logins.
    pub enabled: bool,
    /// `ADDRESS:PORT` of each portal.
    pub portals: BTreeSet<String>,
    /// The values of the attributes that plans set.
    pub attributes: BTreeMap<&'static str, String>,
    /// Each LUN and the backstore that it leads to; `None` for one that leads nowhere.
    pub luns: BTreeMap<u64, Option<BackstoreName>>,
    /// Each initiator, and its mapped LUNs with the LUN that each leads to.
    pub acls: BTreeMap<String, BTreeMap<u64, Option<u64>>>,
    /// The credentials of each initiator that has some.
    pub credentials: BTreeMap<Who, Credentials>,
    /// Whether each initiator is asked for a password; `None` where it goes by the group. Older kernels know the group's
    /// attribute only, and have no entry here.
    pub asks: BTreeMap<String, Option<bool>>,
}

/// For a digest in a file: the credentials are no part of it.
impl Hash for Tpg {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let Tpg { enabled, portals, attributes, luns, acls, credentials: _, asks } = self;
        (enabled, portals, attributes, luns, acls, asks).hash(hasher);
    }
}

/// Whose credentials.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// Those of every initiator that has no rule of its own (generate_node_acls).
    Everyone,
    /// Those of this initiator.
    Initiator(String),
}

/// The two folder names of a backstore: `iblock_N` and its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackstoreName {
    /// `iblock_N`.
    pub hba: String,
    /// The name that targetcli shows.
    pub name: String,
}

/// A block backstore as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backstore {
    /// Where it is.
    pub at: BackstoreName,
    /// The device, as it was named; empty before it was. The name may have passed to another device since.
    pub device: PathBuf,
    /// The kernel's name of the device that is open, such as `zd16`.
    pub block: Option<String>,
    /// Whether the device is open.
    pub enabled: bool,
    /// Whether it is open for reading alone.
    pub read_only: bool,
    /// Its serial.
    pub serial: String,
}

impl Backstore {
    /// Whether it is open over the device of a LUN. Names of devices can pass on: the kernel's word counts where it
    /// is known.
    pub fn serves(&self, lun: &Lun) -> bool {
        let is_it = match (&self.block, &lun.block) {
            (Some(open), Some(wanted)) => open == wanted,
            _ => self.device == lun.device,
        };
        self.enabled && is_it
    }

    /// Whether it is one of ours that was cut off before its device was open.
    pub fn is_half_made(&self) -> bool {
        !self.enabled && self.is_of_hasan()
    }

    /// Whether it was made by this project's programs: it lies in one of their folders.
    pub fn is_of_hasan(&self) -> bool {
        let number = self.at.hba.strip_prefix("iblock_").and_then(|number| number.parse().ok());
        number.is_some_and(|number: u32| number >= FIRST_HBA)
    }
}

/// The backstores by their names: a LUN leads to one.
pub fn by_name(backstores: &[Backstore]) -> BTreeMap<&BackstoreName, &Backstore> {
    backstores.iter().map(|each| (&each.at, each)).collect()
}

/// What one program wants behind its portal group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shell {
    /// The group.
    pub tpg: TpgName,
    /// Attributes and their values.
    pub attributes: BTreeMap<&'static str, &'static str>,
    /// The LUNs.
    pub luns: BTreeMap<u64, Lun>,
    /// The initiators that get every LUN.
    pub initiators: BTreeSet<String>,
    /// Who must prove itself, and how.
    pub credentials: BTreeMap<Who, Credentials>,
}

/// A LUN that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lun {
    /// Name of its backstore, where one has to be made.
    pub name: String,
    /// Its device, by which an existing backstore is known.
    pub device: PathBuf,
    /// The kernel's name of the device, where it is there.
    pub block: Option<String>,
    /// Its serial.
    pub serial: String,
    /// Its persistent reservations (`lio::reservations`); empty for none.
    pub reservations: String,
    /// What initiators see of it, where a backstore has to be made. A zvol that takes no writes is one of those: the kernel shows
    /// it only after somebody has opened that.
    pub attributes: Attributes,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make the target, if need be, and the group.
    MakeTpg(TpgName),
    /// Set an attribute of the group.
    SetAttribute(TpgName, &'static str, &'static str),
    /// Make a backstore and open its device.
    MakeBackstore(BackstoreName, Lun),
    /// Make a LUN over a backstore.
    MakeLun(TpgName, u64, BackstoreName),
    /// Let an initiator in.
    MakeAcl(TpgName, String),
    /// Ask for these credentials, or for none.
    SetCredentials(TpgName, Who, Option<Credentials>),
    /// Show an initiator a LUN, under the same number.
    MapLun(TpgName, String, u64),
    /// Listen at a portal.
    MakePortal(TpgName, String),
    /// Take logins.
    Enable(TpgName),
    /// Take no logins any more and end the sessions.
    Disable(TpgName),
    /// Listen no more at a portal.
    RemovePortal(TpgName, String),
    /// Hide a LUN from an initiator.
    UnmapLun(TpgName, String, u64),
    /// Let an initiator in no more.
    RemoveAcl(TpgName, String),
    /// Remove a LUN.
    RemoveLun(TpgName, u64),
    /// Close a backstore's device and remove the backstore.
    RemoveBackstore(BackstoreName),
    /// Remove the group, and the target with its last group.
    RemoveTpg(TpgName),
    /// Remove the target of a group that is gone, where no group is left of it.
    RemoveTarget(TpgName),
}

impl fmt::Display for TpgName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} group {}", self.iqn, self.tag)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::MakeTpg(tpg) => write!(out, "make {tpg}"),
            Step::SetAttribute(tpg, name, value) => write!(out, "set {name} of {tpg} to {value}"),
            Step::MakeBackstore(at, lun) => {
                write!(out, "make the backstore {} over {}", at.name, lun.device.display())
            }
            Step::MakeLun(tpg, number, at) => {
                write!(out, "make LUN {number} of {tpg} over the backstore {}", at.name)
            }
            Step::MakeAcl(tpg, initiator) => write!(out, "let {initiator} in to {tpg}"),
            Step::SetCredentials(tpg, who, credentials) => {
                let verb = if credentials.is_some() { "set" } else { "remove" };
                match who {
                    Who::Everyone => write!(out, "{verb} everyone's credentials of {tpg}"),
                    Who::Initiator(name) => {
                        write!(out, "{verb} the credentials of {name} in {tpg}")
                    }
                }
            }
            Step::MapLun(tpg, initiator, number) => {
                write!(out, "show LUN {number} of {tpg} to {initiator}")
            }
            Step::MakePortal(tpg, portal) => write!(out, "listen at {portal} for {tpg}"),
            Step::Enable(tpg) => write!(out, "enable {tpg}"),
            Step::Disable(tpg) => write!(out, "disable {tpg}"),
            Step::RemovePortal(tpg, portal) => write!(out, "close {portal} of {tpg}"),
            Step::UnmapLun(tpg, initiator, number) => {
                write!(out, "hide LUN {number} of {tpg} from {initiator}")
            }
            Step::RemoveAcl(tpg, initiator) => write!(out, "let {initiator} in to {tpg} no more"),
            Step::RemoveLun(tpg, number) => write!(out, "remove LUN {number} of {tpg}"),
            Step::RemoveBackstore(at) => write!(out, "remove the backstore {}", at.name),
            Step::RemoveTpg(tpg) => write!(out, "remove {tpg}"),
            Step::RemoveTarget(tpg) => write!(out, "remove the empty target {}", tpg.iqn),
        }
    }
}
