//! The lock of an import. The `zpool` that imports inherits it, so it is held until that process is
//! gone, whatever becomes of the agent: while ZFS looks for another importer the kernel shows no
//! pool, and yet one may appear.

use hasan::machine::Machine;
use hasan::ocf::Fault;
use hasan::processes;
use hasan::zfs::{import_lock, is_importing};
use std::fs::File;

/// The programs that an import runs under the lock.
const IMPORTERS: [&str; 2] = ["zpool", "zhack"];

/// Takes the lock; waits for an import that is under way, as long as the machine's deadline allows.
pub(crate) fn take(machine: &Machine, pool: &str) -> Result<File, Fault> {
    let lock = machine.await_lock(&import_lock(pool), machine.time_left())?;
    lock.ok_or_else(|| {
        Fault::generic(format!("an earlier import of the pool {pool} did not end in time"))
    })
}

/// Ends an import that is under way, and waits until it has ended.
pub(crate) fn end_import(machine: &Machine, pool: &str) -> Result<(), Fault> {
    if !is_importing(machine, pool)? {
        return Ok(());
    }
    for process in processes::with_open(machine, |target| target == import_lock(pool))? {
        if IMPORTERS.contains(&process.name.as_str()) {
            tracing::warn!("ending the import by {process}");
            process.kill();
        }
    }
    let ended =
        machine.await_condition(machine.time_left(), || Ok(!is_importing(machine, pool)?))?;
    if ended {
        return Ok(());
    }
    Err(Fault::generic(format!("an import of the pool {pool} is under way and does not end")))
}
