//! The import itself. It does not wait for a leg of the other node that is lost meanwhile.

use crate::decide::{Decision, Seen};
use crate::{observe, release};
use hasan::config::Backend;
use hasan::flow::Flow;
use hasan::iscsi;
use hasan::legs::{self, Leg, Map, Role};
use hasan::machine::Machine;
use hasan::ocf::Fault;
use hasan::zfs::{self, Label};
use std::collections::BTreeSet;
use std::fs::File;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// Pause between two looks at the other node's legs while ZFS imports.
const PAUSE: Duration = Duration::from_millis(500);

/// How often the I/O of a leg may stand still while the watch tries its path again, before its disk counts as one that fails.
const STILL: u32 = 4;

/// What an administrator asks of an import.
pub(crate) struct Options<'a> {
    pub(crate) mount: bool,
    pub(crate) load_keys: bool,
    pub(crate) failmode: Option<&'a str>,
}

/// How an import ended that did not fail for another reason.
pub(crate) enum Ended {
    /// The pool is here.
    Imported,
    /// It failed, and legs were lost meanwhile on which the decision rested: some versions of ZFS want a pool reclaimed that
    /// lacks legs.
    LegsLost(Fault),
}

/// An import under way.
struct Import<'a> {
    machine: &'a Machine,
    lock: &'a File,
    pool: &'a str,
    backend: &'a Backend,
    /// The other node's legs that carry the pool.
    carry: BTreeSet<Leg>,
    /// Those for which its I/O would wait if they were lost; one that was away comes back meanwhile, perhaps.
    waits: BTreeSet<Leg>,
    flow: Flow,
    has_let_go: bool,
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
) -> Result<Ended, Fault> {
    let pool = newest.pool.as_str();
    let of_peer = |leg: &&Leg| backend.peer.legs.contains(leg);
    let carry: BTreeSet<Leg> = seen.labels.keys().filter(of_peer).cloned().collect();
    let others = seen.beside.iter().chain(&seen.peer_missing).filter(of_peer);
    let mut import = Import {
        machine,
        lock,
        pool,
        backend,
        waits: carry.iter().chain(others).cloned().collect(),
        carry,
        flow: Flow::default(),
        has_let_go: false,
    };
    let legs = seen.labels.keys().chain(&seen.beside);
    let mut commands = commands(legs, newest, decision, options).into_iter();
    let result = commands.try_for_each(|(program, arguments)| import.run(program, &arguments));
    // Up to ZFS 2.1 it says so, too, of a pool that is imported, of which a dataset cannot be mounted or shared.
    match result {
        Ok(()) => {}
        Err(fault) if zfs::pool_state(machine, pool)?.is_some_and(|it| it.is_usable()) => {
            tracing::error!("the pool is imported, and {}", fault.reason);
        }
        Err(fault) if import.has_let_go => return Ok(Ended::LegsLost(fault)),
        Err(fault) => return Err(fault),
    }
    // A leg that was lost at the end, and that the watch let go for another pool's sake, has missed writes of this one, too.
    if let Err(fault) = import.let_lost_go() {
        tracing::error!("the I/O of {pool} waits: {}", fault.reason);
    }
    Ok(Ended::Imported)
}

/// The programs that do it, one after the other, and their arguments.
fn commands<'a>(
    legs: impl Iterator<Item = &'a Leg>,
    newest: &Label,
    decision: &Decision,
    options: &Options<'_>,
) -> Vec<(&'static str, Vec<String>)> {
    let from: Vec<String> =
        legs.flat_map(|leg| ["-d".to_string(), leg.device().display().to_string()]).collect();
    let mut commands = Vec::new();
    if *decision == Decision::Reclaim {
        let reclaim = ["mmp", "reclaim", &newest.pool].map(String::from);
        commands.push(("zhack", [&from[..], &reclaim].concat()));
    }
    let mut import = ["import", "-o", "cachefile=none"].map(String::from).to_vec();
    if *decision == Decision::ImportByForce {
        import.push("-f".to_string());
    }
    // Without -N the import mounts, and would do so before the keys are loaded.
    if !options.mount || options.load_keys {
        import.push("-N".to_string());
    }
    if let Some(value) = options.failmode {
        import.extend(["-o".to_string(), format!("failmode={value}")]);
    }
    import.extend(from);
    import.push(newest.pool_guid.to_string());
    commands.push(("zpool", import));
    commands
}

impl Import<'_> {
    /// Runs one of its programs, whose I/O to a leg that is lost would wait for the leg's return. Nothing ends a program that
    /// waits for a disk, and the watch lets legs go only of a pool that is there.
    fn run(&mut self, program: &str, arguments: &[String]) -> Result<(), Fault> {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (machine, lock) = (self.machine, self.lock);
        let mut said = String::new();
        let (sender, ended) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(move || sender.send(machine.run_holding(lock, program, &arguments)));
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
                if let Err(fault) = self.let_lost_go()
                    && fault.reason != said
                {
                    tracing::error!("the import waits: {}", fault.reason);
                    said = fault.reason;
                }
            }
        })
    }

    /// Lets the I/O to legs fail that are lost now, when the cluster has taken the mark that they miss writes from now on. Of
    /// those that have no map nothing waits, nor of those that were let go and are not in use again.
    fn let_lost_go(&mut self) -> Result<(), Fault> {
        let are_let_go = legs::are_let_go(self.machine)?;
        let mut maps = legs::observe(self.machine)?;
        maps.retain(|map| {
            map.role == Role::Remote
                && self.waits.contains(&map.leg)
                && !are_let_go.contains(&map.leg)
        });
        let mut lost = self.failing(&maps)?;
        for map in maps {
            if observe::is_lost_now(self.machine, self.backend, &map.leg)? {
                lost.insert(map.leg);
            }
        }
        if lost.is_empty() {
            return Ok(());
        }
        release::mark_peer(self.machine, self.pool, &self.backend.peer.node)?;
        for leg in lost {
            if self.carry.contains(&leg) {
                legs::let_go(self.machine, &leg)?;
            } else {
                release::let_go(self.machine, self.backend, self.pool, &leg)?;
            }
            tracing::warn!("leg {leg} was lost during the import, and is let go");
            self.has_let_go = true;
        }
        Ok(())
    }

    /// The legs that are waited for and whose disk fails I/O, which the watch cannot let fail: no pool is here yet.
    fn failing(&mut self, maps: &[Map]) -> Result<BTreeSet<Leg>, Fault> {
        let now = Instant::now();
        let sessions = iscsi::observe(self.machine, &self.backend.peer.iqn)?;
        let answering = legs::answering(maps, &sessions);
        let mut failing = BTreeSet::new();
        for map in maps {
            // What waits while no disk takes it says nothing of the disk.
            if !answering.iter().any(|each| each.leg == map.leg) {
                self.flow.forget(&map.leg);
                continue;
            }
            let times = self.flow.stands_still(&map.leg, map.io, now);
            if times.is_some_and(|times| times >= STILL)
                && legs::has_path_failed(self.machine, &map.leg)?
            {
                failing.insert(map.leg.clone());
            }
        }
        Ok(failing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hasan::zfs::LabelState;

    #[test]
    fn only_the_legs_that_carry_the_pool_are_looked_at_and_what_was_decided_is_done() {
        let newest = Label {
            pool: "tank".to_string(),
            pool_guid: 9,
            state: LabelState::InUse,
            txg: 12,
            synced: 12,
            multihost: true,
            hostid: 1,
            hostname: "host1".to_string(),
            top_guid: 1,
            tops: 1,
            members: BTreeSet::new(),
        };
        let legs = ["data-a1", "data-b1"].map(|name| Leg::new(name).unwrap());
        let said = |decision: Decision, mount, load_keys, failmode| -> Vec<String> {
            let options = Options { mount, load_keys, failmode };
            let commands = commands(legs.iter(), &newest, &decision, &options);
            commands.into_iter().map(|(it, words)| format!("{it} {}", words.join(" "))).collect()
        };
        let from = "-d /dev/mapper/data-a1 -d /dev/mapper/data-b1";
        let import = |words: &str| format!("zpool import -o cachefile=none{words} {from} 9");
        assert_eq!(said(Decision::Import, true, false, None), [import("")]);
        assert_eq!(said(Decision::Import, true, true, None), [import(" -N")]);
        assert_eq!(
            said(Decision::ImportByForce, false, false, Some("panic")),
            [import(" -f -N -o failmode=panic")]
        );
        assert_eq!(
            said(Decision::Reclaim, true, false, None),
            [format!("zhack {from} mmp reclaim tank"), import("")]
        );
    }
}
