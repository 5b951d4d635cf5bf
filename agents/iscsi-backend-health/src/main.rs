//! `iscsi-backend-health`: the other node's legs here.
//!
//! systemd runs `watch` on both storage nodes, with or without a cluster, and `shut-down` behind it. As
//! `ocf:hasan:iscsi-backend-health` it only reports, and touches no session and no map.
#![forbid(unsafe_code)]

mod aside;
mod healing;
mod marks;
mod notify;
mod pass;
mod plan;
mod pools;
mod presence;
mod publish;
mod said;
mod shutdown;
mod standing;
mod watch;

use hasan::config::Backend;
use hasan::legs::Leg;
use hasan::machine::Machine;
use hasan::ocf::{self, Action, Agent, Fault, Kind, Operation, Outcome, Param, Rc, Values};
use hasan::{config, iscsi, legs, names};
use std::path::Path;
use std::process::ExitCode;

const BACKEND: Param = Param {
    name: "backend",
    kind: Kind::Text(names::absolute_path),
    default: Some(config::PATH),
    required: false,
    unique_group: None,
    reloadable: false,
    short: "Description of this node's backend",
    long: "The file in which this storage node describes its legs and its peer.",
};

static AGENT: Agent = Agent {
    name: "iscsi-backend-health",
    short: "Reports whether the other node's legs are here",
    long: "Reports whether the watch daemon runs and all legs of the other storage node are here. \
           The daemon itself is run by the systemd unit hasan-backend-watch.service, and neither \
           start nor stop of this resource changes it. Use it as a clone, without an order or a \
           colocation with anything. The node attribute hasan-legs-missing says how many legs are not \
           here, for alerts.",
    params: &[&BACKEND],
    operations: &[
        Operation { name: "start", timeout: 20, interval: 0, depth: 0 },
        Operation { name: "stop", timeout: 20, interval: 0, depth: 0 },
        Operation { name: "monitor", timeout: 20, interval: 20, depth: 0 },
        Operation { name: "validate-all", timeout: 20, interval: 0, depth: 0 },
        Operation { name: "meta-data", timeout: 5, interval: 0, depth: 0 },
    ],
    run,
    explain: None,
};

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("watch") => watch::main(AGENT.name),
        Some("shut-down") => shutdown::main(AGENT.name),
        _ => ocf::main(&AGENT),
    }
}

fn run(machine: &Machine, action: Action, values: &Values) -> Outcome {
    let path = Path::new(values.required(&BACKEND)?);
    let outcome = ocf::report_only(machine, AGENT.name, action, || check_daemon(machine, path))?;
    if action == Action::Stop {
        publish::withdraw(machine);
    }
    if outcome == Rc::Success && matches!(action, Action::Start | Action::Monitor) {
        let backend = config::load(machine, path)?;
        let missing = missing_legs(machine, &backend)?;
        publish::publish(machine, missing.len(), action == Action::Start);
        if action == Action::Monitor {
            check_legs(&backend.peer.node, &missing)?;
        }
    }
    Ok(outcome)
}

fn check_daemon(machine: &Machine, path: &Path) -> Result<(), Fault> {
    config::load(machine, path)?;
    if watch::is_running(machine)? {
        return Ok(());
    }
    Err(Fault::generic("the watch daemon does not run: systemctl start hasan-backend-watch"))
}

fn missing_legs(machine: &Machine, backend: &Backend) -> Result<Vec<Leg>, Fault> {
    let sessions = iscsi::observe(machine, &backend.peer.iqn)?;
    let maps = legs::observe(machine)?;
    let answering = legs::answering(&maps, &sessions);
    let is_missing = |leg: &&Leg| !answering.iter().any(|map| map.leg == **leg);
    Ok(backend.peer.legs.iter().filter(is_missing).cloned().collect())
}

/// Missing legs are a weakness of the node, not a failure of this resource.
fn check_legs(peer: &str, missing: &[Leg]) -> Result<(), Fault> {
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(Leg::name).collect();
    let reason = format!("legs of {peer} that are not here: {}", names.join(", "));
    Err(Fault::new(Rc::Degraded, reason))
}

#[cfg(test)]
mod golden {
    /// What pcs and Pacemaker read changes only on purpose: `iscsi-backend-health meta-data > metadata.xml`.
    #[test]
    fn the_metadata_is_as_recorded() {
        assert_eq!(hasan::ocf::metadata(&super::AGENT), include_str!("../metadata.xml"));
    }
}
