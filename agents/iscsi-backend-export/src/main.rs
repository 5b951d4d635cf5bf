//! `iscsi-backend-export`: this node's legs, for ZFS here and for the other node by iSCSI.
//!
//! systemd runs `up` at boot and `down` at shutdown, with or without a cluster: a node in standby must go on exporting.
//! Before the distribution restores its targets it runs `idle` and `strip`. As `ocf:hasan:iscsi-backend-export` it only
//! reports.
#![forbid(unsafe_code)]

use hasan::legs::Leg;
use hasan::lio::Backstore;
use hasan::machine::Machine;
use hasan::ocf::{self, Action, Agent, Fault, Kind, Operation, Outcome, Param, Rc, Values};
use hasan::{config, export, lio, names, zfs};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tracing::level_filters::LevelFilter;

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

static AGENT: Agent = Agent {
    name: "iscsi-backend-export",
    short: "Reports whether this node exports its legs",
    long: "Reports whether this storage node exports all its legs to the other one. The export \
           itself is made by the systemd unit hasan-backend-export.service, and neither start nor \
           stop of this resource changes it. Use it as a clone.",
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
    let word = std::env::args().nth(1).unwrap_or_default();
    match word.as_str() {
        "up" => by_systemd(export::up),
        "down" => by_systemd(export::down),
        "idle" => by_systemd(idle),
        "strip" => by_systemd(strip),
        _ => ocf::main(&AGENT),
    }
}

/// Succeeds where the kernel serves nothing of ours. A restore of targetcli's configuration clears the kernel's first, and
/// would cut off initiators and the other node.
fn idle(machine: &Machine, path: &Path) -> Result<(), Fault> {
    let ours = ours(machine, path)?;
    let is_ours = |each: &Backstore| ours.iter().any(|place| each.device.starts_with(place));
    match lio::backstores(machine)?.iter().find(|each| is_ours(each)) {
        None => Ok(()),
        Some(one) => Err(Fault::generic(format!(
            "the targets of targetcli's configuration are not restored: that would clear the backstore {} over {}",
            one.at.name,
            one.device.display()
        ))),
    }
}

/// Before targetcli's configuration is restored: it must bring up no LUN over a zvol of the cluster's pools, and no leg.
fn strip(machine: &Machine, path: &Path) -> Result<(), Fault> {
    let ours = ours(machine, path)?;
    lio::saveconfig::strip(machine, |device| ours.iter().any(|place| device.starts_with(place)))
}

/// The zvols of the cluster's pools, and the exported legs; none on a node that has no backend.
fn ours(machine: &Machine, path: &Path) -> Result<Vec<PathBuf>, Fault> {
    let backend = match config::load(machine, path) {
        Ok(backend) => backend,
        Err(fault) if fault.rc == Rc::Installed => return Ok(Vec::new()),
        Err(fault) => return Err(fault),
    };
    let zvols = backend.pools.iter().map(|pool| zfs::zvol_device(pool));
    Ok(zvols.chain(backend.legs.keys().map(Leg::export_device)).collect())
}

fn run(machine: &Machine, action: Action, values: &Values) -> Outcome {
    let path = values.required(&BACKEND)?;
    ocf::report_only(machine, AGENT.name, action, || export::check(machine, Path::new(path)))
}

/// Time for these verbs, below the unit's own.
const SYSTEMD_TIME: Duration = Duration::from_secs(80);

fn by_systemd(verb: fn(&Machine, &Path) -> Result<(), Fault>) -> ExitCode {
    ocf::open_log(AGENT.name, LevelFilter::DEBUG);
    let machine = Machine::local(Instant::now() + SYSTEMD_TIME);
    match verb(&machine, Path::new(hasan::config::PATH)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            tracing::error!("{}", fault.reason);
            ExitCode::from(Rc::Generic as u8)
        }
    }
}

#[cfg(test)]
mod golden {
    /// What pcs and Pacemaker read changes only on purpose: `iscsi-backend-export meta-data > metadata.xml`.
    #[test]
    fn the_metadata_is_as_recorded() {
        assert_eq!(hasan::ocf::metadata(&super::AGENT), include_str!("../metadata.xml"));
    }
}
