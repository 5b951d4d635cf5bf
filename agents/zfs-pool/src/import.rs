//! The import itself. It does not wait for a leg of the other node that is lost meanwhile.

use crate::decide::{Decision, Seen};
use crate::observe;
use hasan::config::Backend;
use hasan::legs::{self, Leg};
use hasan::machine::Machine;
use hasan::ocf::Fault;
use hasan::pacemaker::{self, Change, Condition, mark};
use hasan::zfs::{self, Label};
use std::fs::File;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// Pause between two looks at the other node's legs while ZFS imports.
const PAUSE: Duration = Duration::from_millis(500);

/// What an administrator asks of an import.
pub(crate) struct Options<'a> {
    pub(crate) mount: bool,
    pub(crate) load_keys: bool,
    pub(crate) failmode: Option<&'a str>,
}

/// Imports from the legs that carry the pool, and looks at nothing else.
pub(crate) fn import(
    machine: &Machine,
    lock: &File,
    backend: &Backend,
    seen: &Seen,
    newest: &Label,
    decision: &Decision,
    options: &Options<'_>,
) -> Result<(), Fault> {
    let devices: Vec<String> =
        seen.labels.keys().map(|leg| leg.device().display().to_string()).collect();
    let from: Vec<&str> = devices.iter().flat_map(|device| ["-d", device.as_str()]).collect();
    if *decision == Decision::Reclaim {
        let arguments = [&from[..], &["mmp", "reclaim", &newest.pool]].concat();
        machine.run_holding(lock, "zhack", &arguments)?;
    }
    let mut arguments = vec!["import", "-o", "cachefile=none"];
    if *decision == Decision::ImportByForce {
        arguments.push("-f");
    }
    // Without -N the import mounts, and would do so before the keys are loaded.
    if !options.mount || options.load_keys {
        arguments.push("-N");
    }
    let failmode = options.failmode.map(|value| format!("failmode={value}"));
    if let Some(failmode) = &failmode {
        arguments.extend(["-o", failmode]);
    }
    let guid = newest.pool_guid.to_string();
    arguments.extend(from);
    arguments.push(&guid);
    let result = run(machine, lock, &newest.pool, backend, seen, &arguments);
    // Up to ZFS 2.1 it says so, too, of a pool that is imported, of which a dataset cannot be mounted or shared.
    match result {
        Err(fault) if zfs::pool_state(machine, &newest.pool)?.is_some_and(|it| it.is_usable()) => {
            tracing::error!("the pool is imported, and {}", fault.reason);
            Ok(())
        }
        result => result,
    }
}

/// Runs the import. Its I/O to a leg that is lost would wait for the leg's return, and nothing ends a program that waits for a
/// disk; the watch lets legs go only of a pool that is there.
fn run(
    machine: &Machine,
    lock: &File,
    pool: &str,
    backend: &Backend,
    seen: &Seen,
    arguments: &[&str],
) -> Result<(), Fault> {
    let mut waits = backend.peer.legs.clone();
    waits.retain(|leg| seen.labels.contains_key(leg));
    let mut said = String::new();
    let (sender, ended) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || sender.send(machine.run_holding(lock, "zpool", arguments)));
        loop {
            match ended.recv_timeout(PAUSE) {
                Ok(result) => return result.map(|_| ()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Fault::generic(
                        "the thread of the import has ended without a word",
                    ));
                }
            }
            if let Err(fault) = let_lost_go(machine, pool, backend, seen, &mut waits)
                && fault.reason != said
            {
                tracing::error!("the import waits: {}", fault.reason);
                said = fault.reason;
            }
        }
    })
}

/// Lets the I/O to legs fail that are lost now, when the cluster has taken the mark that they miss writes from now on. They
/// are taken from those that are waited for.
fn let_lost_go(
    machine: &Machine,
    pool: &str,
    backend: &Backend,
    seen: &Seen,
    waits: &mut Vec<Leg>,
) -> Result<(), Fault> {
    let mut lost = Vec::new();
    for leg in waits.iter() {
        if observe::is_lost_now(machine, backend, leg)? {
            lost.push(leg.clone());
        }
    }
    if lost.is_empty() {
        return Ok(());
    }
    mark_peer(machine, pool, seen)?;
    for leg in lost {
        legs::fail_if_no_path(machine, &leg)?;
        tracing::warn!("leg {leg} was lost during the import, and is let go");
        waits.retain(|waiting| *waiting != leg);
    }
    Ok(())
}

fn mark_peer(machine: &Machine, pool: &str, seen: &Seen) -> Result<(), Fault> {
    let (cib, name) = (pacemaker::cib(machine)?, pacemaker::dirty_mark(pool));
    if !mark::lets_other_go(cib.attribute(&seen.own, &name)) {
        return Err(Fault::generic(format!(
            "the legs of {} miss writes that those of {} have, which are lost",
            seen.own, seen.peer
        )));
    }
    let value = mark::text(cib.attribute(&seen.peer, &name), &pacemaker::now(), false);
    let change = Change::Attribute { node: &seen.peer, name: &name, value: &value };
    cib.change(machine, &seen.own, Condition::Owner { pool }, &[change])
}
