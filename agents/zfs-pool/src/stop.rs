//! Gives the pool back: an export, once nobody holds it any more.

use crate::{holders, lock};
use hasan::machine::Machine;
use hasan::ocf::{Fault, Outcome, Rc};
use hasan::zfs;

pub(crate) fn stop(machine: &Machine, pool: &str) -> Outcome {
    lock::end_import(machine, pool)?;
    // A stop that fails has the node fenced: the other half of the time is for the export.
    let patience = zfs::BETWEEN.max(machine.time_left() / 2);
    let Some(state) = zfs::settled_pool_state(machine, pool, patience)? else {
        return Ok(Rc::Success);
    };
    let cannot = |why: String| Fault::generic(format!("cannot export the pool {pool}: {why}"));
    if !state.is_usable() {
        return Err(cannot(format!("it is {}, and an export would hang", state.word())));
    }
    let holders = holders::holders(machine, pool)?;
    if !holders.is_empty() {
        tracing::error!("{pool} is in use by {}", holders.join(", "));
        return Err(cannot(format!("in use by {}", holders::sentence(&holders))));
    }
    machine.run("zpool", &["export", pool])?;
    match zfs::pool_state(machine, pool)? {
        None => Ok(Rc::Success),
        Some(_) => Err(cannot("it is still imported after its export".to_string())),
    }
}
