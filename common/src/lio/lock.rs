//! One at a time in the kernel's target tree.

use crate::machine::Machine;
use crate::ocf::Fault;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

/// Ours: between our own programs.
const OURS: &str = "/run/hasan/lio.lock";
/// The one that targetcli holds while it runs (targetcli-fb, `scripts/targetcli`, `lock_file`).
const TARGETCLI: &str = "/run/targetcli.lock";
/// An administrator's open targetcli shell must not hold up a failover: so long it is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Both locks, held while this lives.
pub struct Lock {
    _ours: File,
    _targetcli: Option<File>,
}

/// Waits until no other program of ours changes the tree, and a moment for targetcli.
pub fn lock(machine: &Machine) -> Result<Lock, Fault> {
    machine.tell("wait for another program of hasan");
    let ours = machine
        .await_lock(Path::new(OURS), machine.time_left())?
        .ok_or_else(|| Fault::generic(format!("another program of hasan holds {OURS}")))?;
    Ok(Lock { _ours: ours, _targetcli: lock_targetcli(machine)? })
}

/// Waits a moment for targetcli alone: for changes that no other program of ours makes, and that nobody must hold up.
pub fn lock_targetcli(machine: &Machine) -> Result<Option<File>, Fault> {
    let lock = machine.await_lock(Path::new(TARGETCLI), PATIENCE)?;
    if lock.is_none() {
        tracing::warn!("somebody has targetcli open; going on beside it");
    }
    Ok(lock)
}
