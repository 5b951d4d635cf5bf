//! `ocf:hasan:sync-iscsi-luns`: the zvols of one client VLAN as LUNs, behind a door that is closed.
#![forbid(unsafe_code)]

mod access;
mod identity;
mod luns;
mod notes;
mod observe;
mod plan;
mod saved;
mod settled;
mod state;

use crate::access::Source;
use crate::identity::Naming;
use hasan::lio::TpgName;
use hasan::machine::Machine;
use hasan::names;
use hasan::ocf::{self, Action, Agent, Fault, Kind, Operation, Outcome, Param, Rc, Values};
use hasan::zfs;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

const IQN: Param = Param {
    name: "iqn",
    kind: Kind::Text(names::iqn),
    default: None,
    required: true,
    unique_group: Some("tpg"),
    reloadable: false,
    short: "Name of the target",
    long: "iSCSI name of the client target, the same on both nodes.",
};
const TPG: Param = Param {
    name: "tpg",
    kind: Kind::Integer(1, 65535),
    default: Some("1"),
    required: false,
    unique_group: Some("tpg"),
    reloadable: false,
    short: "Tag of the portal group",
    long: "Tag of the target portal group of this VLAN.",
};
const DATASET: Param = Param {
    name: "dataset",
    kind: Kind::Text(names::dataset),
    default: None,
    required: true,
    unique_group: Some("dataset"),
    reloadable: false,
    short: "Dataset of the zvols",
    long: "All zvols below this dataset, at any depth, become LUNs.",
};
const VLAN: Param = Param {
    name: "vlan",
    kind: Kind::Text(names::plain),
    default: None,
    required: false,
    unique_group: None,
    reloadable: false,
    short: "Name of the VLAN, for the names of its backstores",
    long: "With it, a backstore is called VLAN-ZVOL; without it, ZVOL. Give it where zvols of \
           several VLANs have the same name.",
};
const INITIATORS: Param = Param {
    name: "initiators",
    kind: Kind::Text(names::iqns),
    default: None,
    required: false,
    unique_group: None,
    reloadable: true,
    short: "Initiators that get the LUNs",
    long: "iSCSI names of the initiators that get the LUNs, and nobody else does. Give either this \
           or generate_node_acls.",
};
const GENERATE_NODE_ACLS: Param = Param {
    name: "generate_node_acls",
    kind: Kind::Boolean,
    default: Some("false"),
    required: false,
    unique_group: None,
    reloadable: false,
    short: "Let every initiator in",
    long: "Every initiator that reaches the portal gets the LUNs, as the ZFS-over-iSCSI plugin of \
           Proxmox needs it. The VLAN is then the only guard.",
};

const ACL_FILE: Param = Param {
    name: "acl_file",
    kind: Kind::Text(names::absolute_path),
    default: None,
    required: false,
    unique_group: None,
    reloadable: true,
    short: "File of initiators",
    long: "A file, on the pool for instance, with a line for each further initiator: its iSCSI name, or that and its CHAP \
           name and password, or also those of the target (mutual CHAP). With passwords in it, it must be root's alone \
           (mode 0600). It is read again by each sync.",
};
const CHAP_FILE: Param = Param {
    name: "chap_file",
    kind: Kind::Text(names::absolute_path),
    default: None,
    required: false,
    unique_group: None,
    reloadable: true,
    short: "File of CHAP secrets",
    long: "JSON with \"user\" and \"password\", for mutual CHAP also \"mutual_user\" and \"mutual_password\", for all \
           initiators, and under \"initiators\" the same for each by its name; of root and mode 0600, on both nodes; or \
           that encrypted by systemd-creds. Who has credentials must use them. Sessions outlive a change.",
};
const NAMES: Param = Param {
    name: "names",
    kind: Kind::Text(naming),
    default: Some("zvol"),
    required: false,
    unique_group: None,
    reloadable: false,
    short: "Rule for the names of backstores",
    long: "zvol: ZVOL, or VLAN-ZVOL where the parameter vlan is given. proxmox: POOL-DATASET-ZVOL, as Proxmox's \
           ZFS-over-iSCSI plugin calls them. A backstore that somebody else has made keeps its name.",
};
const SETTLE: Param = Param {
    name: "settle",
    kind: Kind::Integer(0, 86400),
    default: Some("60"),
    required: false,
    unique_group: None,
    reloadable: true,
    short: "Seconds for which changes are left to others",
    long: "A zvol that has just been made, or whose LUN somebody has just removed, is left alone for so many seconds: \
           Proxmox and people with targetcli work in several steps.",
};

/// How long a LUN may be half removed.
const MOMENT: Duration = Duration::from_secs(2);

static AGENT: Agent = Agent {
    name: "sync-iscsi-luns",
    short: "Serves the zvols of a dataset as iSCSI LUNs",
    long: "Makes a target portal group with a LUN for each zvol of a dataset. The number and the \
           serial of a LUN are kept in properties of its zvol, so that clients find the same disks \
           on either node. The portal group stays disabled: client-iscsi-tpg opens it, last. One \
           resource for each client VLAN.",
    params: &[
        &IQN,
        &TPG,
        &DATASET,
        &VLAN,
        &INITIATORS,
        &GENERATE_NODE_ACLS,
        &ACL_FILE,
        &CHAP_FILE,
        &NAMES,
        &SETTLE,
    ],
    operations: &[
        Operation { name: "start", timeout: 120, interval: 0, depth: 0 },
        Operation { name: "stop", timeout: 120, interval: 0, depth: 0 },
        Operation { name: "monitor", timeout: 30, interval: 15, depth: 0 },
        Operation { name: "monitor", timeout: 120, interval: 60, depth: 10 },
        Operation { name: "reload-agent", timeout: 120, interval: 0, depth: 0 },
        Operation { name: "validate-all", timeout: 20, interval: 0, depth: 0 },
        Operation { name: "meta-data", timeout: 5, interval: 0, depth: 0 },
    ],
    run,
    explain: Some(|machine, values| luns::explain(machine, &Config::new(values)?)),
};

fn main() -> ExitCode {
    ocf::main(&AGENT)
}

/// One VLAN.
struct Config {
    tpg: TpgName,
    dataset: String,
    naming: Naming,
    /// Seconds.
    settle: u64,
    access: Source,
}

fn naming(value: &str) -> Result<(), String> {
    match value {
        "zvol" | "proxmox" => Ok(()),
        _ => Err("is neither zvol nor proxmox".to_string()),
    }
}

impl Config {
    fn new(values: &Values) -> Result<Config, Fault> {
        let initiators: BTreeSet<String> =
            names::list(values.text(&INITIATORS).unwrap_or_default()).into_iter().collect();
        let access = Source {
            everyone: values.is_set(&GENERATE_NODE_ACLS),
            initiators,
            acl_file: values.text(&ACL_FILE).map(PathBuf::from),
            chap_file: values.text(&CHAP_FILE).map(PathBuf::from),
        };
        let is_listed = !access.initiators.is_empty() || access.acl_file.is_some();
        if access.everyone == is_listed {
            let reason = "give either the parameter \"generate_node_acls\" or \"initiators\" and \"acl_file\"";
            return Err(Fault::new(Rc::Configured, reason));
        }
        Ok(Config {
            tpg: TpgName {
                iqn: values.required(&IQN)?.to_string(),
                tag: values.number(&TPG).unwrap_or(1),
            },
            dataset: values.required(&DATASET)?.to_string(),
            naming: match values.text(&NAMES) {
                Some("proxmox") => Naming::Proxmox,
                _ => Naming::Zvol { vlan: values.text(&VLAN).map(str::to_string) },
            },
            settle: values.number(&SETTLE).unwrap_or(60),
            access,
        })
    }

    fn pool(&self) -> &str {
        pool_of(&self.dataset)
    }
}

fn pool_of(dataset: &str) -> &str {
    dataset.split('/').next().unwrap_or_default()
}

/// What a stop or probe needs to know; all of it was checked by the start.
fn known(values: &Values) -> Option<(TpgName, &str)> {
    let iqn = values.text(&IQN)?.to_string();
    Some((TpgName { iqn, tag: values.number(&TPG).unwrap_or(1) }, values.text(&DATASET)?))
}

fn run(machine: &Machine, action: Action, values: &Values) -> Outcome {
    match action {
        Action::Start => luns::start(machine, &Config::new(values)?),
        Action::ReloadAgent => reload(machine, values),
        Action::ValidateAll => Config::new(values).map(|_| Rc::Success),
        // Without its parameters, and without a record of a start, it has made nothing here.
        Action::Stop | Action::Monitor => match known(values) {
            None => Ok(Rc::NotRunning),
            Some((tpg, dataset)) if action == Action::Stop => state::stop(machine, &tpg, dataset),
            Some((tpg, dataset)) => {
                let is_imported = zfs::pool_state(machine, pool_of(dataset))?.is_some();
                if is_imported && ocf::check_level() >= 10 {
                    return sync(machine, values);
                }
                let rc = state(machine, &tpg, dataset, is_imported)?;
                if rc == Rc::Success && !observe::changed_reservations(machine, &tpg)?.is_empty() {
                    return sync(machine, values);
                }
                Ok(rc)
            }
        },
    }
}

/// What cannot be done is no reason to restart what is served: the next monitor names it.
fn reload(machine: &Machine, values: &Values) -> Outcome {
    match sync(machine, values) {
        Err(fault) if fault.rc == Rc::Degraded => {
            tracing::error!("{}", fault.reason);
            Ok(Rc::Success)
        }
        outcome => outcome,
    }
}

/// Parameters that were changed and do not go together leave all as it is.
fn sync(machine: &Machine, values: &Values) -> Outcome {
    match Config::new(values) {
        Ok(config) => luns::sync(machine, &config),
        Err(fault) if fault.rc == Rc::Configured => {
            Err(Fault::new(Rc::Degraded, format!("{}; nothing is changed", fault.reason)))
        }
        Err(fault) => Err(fault),
    }
}

/// The state. What somebody else is about to remove is half there for a moment.
fn state(machine: &Machine, tpg: &TpgName, dataset: &str, is_imported: bool) -> Outcome {
    let state = || state::state(machine, tpg, dataset, is_imported);
    state().or_else(|_| {
        machine.await_condition(MOMENT, || Ok(state().is_ok()))?;
        state()
    })
}

#[cfg(test)]
mod golden {
    /// What pcs and Pacemaker read changes only on purpose: `sync-iscsi-luns meta-data > metadata.xml`.
    #[test]
    fn the_metadata_is_as_recorded() {
        assert_eq!(hasan::ocf::metadata(&super::AGENT), include_str!("../metadata.xml"));
    }
}
