//! `ocf:hasan:zfs-pool`: the pool is imported on one node at a time.
#![forbid(unsafe_code)]

mod apply;
mod decide;
mod observe;

use decide::Decision;
use hasan::machine::Machine;
use hasan::ocf::{self, Action, Agent, Fault, Kind, Operation, Outcome, Param, Rc, Values};
use hasan::zfs::{self, PoolState};
use hasan::{names, pacemaker};
use std::process::ExitCode;

const POOL: Param = Param {
    name: "pool",
    kind: Kind::Text(names::pool),
    default: None,
    required: true,
    unique_group: Some("pool"),
    short: "Name of the pool",
    long: "Name of the pool.",
};
const BACKEND: Param = Param {
    name: "backend",
    kind: Kind::Text(names::absolute_path),
    default: Some(hasan::config::PATH),
    required: false,
    unique_group: None,
    short: "Description of this node's backend",
    long: "The file in which this storage node describes its legs and its peer.",
};
const MOUNT: Param = Param {
    name: "mount",
    kind: Kind::Boolean,
    default: Some("true"),
    required: false,
    unique_group: None,
    short: "Mount the datasets",
    long: "Whether the datasets are mounted after the import, as their properties say. A pool that \
           serves zvols only needs no mount.",
};

static AGENT: Agent = Agent {
    name: "zfs-pool",
    short: "Imports a ZFS pool on one node at a time",
    long: "Imports a ZFS pool whose mirrors have one leg in each of two storage nodes, and exports \
           it. It imports from the legs alone, by force only when the other node was fenced, and \
           never from legs that have missed writes. A degraded pool keeps running and is reported \
           as degraded.",
    params: &[&POOL, &BACKEND, &MOUNT],
    operations: &[
        Operation { name: "start", timeout: 180, interval: 0, depth: 0 },
        Operation { name: "stop", timeout: 120, interval: 0, depth: 0 },
        Operation { name: "monitor", timeout: 20, interval: 10, depth: 0 },
        Operation { name: "validate-all", timeout: 20, interval: 0, depth: 0 },
        Operation { name: "meta-data", timeout: 5, interval: 0, depth: 0 },
    ],
    run,
};

fn main() -> ExitCode {
    ocf::main(&AGENT)
}

fn run(machine: &Machine, action: Action, values: &Values) -> Outcome {
    if action == Action::ValidateAll {
        return Ok(Rc::Success);
    }
    let Ok(pool) = values.required(&POOL) else { return without_a_name(machine) };
    match action {
        Action::Start => start(machine, pool, values),
        Action::Stop => stop(machine, pool),
        Action::Monitor | Action::ValidateAll => state(machine, pool),
    }
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

fn state(machine: &Machine, pool: &str) -> Outcome {
    match zfs::pool_state(machine, pool)? {
        None => Ok(Rc::NotRunning),
        Some(PoolState::Online) => Ok(Rc::Success),
        Some(PoolState::Degraded) => {
            Err(Fault::new(Rc::Degraded, format!("the pool {pool} is DEGRADED: see zpool status")))
        }
        Some(PoolState::Other(state)) => {
            Err(Fault::generic(format!("the pool {pool} is imported and {state}")))
        }
    }
}

fn start(machine: &Machine, pool: &str, values: &Values) -> Outcome {
    match zfs::pool_state(machine, pool)? {
        Some(state) if state.is_usable() => return Ok(Rc::Success),
        Some(_) => return state(machine, pool),
        None => {}
    }
    let backend = hasan::config::load(machine, values.required(&BACKEND)?.as_ref())?;
    // Asked once: the cluster's tools take their time, and the clients wait.
    let peer_state = pacemaker::node_state(machine, &backend.peer.node)?;
    apply::await_peer_legs(machine, &backend, peer_state)?;
    let seen = observe::observe(machine, pool, &backend, peer_state)?;
    tracing::info!("seen: {seen:?}");
    let force = match decide::decide(pool, &seen) {
        Decision::Import => false,
        Decision::ImportByForce => true,
        Decision::Refuse(reason) => return Err(Fault::generic(reason)),
    };
    apply::import(machine, pool, &backend, &seen, force, values.is_set(&MOUNT))?;
    match zfs::pool_state(machine, pool)? {
        Some(state) if state.is_usable() => Ok(Rc::Success),
        _ => Err(Fault::generic(format!("the pool {pool} does not work after its import"))),
    }
}

fn stop(machine: &Machine, pool: &str) -> Outcome {
    match zfs::pool_state(machine, pool)? {
        None => return Ok(Rc::Success),
        Some(PoolState::Other(state)) => {
            return Err(Fault::generic(format!(
                "cannot export the pool {pool}: it is {state}, and an export would hang"
            )));
        }
        Some(PoolState::Online | PoolState::Degraded) => {}
    }
    let holders = observe::holders(machine, pool)?;
    if !holders.is_empty() {
        return Err(Fault::generic(format!(
            "cannot export the pool {pool}: in use by {}",
            holders.join(", ")
        )));
    }
    apply::export(machine, pool)?;
    match zfs::pool_state(machine, pool)? {
        None => Ok(Rc::Success),
        Some(_) => {
            Err(Fault::generic(format!("the pool {pool} is still imported after its export")))
        }
    }
}
