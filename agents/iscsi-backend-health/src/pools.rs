//! The pools on the legs, while they are imported here: what is known of each, and the way back of legs that have
//! returned. Nothing here waits for ZFS.

use crate::aside::{self, Seen};
use crate::healing::{Doubt, Limit, Verdict, decide, doubts, is_proven, leg_of};
use crate::marks::Marks;
use crate::presence::Presence;
use crate::publish;
use crate::said::Said;
use hasan::aside::Aside;
use hasan::config::Backend;
use hasan::legs::Leg;
use hasan::machine::{Follow, Machine};
use hasan::ocf::Fault;
use hasan::pacemaker::{self, Condition, mark};
use hasan::zfs::{self, PoolState, Status};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Pause between two looks at a pool that is not well.
const LOOK: Duration = Duration::from_secs(3);

/// How long a pool has to look well before its marks go. A resilver that an import asks for begins some transaction groups
/// after it (`spa_load`, `SPA_ASYNC_RESILVER`), five seconds each (`zfs_txg_timeout`); until then ZFS shows legs that miss
/// writes as ONLINE, and no scan.
const SETTLED: Duration = Duration::from_secs(30);

/// How long ZFS may take to say how this node's legs are, while a lost leg of the other one holds I/O up.
const OWN: Duration = Duration::from_secs(20);

/// What is kept of all pools.
#[derive(Default)]
pub(crate) struct Care {
    pools: BTreeMap<String, Pool>,
    events: Option<Follow>,
    presence: Presence,
    last_look: Option<Instant>,
}

/// What is kept of a pool while it is imported here.
#[derive(Default)]
struct Pool {
    /// Whether it needs a look: `zpool status` runs for such a pool alone.
    unwell: bool,
    /// Whether ZFS has told of something since the last look began.
    news: bool,
    marks: Marks,
    look: Option<Look>,
    /// Since when each look has found it well.
    well_since: Option<Instant>,
    /// What is being done to it. A scrub that has begun ends with the errors that each leg had before.
    change: Option<Aside<Option<Errors>>>,
    /// The errors of each leg when the last scrub of ours began.
    scrubbed: Option<Errors>,
    tries: Limit,
    /// How much of a resilver is done, percent, in tens, as it was published; `None` if an earlier watch may have published
    /// something.
    resilvered: Option<Option<u8>>,
    said: Said,
}

type Errors = BTreeMap<String, u64>;

/// A look at the vdevs that is being taken.
struct Look {
    seen: Aside<Seen>,
    /// The other node's legs that were here to stay when it began.
    here: Option<BTreeSet<Leg>>,
}

impl Care {
    /// Marks the other node for every pool that is imported here, so that its legs may be let go; returns when the cluster
    /// has taken all of it. While a leg of this node has missed writes, or may have, nothing is let go: those of the other node
    /// have them.
    pub(crate) fn mark_for_release(
        &mut self,
        machine: &Machine,
        backend: &Backend,
    ) -> Result<(), Fault> {
        let has_news = self.has_news(machine)?;
        for (name, _) in imported(machine, backend)? {
            let pool = self.pools.entry(name.clone()).or_insert_with(Pool::arrived);
            pool.news |= has_news;
            pool.mark_own(machine, backend, &name)?;
            pool.disbelieve();
            pool.marks.mark_for_release(machine, &name, &backend.peer.node)?;
        }
        Ok(())
    }

    /// Looks after the pools. `here` are the legs of the other node that may be used. Of two that were lost one may return
    /// alone: it is half of what is missing.
    pub(crate) fn pass(
        &mut self,
        machine: &Machine,
        backend: &Backend,
        here: &BTreeSet<Leg>,
    ) -> Result<(), Fault> {
        self.presence.note(here, Instant::now());
        let imported = imported(machine, backend)?;
        self.forget_all_but(machine, &imported);
        if imported.is_empty() {
            self.events = None;
            return Ok(());
        }
        let has_news = self.has_news(machine)?;
        let here = self.presence.is_stable(Instant::now()).then_some(here);
        let is_due = self.last_look.is_none_or(|last| last.elapsed() >= LOOK);
        for (name, state) in imported {
            let pool = self.pools.entry(name.clone()).or_insert_with(Pool::arrived);
            pool.news |= has_news;
            pool.unwell |= has_news || state == PoolState::Degraded;
            // A suspended pool is looked at, so that its marks are right, and left as it is.
            let here = here.filter(|_| state.is_usable());
            if let Err(fault) = pool.attend(machine, backend, &name, here) {
                pool.said.error(&fault.reason);
            }
            if is_due && pool.needs_look(here) {
                self.last_look = Some(Instant::now());
                pool.begin_look(machine, backend, &name, here);
            }
        }
        Ok(())
    }

    /// What was known of a pool that has left is not true of one that returns: its marks may be gone meanwhile.
    fn forget_all_but(&mut self, machine: &Machine, imported: &[(String, PoolState)]) {
        self.pools.retain(|name, pool| {
            let is_here = imported.iter().any(|(other, _)| other == name);
            if !is_here && pool.resilvered.flatten().is_some() {
                publish::resilvered(machine, name, None);
            }
            is_here
        });
    }

    /// Whether ZFS has told of an error or of a change. A daemon that has just begun does not know what it missed.
    fn has_news(&mut self, machine: &Machine) -> Result<bool, Fault> {
        match self.events.as_mut().map(Follow::lines) {
            Some(Some(lines)) => Ok(lines.iter().any(|line| is_news(line))),
            _ => {
                self.events = Some(machine.follow("zpool", &["events", "-f", "-H"])?);
                Ok(true)
            }
        }
    }
}

/// Whether a line of `zpool events -H`, time and class, tells of errors, of a vdev's state, or of legs that miss writes. A
/// slow I/O is none of these. What the kernel had no room for may be any of them ("dropped N events", `zpool_main.c`,
/// `zpool_do_events_next`; `zfs_zevent_len_max`).
fn is_news(line: &str) -> bool {
    if line.starts_with("dropped ") {
        return true;
    }
    let class = line.split('\t').nth(1).unwrap_or(line);
    let is_resilver =
        matches!(class, "sysevent.fs.zfs.resilver_start" | "sysevent.fs.zfs.vdev_attach");
    is_resilver
        || !matches!(class, "ereport.fs.zfs.delay" | "ereport.fs.zfs.deadman")
            && (class.starts_with("ereport.") || class.starts_with("resource."))
}

impl Pool {
    /// One that has just come, or that the watch has just found: nobody knows what it was told of it.
    fn arrived() -> Pool {
        Pool { news: true, unwell: true, ..Pool::default() }
    }

    /// Marks this node if a leg of its own has missed writes. ZFS has told of that before it acknowledged the first one; what it
    /// has told since the last look is looked at first.
    fn mark_own(&mut self, machine: &Machine, backend: &Backend, name: &str) -> Result<(), Fault> {
        if !self.news && self.look.is_none() {
            return Ok(());
        }
        let pool = name.to_string();
        let status = Aside::begin(machine, move |machine| aside::status(machine, &pool));
        let silent = || {
            Fault::generic(format!(
                "ZFS does not say whether the legs of this node have all writes of {name}: its I/O goes on waiting"
            ))
        };
        let status = status.result_within(OWN).ok_or_else(silent)??;
        self.mark(machine, backend, name, &status)
    }

    /// What was seen of the pool, and what a look will see that has begun, is not true any more.
    fn disbelieve(&mut self) {
        self.look = None;
        self.well_since = None;
        self.news = true;
        self.unwell = true;
    }

    /// Takes up what goes on beside the watch, as far as it has ended.
    fn attend(
        &mut self,
        machine: &Machine,
        backend: &Backend,
        name: &str,
        here: Option<&BTreeSet<Leg>>,
    ) -> Result<(), Fault> {
        if let Some(result) = self.change.as_ref().and_then(Aside::result) {
            self.change = None;
            let begun = result?;
            self.scrubbed = begun.or(self.scrubbed.take());
        }
        let Some(result) = self.look.as_ref().and_then(|look| look.seen.result()) else {
            return Ok(());
        };
        let began_with = self.look.take().and_then(|look| look.here);
        let seen = result.inspect_err(|_| self.news = true)?;
        // What could not be marked is looked at again.
        self.mark(machine, backend, name, &seen.status).inspect_err(|_| self.news = true)?;
        // After the marks, which cannot wait.
        self.publish_progress(machine, name, &seen.status);
        match here {
            Some(here) if began_with.as_ref() == Some(here) => {
                self.judge(machine, backend, name, &seen, here)
            }
            _ => Ok(()),
        }
    }

    /// While all legs of the other node are away, or some come and go, only news are worth a look.
    fn needs_look(&self, here: Option<&BTreeSet<Leg>>) -> bool {
        let is_busy = self.look.is_some() || self.change.is_some();
        self.unwell && !is_busy && (here.is_some() || self.news)
    }

    fn begin_look(
        &mut self,
        machine: &Machine,
        backend: &Backend,
        name: &str,
        here: Option<&BTreeSet<Leg>>,
    ) {
        self.news = false;
        let legs = backend.legs.keys().chain(here.into_iter().flatten()).cloned().collect();
        let (pool, backend) = (name.to_string(), backend.clone());
        let seen =
            Aside::begin(machine, move |machine| aside::look(machine, &backend, &pool, &legs));
        self.look = Some(Look { seen, here: here.cloned() });
    }

    fn mark(
        &mut self,
        machine: &Machine,
        backend: &Backend,
        name: &str,
        status: &Status,
    ) -> Result<(), Fault> {
        let (own, other) = doubts(status, backend);
        if own > Doubt::None {
            self.marks.mark(machine, name, &pacemaker::own_name(machine)?, own)?;
        }
        if other > Doubt::None {
            self.marks.mark(machine, name, &backend.peer.node, other)?;
        }
        Ok(())
    }

    /// What follows from a look. `here` are the other node's legs that are here to stay, and were when it began.
    fn judge(
        &mut self,
        machine: &Machine,
        backend: &Backend,
        name: &str,
        seen: &Seen,
        here: &BTreeSet<Leg>,
    ) -> Result<(), Fault> {
        let legs = backend.legs.keys().chain(here).map(Leg::name);
        let usable: BTreeSet<&str> = legs.filter(|leg| !seen.foreign.contains(*leg)).collect();
        let are_all = are_all(backend, &seen.status, &usable);
        if !seen.foreign.is_empty() {
            self.said.error(&advice(name, &seen.foreign));
        }
        let verdict = decide(&seen.status, &usable, are_all, self.scrubbed.as_ref());
        let is_settled = self.is_settled(&verdict, Instant::now());
        match verdict {
            Verdict::BringBack(vdevs) => self.bring_back(machine, name, vdevs),
            Verdict::Scrub(errors) => self.scrub(machine, name, errors),
            // What has happened since may be another error.
            Verdict::Clear | Verdict::Well if self.news => {}
            Verdict::Clear => self.clear(machine, name),
            Verdict::Well if !is_settled => {}
            Verdict::Well => return self.end(machine, backend, name, seen),
            Verdict::Wait => {}
        }
        Ok(())
    }

    /// Whether the pool has been well for so long that no resilver is to come.
    fn is_settled(&mut self, verdict: &Verdict, now: Instant) -> bool {
        if self.news || *verdict != Verdict::Well {
            self.well_since = None;
            return false;
        }
        let since = *self.well_since.get_or_insert(now);
        now.saturating_duration_since(since) >= SETTLED
    }

    /// In tens of percent: each change costs the cluster something.
    fn publish_progress(&mut self, machine: &Machine, name: &str, status: &Status) {
        let tens = status.resilvered.map(|percent| percent / 10 * 10);
        if self.resilvered != Some(tens) {
            publish::resilvered(machine, name, tens);
            self.resilvered = Some(tens);
        }
    }

    fn bring_back(&mut self, machine: &Machine, name: &str, vdevs: Vec<String>) {
        if self.may_try(name) {
            tracing::info!("bringing back {} of {name}", vdevs.join(", "));
            self.change(machine, name, move |machine, pool| {
                aside::bring_back(machine, pool, &vdevs).map(|()| None)
            });
        }
    }

    fn scrub(&mut self, machine: &Machine, name: &str, errors: Errors) {
        if self.may_try(name) {
            tracing::warn!("legs of {name} may hold what is wrong ({errors:?}): it is scrubbed");
            self.change(machine, name, move |machine, pool| {
                machine.run("zpool", &["scrub", pool]).map(|_| Some(errors))
            });
        }
    }

    fn clear(&mut self, machine: &Machine, name: &str) {
        tracing::info!("{name} was scrubbed, and all that it holds is right");
        self.change(machine, name, |machine, pool| {
            machine.run("zpool", &["clear", pool]).map(|_| None)
        });
    }

    fn change(
        &mut self,
        machine: &Machine,
        name: &str,
        work: impl FnOnce(&Machine, &str) -> Result<Option<Errors>, Fault> + Send + 'static,
    ) {
        let pool = name.to_string();
        self.change = Some(Aside::begin(machine, move |machine| work(machine, &pool)));
    }

    /// All legs of both nodes have all writes, and the marks go, this node's too: it bears one if it took the pool over
    /// while its legs still missed some. A mark that asks for a scrub outlives the errors that ZFS has counted, and this
    /// daemon. One stays while a leg of its node may hold the pool as it was.
    fn end(
        &mut self,
        machine: &Machine,
        backend: &Backend,
        name: &str,
        seen: &Seen,
    ) -> Result<(), Fault> {
        let mark = pacemaker::dirty_mark(name);
        let cib = pacemaker::cib(machine)?;
        let own = pacemaker::own_name(machine)?;
        let marks = [&backend.peer.node, &own].map(|node| (node, cib.attribute(node, &mark)));
        let asks = marks.iter().any(|(_, mark)| mark.is_some_and(mark::asks_for_scrub));
        if asks && !is_proven(&seen.status, self.scrubbed.as_ref()) {
            self.scrub(machine, name, Errors::new());
            return Ok(());
        }
        for (node, _) in marks.iter().filter(|(_, mark)| mark.is_some()) {
            if let Some(stray) = stray_of(backend, &seen.strays, *node == &own) {
                self.said.error(&old_half(name, stray, node));
                return Ok(());
            }
            cib.remove(machine, &own, Condition::Owner { pool: name }, node, &mark)?;
            tracing::info!("{name} is well: the mark on {node} is removed");
        }
        let (tries, resilvered) = (std::mem::take(&mut self.tries), self.resilvered);
        *self = Pool { tries, resilvered, ..Pool::default() };
        Ok(())
    }

    fn may_try(&mut self, name: &str) -> bool {
        let may = self.tries.allows(Instant::now());
        if !may {
            self.said.error(&format!(
                "legs of {name} fail again and again; look at: zpool status {name}"
            ));
        }
        may
    }
}

/// Whether all of the legs that are the pool's can be used. Others may be another pool's, or not be used yet.
fn are_all(backend: &Backend, status: &Status, usable: &BTreeSet<&str>) -> bool {
    let is_leg = |name: &&str| {
        let mut legs = backend.legs.keys().chain(&backend.peer.legs);
        legs.any(|leg| leg.name() == *name)
    };
    status.vdevs.iter().map(leg_of).filter(is_leg).all(|leg| usable.contains(leg))
}

/// A leg of this node, or of the other one, that may hold the pool as it was.
fn stray_of<'a>(backend: &Backend, strays: &'a BTreeSet<Leg>, own: bool) -> Option<&'a Leg> {
    strays.iter().find(|leg| backend.peer.legs.contains(leg) != own)
}

fn old_half(pool: &str, leg: &Leg, node: &str) -> String {
    format!(
        "{pool} is well without {leg}, which may hold old data of it: {node} stays marked; bring it here and attach it, or \
         wipe it (zpool labelclear), or take it out of the configuration"
    )
}

/// What a person can do about legs that carry no label of the pool.
fn advice(pool: &str, foreign: &BTreeSet<String>) -> String {
    let legs = foreign.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let first = foreign.first().map_or("", String::as_str);
    format!(
        "{legs} cannot be read, or is another disk than {pool} had; for a new disk: zpool replace {pool} {first}"
    )
}

/// The pools of ours that are imported here, and the state of each.
pub(crate) fn imported(
    machine: &Machine,
    backend: &Backend,
) -> Result<Vec<(String, PoolState)>, Fault> {
    let mut pools = Vec::new();
    for pool in &backend.pools {
        pools.extend(zfs::pool_state(machine, pool)?.map(|state| (pool.clone(), state)));
    }
    Ok(pools)
}

#[cfg(test)]
#[path = "pools_tests.rs"]
mod tests;
