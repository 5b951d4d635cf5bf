//! The pools on the legs, while they are imported here: the marks on the nodes whose legs miss writes, and the way back
//! of legs that have returned.

use crate::healing::{Doubt, Limit, Verdict, decide, doubts, is_proven, leg_of};
use crate::publish;
use hasan::config::Backend;
use hasan::legs::Leg;
use hasan::machine::{Follow, Machine};
use hasan::ocf::Fault;
use hasan::pacemaker::{self, Change, Cib, Condition, mark};
use hasan::zfs::{self, PoolState, Status, Vdev};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long the same legs must have been here before they are brought back: a link that flaps would
/// begin a resilver each time, and so would legs that arrive one after another.
const STABLE: Duration = Duration::from_secs(5);
/// Pause between two looks at a pool that is not well.
const LOOK: Duration = Duration::from_secs(3);
/// How long a leg may take to show its label.
const LABEL: Duration = Duration::from_secs(5);

/// What is kept of all pools.
#[derive(Default)]
pub(crate) struct Care {
    pools: BTreeMap<String, Pool>,
    events: Option<Follow>,
    presence: Presence,
    last_look: Option<Instant>,
}

/// The legs of the other node that are here.
#[derive(Default)]
struct Presence {
    legs: BTreeSet<Leg>,
    /// Since when it is these, if it is any.
    since: Option<Instant>,
}

impl Presence {
    fn note(&mut self, legs: &BTreeSet<Leg>, now: Instant) {
        if self.legs != *legs {
            self.since = (!legs.is_empty()).then_some(now);
            self.legs.clone_from(legs);
        }
    }

    fn is_stable(&self, now: Instant) -> bool {
        self.since.is_some_and(|since| now.saturating_duration_since(since) >= STABLE)
    }
}

/// What is kept of a pool while it is imported here.
#[derive(Default)]
struct Pool {
    /// Whether it needs a look: `zpool status` runs for such a pool alone.
    unwell: bool,
    /// Whether ZFS has told of something since the last look.
    news: bool,
    /// Nodes whose mark is known to be written, and how bad it is.
    marked: BTreeMap<String, Doubt>,
    /// The errors of each leg when the last scrub of ours began.
    scrubbed: Option<BTreeMap<String, u64>>,
    tries: Limit,
    /// How much of a resilver is done, percent, in tens, as it was published.
    resilvered: Option<u8>,
    /// What was logged, which is not said at each look anew.
    said: BTreeSet<String>,
}

impl Care {
    /// Marks the other node for every pool that is imported here, so that its legs may be let go; returns when the cluster
    /// has taken all of it.
    pub(crate) fn mark_for_release(
        &mut self,
        machine: &Machine,
        backend: &Backend,
    ) -> Result<(), Fault> {
        for (name, _) in imported(machine, backend)? {
            let pool = self.pools.entry(name.clone()).or_default();
            pool.unwell = true;
            pool.mark_for_release(machine, &name, &backend.peer.node)?;
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
        if imported.is_empty() {
            for (name, _) in self.pools.iter().filter(|(_, pool)| pool.resilvered.is_some()) {
                publish::resilvered(machine, name, None);
            }
            *self = Care { presence: std::mem::take(&mut self.presence), ..Care::default() };
            return Ok(());
        }
        let has_news = self.has_news(machine)?;
        let is_stable = self.presence.is_stable(Instant::now());
        let is_due = self.last_look.is_none_or(|last| last.elapsed() >= LOOK);
        for (name, state) in imported {
            let pool = self.pools.entry(name.clone()).or_default();
            pool.news |= has_news;
            pool.unwell |= has_news || state == PoolState::Degraded;
            if is_due && pool.unwell && (is_stable || pool.news) && state.is_usable() {
                self.last_look = Some(Instant::now());
                pool.look(machine, backend, &name, is_stable.then_some(here))?;
            }
        }
        Ok(())
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

/// Whether a line of `zpool events -H`, time and class, tells of errors or of a vdev's state. A slow I/O is neither.
fn is_news(line: &str) -> bool {
    let class = line.split('\t').nth(1).unwrap_or(line);
    !matches!(class, "ereport.fs.zfs.delay" | "ereport.fs.zfs.deadman")
        && (class.starts_with("ereport.") || class.starts_with("resource."))
}

impl Pool {
    /// Marks the other node before its legs are let go. A mark that is there is written all the same: only the cluster
    /// knows whether this node still has the pool, and its own copy may be old.
    fn mark_for_release(
        &mut self,
        machine: &Machine,
        name: &str,
        other: &str,
    ) -> Result<(), Fault> {
        let cib = pacemaker::cib(machine)?;
        let own = pacemaker::own_name(machine)?;
        if !mark::lets_other_go(cib.attribute(&own, &pacemaker::dirty_mark(name))) {
            return Err(Fault::generic(format!(
                "the legs of {own} miss writes that those of {other} have, which are lost: the I/O of {name} goes on \
                 waiting for {other}"
            )));
        }
        self.write_mark(machine, &cib, &own, name, other, Doubt::Misses)
    }

    /// Marks a node, unless that is known to be done.
    fn mark(
        &mut self,
        machine: &Machine,
        name: &str,
        node: &str,
        doubt: Doubt,
    ) -> Result<(), Fault> {
        if self.marked.get(node).is_some_and(|known| *known >= doubt) {
            return Ok(());
        }
        let cib = pacemaker::cib(machine)?;
        let before = cib.attribute(node, &pacemaker::dirty_mark(name));
        if before.is_some() && before == Some(&mark::text(before, "", doubt == Doubt::Wrong)) {
            return Ok(());
        }
        let own = pacemaker::own_name(machine)?;
        self.write_mark(machine, &cib, &own, name, node, doubt)
    }

    fn write_mark(
        &mut self,
        machine: &Machine,
        cib: &Cib,
        own: &str,
        name: &str,
        node: &str,
        doubt: Doubt,
    ) -> Result<(), Fault> {
        check_ownership(cib, own, name)?;
        let mark = pacemaker::dirty_mark(name);
        let value =
            mark::text(cib.attribute(node, &mark), &pacemaker::now(), doubt == Doubt::Wrong);
        let change = Change::Attribute { node, name: &mark, value: &value };
        cib.change(machine, own, Condition::Owner { pool: name }, &[change])?;
        tracing::warn!("{node} is marked: its legs of {name} miss writes, or may");
        self.marked.insert(node.to_string(), doubt);
        Ok(())
    }

    /// One look at the vdevs, and what follows from it. `here` are the other node's legs that are here to stay; while all are
    /// away, or some come and go, nothing is brought back.
    fn look(
        &mut self,
        machine: &Machine,
        backend: &Backend,
        name: &str,
        here: Option<&BTreeSet<Leg>>,
    ) -> Result<(), Fault> {
        self.news = false;
        let status = zfs::parse_status(&machine.run("zpool", &["status", "-p", name])?)?;
        let (own, other) = doubts(&status, backend);
        if own > Doubt::None {
            self.mark(machine, name, &pacemaker::own_name(machine)?, own)?;
        }
        if other > Doubt::None {
            self.mark(machine, name, &backend.peer.node, other)?;
        }
        // After the marks, which cannot wait.
        self.publish_progress(machine, name, &status);
        let Some(here) = here else { return Ok(()) };
        let legs: BTreeSet<&str> = backend.legs.keys().chain(here).map(Leg::name).collect();
        let foreign = foreign(machine, &legs, &status)?;
        let usable: BTreeSet<&str> = legs.difference(&foreign).copied().collect();
        let are_all = usable.len() == backend.legs.len() + backend.peer.legs.len();
        if !foreign.is_empty() {
            self.say(&advice(name, &foreign));
        }
        match decide(&status, &usable, are_all, self.scrubbed.as_ref()) {
            Verdict::BringBack(vdevs) if self.may_try(name) => bring_back(machine, name, &vdevs),
            Verdict::Scrub(errors) => self.scrub(machine, name, errors),
            Verdict::Clear => {
                tracing::info!("{name} was scrubbed, and all that it holds is right");
                machine.run("zpool", &["clear", name]).map(|_| ())
            }
            Verdict::Well => self.end(machine, backend, name, &status),
            Verdict::BringBack(_) | Verdict::Wait => Ok(()),
        }
    }

    /// In tens of percent: each change costs the cluster something.
    fn publish_progress(&mut self, machine: &Machine, name: &str, status: &Status) {
        let tens = status.resilvered.map(|percent| percent / 10 * 10);
        if tens != self.resilvered {
            publish::resilvered(machine, name, tens);
            self.resilvered = tens;
        }
    }

    fn scrub(
        &mut self,
        machine: &Machine,
        name: &str,
        errors: BTreeMap<String, u64>,
    ) -> Result<(), Fault> {
        if self.may_try(name) {
            tracing::warn!("legs of {name} may hold what is wrong ({errors:?}): it is scrubbed");
            machine.run("zpool", &["scrub", name])?;
            self.scrubbed = Some(errors);
        }
        Ok(())
    }

    /// All legs of both nodes have all writes, and the marks go, this node's too: it bears one if it took the pool over
    /// while its legs still missed some. A mark that asks for a scrub outlives the errors that ZFS has counted, and this
    /// daemon.
    fn end(
        &mut self,
        machine: &Machine,
        backend: &Backend,
        name: &str,
        status: &Status,
    ) -> Result<(), Fault> {
        let mark = pacemaker::dirty_mark(name);
        let cib = pacemaker::cib(machine)?;
        let own = pacemaker::own_name(machine)?;
        let marks = [&backend.peer.node, &own].map(|node| (node, cib.attribute(node, &mark)));
        let asks = marks.iter().any(|(_, mark)| mark.is_some_and(mark::asks_for_scrub));
        if asks && !is_proven(status, self.scrubbed.as_ref()) {
            return self.scrub(machine, name, BTreeMap::new());
        }
        for (node, _) in marks.iter().filter(|(_, mark)| mark.is_some()) {
            cib.remove(machine, &own, Condition::Owner { pool: name }, node, &mark)?;
            tracing::info!("{name} is well: the mark on {node} is removed");
        }
        *self = Pool { tries: std::mem::take(&mut self.tries), ..Pool::default() };
        Ok(())
    }

    fn may_try(&mut self, name: &str) -> bool {
        let may = self.tries.allows(Instant::now());
        if !may {
            self.say(&format!("legs of {name} fail again and again; look at: zpool status {name}"));
        }
        may
    }

    fn say(&mut self, text: &str) {
        if self.said.insert(text.to_string()) {
            tracing::error!("{text}");
        }
    }
}

/// Which of the legs that are here are not ONLINE, and their device carries no label of the pool: another disk, perhaps a
/// new one.
fn foreign<'a>(
    machine: &Machine,
    here: &BTreeSet<&str>,
    status: &'a Status,
) -> Result<BTreeSet<&'a str>, Fault> {
    let legs = status.vdevs.iter().filter(|vdev| here.contains(leg_of(vdev)));
    let (online, down): (Vec<&Vdev>, Vec<&Vdev>) = legs.partition(|vdev| vdev.state == "ONLINE");
    let Some(first) = online.first().filter(|_| !down.is_empty()) else {
        return Ok(BTreeSet::new());
    };
    let pool = pool_of(machine, leg_of(first))?;
    // One that cannot be read is not brought back either; ZFS would not take it.
    let is_foreign = |leg: &&str| pool_of(machine, leg).ok() != Some(pool);
    Ok(down.into_iter().map(leg_of).filter(is_foreign).collect())
}

/// The GUID of the pool in a leg's label; `None` if it carries no label. A leg whose path is lost just now answers when
/// the watch has let it go, so the watch must not wait for it.
fn pool_of(machine: &Machine, leg: &str) -> Result<Option<u64>, Fault> {
    let (sender, label) = mpsc::channel();
    let (machine, device) = (machine.with_time(LABEL), Path::new("/dev/mapper").join(leg));
    std::thread::spawn(move || sender.send(zfs::read_label(&machine, &device)));
    let silent = |_| Fault::generic(format!("the leg {leg} does not answer"));
    let label = label.recv_timeout(LABEL).map_err(silent)??;
    Ok(label.map(|label| label.pool_guid))
}

/// What a person can do about legs that carry no label of the pool.
fn advice(pool: &str, foreign: &BTreeSet<&str>) -> String {
    let legs = foreign.iter().copied().collect::<Vec<_>>().join(", ");
    let first = foreign.first().copied().unwrap_or_default();
    format!(
        "{legs} cannot be read, or is another disk than {pool} had; for a new disk: zpool replace {pool} {first}"
    )
}

/// A node that was taken for dead and wakes up must not go on alone: by then the pool is another's.
fn check_ownership(cib: &Cib, own: &str, pool: &str) -> Result<(), Fault> {
    match cib.owner(pool)? {
        Some(record) if record.node == own => Ok(()),
        Some(record) => Err(Fault::generic(format!(
            "the pool {pool} is imported here, but by the cluster's record {} has it: its I/O goes on \
             waiting",
            record.node
        ))),
        None => Err(Fault::generic(format!(
            "the cluster has no record of who has the pool {pool}, so its I/O goes on waiting; if this \
             node has it: {}",
            pacemaker::Owner::command(pool, own)
        ))),
    }
}

fn bring_back(machine: &Machine, pool: &str, names: &[String]) -> Result<(), Fault> {
    let mut arguments = vec!["online", pool];
    arguments.extend(names.iter().map(String::as_str));
    tracing::info!("bringing back {} of {pool}", names.join(", "));
    machine.run("zpool", &arguments)?;
    for name in names {
        machine.run("zpool", &["clear", pool, name])?;
    }
    Ok(())
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
mod tests {
    use super::*;

    #[test]
    fn legs_are_stable_when_they_have_been_the_same_for_a_while() {
        let legs = |names: &[&str]| names.iter().map(|name| Leg::new(name).unwrap()).collect();
        let (start, mut presence) = (Instant::now(), Presence::default());
        for (second, here, want) in [
            (0, &[][..], false),
            (9, &[], false),
            (10, &["b1"], false),
            (14, &["b1"], false),
            (15, &["b1"], true),
            (16, &["b1", "b2"], false),
            (21, &["b1", "b2"], true),
            (22, &["b2"], false),
            (27, &["b2"], true),
            (28, &[], false),
            (40, &[], false),
        ] {
            let now = start + Duration::from_secs(second);
            presence.note(&legs(here), now);
            assert_eq!(presence.is_stable(now), want, "{second}: {here:?}");
        }
    }

    #[test]
    fn errors_and_changes_are_news() {
        for (line, want) in [
            ("Nov 21 2026 13:00:00.1\tereport.fs.zfs.io", true),
            ("Nov 21 2026 13:00:00.1\tereport.fs.zfs.checksum", true),
            ("Nov 21 2026 13:00:00.1\tresource.fs.zfs.statechange", true),
            ("Nov 21 2026 13:00:00.1\tereport.fs.zfs.delay", false),
            ("Nov 21 2026 13:00:00.1\tsysevent.fs.zfs.history_event", false),
        ] {
            assert_eq!(is_news(line), want, "{line}");
        }
    }

    #[test]
    fn a_new_disk_is_named_with_the_command() {
        assert!(advice("p", &BTreeSet::from(["b1", "b2"])).ends_with(": zpool replace p b1"));
    }
}
