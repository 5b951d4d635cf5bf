//! The daemon: a pass each second. It holds a lock while it runs, by which the agent knows of it.

use crate::notify::{ALIVE, READY, notify};
use crate::pass::Watch;
use hasan::config;
use hasan::machine::Machine;
use hasan::ocf::{Fault, Rc, open_log};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tracing::level_filters::LevelFilter;

const LOCK: &str = "/run/hasan/backend-watch.lock";
/// Pause between two passes.
const INTERVAL: Duration = Duration::from_secs(1);
/// Time for the programs of one pass, but for changes of the cluster's configuration; the unit's WatchdogSec= is longer.
const PASS: Duration = Duration::from_secs(30);

pub(crate) fn main(name: &str) -> ExitCode {
    // While the other node is away each command would be in the journal every few seconds.
    open_log(name, LevelFilter::INFO);
    match watch() {
        Ok(never) => match never {},
        Err(fault) => {
            tracing::error!("{}", fault.reason);
            ExitCode::from(Rc::Generic as u8)
        }
    }
}

fn watch() -> Result<std::convert::Infallible, Fault> {
    let machine = Machine::local(Instant::now() + PASS);
    let _lock = machine
        .try_lock(Path::new(LOCK))?
        .ok_or_else(|| Fault::generic("another watch daemon runs on this node"))?;
    let backend = config::load(&machine, Path::new(config::PATH))?;
    tracing::info!("watching the legs of {}", backend.peer.node);
    let mut watch = Watch::default();
    // Before the first pass: while the other node is down it takes long, and Pacemaker must not wait for it.
    notify(READY);
    loop {
        watch.pass(&machine.with_time(PASS), &backend);
        notify(ALIVE);
        std::thread::sleep(INTERVAL);
    }
}

/// Whether a daemon holds the lock.
pub(crate) fn is_running(machine: &Machine) -> Result<bool, Fault> {
    machine.is_locked(Path::new(LOCK))
}
