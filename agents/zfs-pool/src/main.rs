//! `ocf:hasan:zfs-pool`: the pool is imported on one node at a time.
#![forbid(unsafe_code)]

mod apply;
mod datasets;
mod decide;
mod holders;
mod import;
mod lock;
mod members;
mod monitor;
mod observe;
mod release;
mod start;
mod stop;
mod streams;

use decide::Policy;
use hasan::machine::Machine;
use hasan::ocf::{self, Action, Agent, Fault, Kind, Operation, Outcome, Param, Rc, Values};
use hasan::{names, zfs};
use std::process::ExitCode;

const POOL: Param = Param {
    name: "pool",
    kind: Kind::Text(names::pool),
    default: None,
    required: true,
    unique_group: Some("pool"),
    reloadable: false,
    short: "Name of the pool",
    long: "Name of the pool.",
};
const BACKEND: Param = Param {
    name: "backend",
    kind: Kind::Text(names::absolute_path),
    default: Some(hasan::config::PATH),
    required: false,
    unique_group: None,
    reloadable: false,
    short: "Description of this node's backend",
    long: "The file in which this storage node describes its legs and its peer.",
};
const MOUNT: Param = Param {
    name: "mount",
    kind: Kind::Boolean,
    default: Some("true"),
    required: false,
    unique_group: None,
    reloadable: false,
    short: "Mount the datasets",
    long: "Whether the datasets are mounted after the import, as their properties say. A pool that \
           serves zvols only needs no mount.",
};
const MULTIHOST: Param = Param {
    name: "multihost",
    kind: Kind::Text(|value| policy(value).map(|_| ())),
    default: Some("require"),
    required: false,
    unique_group: None,
    reloadable: true,
    short: "What is asked of ZFS's multihost protection",
    long: "require: no import of a pool without multihost=on; warn: such an import is logged; ignore: \
           the cluster's fencing alone has to keep a second importer away. With multihost=on an \
           import after a crash waits to see whether another host writes: 3 to 10 seconds with the \
           options of the ZFS module that come with hasan, 20 to 50 with ZFS's own.",
};
const DEGRADED_IS_OK: Param = Param {
    name: "degraded_is_ok",
    kind: Kind::Boolean,
    default: Some("false"),
    required: false,
    unique_group: None,
    reloadable: true,
    short: "Report a degraded pool as healthy",
    long: "Whether the monitor reports a DEGRADED pool as running well. Otherwise it reports it as \
           degraded: Pacemaker shows that, and lets the pool run.",
};

const LOAD_KEYS: Param = Param {
    name: "load_keys",
    kind: Kind::Boolean,
    default: Some("false"),
    required: false,
    unique_group: None,
    reloadable: true,
    short: "Load the keys of encrypted datasets",
    long: "Whether a start loads the keys of encrypted datasets from the places that their property \
           keylocation names. A key that cannot be loaded leaves its datasets locked and the others \
           working; a key that has to be typed cannot be loaded.",
};
const FAILMODE: Param = Param {
    name: "failmode",
    kind: Kind::Text(failmode),
    default: None,
    required: false,
    unique_group: None,
    reloadable: true,
    short: "What the pool does when it cannot write",
    long: "Sets the pool's property failmode, at each start and when it is changed: wait, continue or panic. If it is not \
           given, the property stays as it is.",
};

fn failmode(value: &str) -> Result<(), String> {
    match value {
        "wait" | "continue" | "panic" => Ok(()),
        _ => Err("is none of wait, continue, panic".to_string()),
    }
}

fn policy(value: &str) -> Result<Policy, String> {
    match value {
        "require" => Ok(Policy::Require),
        "warn" => Ok(Policy::Warn),
        "ignore" => Ok(Policy::Ignore),
        _ => Err("is none of require, warn, ignore".to_string()),
    }
}

static AGENT: Agent = Agent {
    name: "zfs-pool",
    short: "Imports a ZFS pool on one node at a time",
    long: "Imports a ZFS pool whose mirrors have one leg in each of two storage nodes, and exports \
           it. It imports from the legs alone, by force only when the other node was fenced, and \
           never from legs that have missed writes. A degraded pool keeps running and is reported \
           as degraded.",
    params: &[&POOL, &BACKEND, &MOUNT, &LOAD_KEYS, &FAILMODE, &MULTIHOST, &DEGRADED_IS_OK],
    operations: &[
        Operation { name: "start", timeout: 180, interval: 0, depth: 0 },
        Operation { name: "stop", timeout: 120, interval: 0, depth: 0 },
        Operation { name: "monitor", timeout: 20, interval: 10, depth: 0 },
        Operation { name: "monitor", timeout: 60, interval: 61, depth: 10 },
        Operation { name: "reload-agent", timeout: 20, interval: 0, depth: 0 },
        Operation { name: "validate-all", timeout: 20, interval: 0, depth: 0 },
        Operation { name: "meta-data", timeout: 5, interval: 0, depth: 0 },
    ],
    run,
    explain: None,
};

fn main() -> ExitCode {
    ocf::main(&AGENT)
}

fn run(machine: &Machine, action: Action, values: &Values) -> Outcome {
    if action == Action::ValidateAll {
        return start::validate(machine, values);
    }
    let Ok(pool) = values.required(&POOL) else { return without_a_name(machine) };
    match action {
        Action::Start => start::start(machine, pool, values),
        Action::Stop => stop::stop(machine, pool),
        Action::ReloadAgent => reload(machine, pool, values),
        Action::Monitor | Action::ValidateAll => monitor::monitor(machine, pool, values),
    }
}

/// The pool's failmode is set; all else holds from the next start or monitor on. What cannot be done is no reason to restart a
/// pool that runs, weak or not.
fn reload(machine: &Machine, pool: &str, values: &Values) -> Outcome {
    match monitor::monitor(machine, pool, values) {
        Ok(Rc::Success) => {}
        Err(fault) if fault.rc == Rc::Degraded => tracing::warn!("{}", fault.reason),
        other => return other,
    }
    if let Some(failmode) = values.text(&FAILMODE) {
        let brief = machine.with_time(machine.time_left() / 2);
        let set = brief.run("zpool", &["set", &format!("failmode={failmode}"), pool]);
        if let Err(fault) = set {
            tracing::error!("{}", fault.reason);
        }
    }
    Ok(Rc::Success)
}

/// A stop or probe that does not know its pool: nothing runs only if no pool is imported at all.
fn without_a_name(machine: &Machine) -> Outcome {
    match zfs::imported_pools(machine)?.unwrap_or_default().as_slice() {
        [] => Ok(Rc::NotRunning),
        pools => Err(Fault::generic(format!(
            "the parameter \"pool\" is missing, and {} is imported: set the parameter, or export \
             the pool",
            pools.join(", ")
        ))),
    }
}

#[cfg(test)]
mod golden {
    /// What pcs and Pacemaker read changes only on purpose: `zfs-pool meta-data > metadata.xml`.
    #[test]
    fn the_metadata_is_as_recorded() {
        assert_eq!(hasan::ocf::metadata(&super::AGENT), include_str!("../metadata.xml"));
    }
}
