//! The daemon: a pass each second. It holds a lock while it runs, by which the agent knows of it.

use crate::pass::Watch;
use hasan::config;
use hasan::machine::Machine;
use hasan::ocf::{Fault, Rc, open_log};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const LOCK: &str = "/run/hasan/backend-watch.lock";
/// Pause between two passes.
const INTERVAL: Duration = Duration::from_secs(1);
/// Time for the programs of one pass.
const PASS: Duration = Duration::from_secs(30);

pub(crate) fn main(name: &str) -> ExitCode {
    open_log(name);
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
    let _lock = take_lock(&machine)?
        .ok_or_else(|| Fault::generic("another watch daemon runs on this node"))?;
    let backend = config::load(&machine, Path::new(config::PATH))?;
    tracing::info!("watching the legs of {}", backend.peer.node);
    let mut watch = Watch::default();
    loop {
        watch.pass(&machine.with_time(PASS), &backend);
        std::thread::sleep(INTERVAL);
    }
}

/// Whether a daemon holds the lock.
pub(crate) fn is_running(machine: &Machine) -> Result<bool, Fault> {
    Ok(take_lock(machine)?.is_none())
}

/// `None` if another process holds it.
fn take_lock(machine: &Machine) -> Result<Option<Flock<std::fs::File>>, Fault> {
    let file = machine.open_lock(Path::new(LOCK))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(Fault::generic(format!("cannot lock {LOCK}: {error}"))),
    }
}
