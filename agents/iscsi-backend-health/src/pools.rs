//! The pools on the legs, while they are imported here: the mark on the other node while its legs
//! miss writes, and the way back of legs that have returned.

use hasan::config::Backend;
use hasan::legs::Leg;
use hasan::machine::Machine;
use hasan::ocf::Fault;
use hasan::pacemaker;
use hasan::zfs::{self, PoolState, Status};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How long all legs must have been here before they are brought back: a link that flaps would
/// begin a resilver each time.
const STABLE: Duration = Duration::from_secs(5);
/// Pause between two looks at a pool that is not well.
const LOOK: Duration = Duration::from_secs(3);

#[derive(Default)]
pub(crate) struct Care {
    /// Pools that need a look: `zpool status` runs for them alone.
    unwell: BTreeSet<String>,
    /// Pools whose mark on the other node is known to be written.
    marked: BTreeSet<String>,
    /// Since when all legs of the other node have been here.
    all_here_since: Option<Instant>,
    last_look: Option<Instant>,
    has_begun: bool,
}

/// What to do about a pool that needs a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Bring these legs back: `zpool online`, `zpool clear`.
    BringBack(Vec<String>),
    /// Something runs, or waits for a person.
    Wait,
    /// All legs have all writes.
    Well,
}

impl Care {
    /// Whether any pool of ours is imported here.
    pub(crate) fn is_any_imported(
        &self,
        machine: &Machine,
        backend: &Backend,
    ) -> Result<bool, Fault> {
        Ok(!imported(machine, backend)?.is_empty())
    }

    /// Marks the other node for every pool that is imported here; returns when the cluster has
    /// taken all of it.
    pub(crate) fn mark(&mut self, machine: &Machine, backend: &Backend) -> Result<(), Fault> {
        for (pool, _) in imported(machine, backend)? {
            self.unwell.insert(pool.clone());
            if self.marked.contains(&pool) {
                continue;
            }
            check_ownership(machine, &pool)?;
            let name = pacemaker::dirty_mark(&pool);
            pacemaker::set_attribute(machine, &backend.peer.node, &name, &pacemaker::now())?;
            tracing::warn!("{} is marked: its legs of {pool} miss writes", backend.peer.node);
            self.marked.insert(pool);
        }
        Ok(())
    }

    /// Looks after the pools. `all_here` says whether every leg of the other node is here.
    pub(crate) fn pass(
        &mut self,
        machine: &Machine,
        backend: &Backend,
        all_here: bool,
    ) -> Result<(), Fault> {
        self.all_here_since = all_here.then(|| self.all_here_since.unwrap_or_else(Instant::now));
        let pools = imported(machine, backend)?;
        for (pool, state) in &pools {
            // A daemon that has just begun does not know what it missed.
            if *state == PoolState::Degraded || !self.has_begun {
                self.unwell.insert(pool.clone());
            }
        }
        self.has_begun |= !pools.is_empty();
        if pools.is_empty() {
            *self = Care { all_here_since: self.all_here_since, ..Care::default() };
        }
        let is_stable = self.all_here_since.is_some_and(|since| since.elapsed() >= STABLE);
        let is_due = self.last_look.is_none_or(|last| last.elapsed() >= LOOK);
        if !is_stable || !is_due {
            return Ok(());
        }
        for (pool, _) in pools.into_iter().filter(|(_, state)| state.is_usable()) {
            if self.unwell.contains(&pool) {
                self.last_look = Some(Instant::now());
                self.look(machine, backend, &pool)?;
            }
        }
        Ok(())
    }

    fn look(&mut self, machine: &Machine, backend: &Backend, pool: &str) -> Result<(), Fault> {
        let status = zfs::parse_status(&machine.run("zpool", &["status", "-p", pool])?)?;
        let legs: BTreeSet<&str> =
            backend.legs.keys().chain(&backend.peer.legs).map(Leg::name).collect();
        match decide(&status, &legs) {
            Verdict::BringBack(names) => bring_back(machine, pool, &names),
            Verdict::Wait => Ok(()),
            Verdict::Well => {
                unmark(machine, backend, pool)?;
                self.unwell.remove(pool);
                self.marked.remove(pool);
                Ok(())
            }
        }
    }
}

/// A node that was taken for dead and wakes up must not go on alone: by then the pool is another's.
fn check_ownership(machine: &Machine, pool: &str) -> Result<(), Fault> {
    let own = pacemaker::own_name(machine)?;
    match pacemaker::cib(machine)?.owner(pool)? {
        Some(record) if record.node == own => Ok(()),
        Some(record) => Err(Fault::generic(format!(
            "the pool {pool} is imported here, but by the cluster's record {} has it: its I/O goes on \
             waiting",
            record.node
        ))),
        None => Err(Fault::generic(format!(
            "the cluster has no record of who has the pool {pool}, so its I/O goes on waiting; if this \
             node has it: {}",
            pacemaker::Owner::command(pool, &own)
        ))),
    }
}

/// All legs of both nodes have all writes. The own node bears a mark if it took the pool over while
/// its legs still missed some.
fn unmark(machine: &Machine, backend: &Backend, pool: &str) -> Result<(), Fault> {
    let mark = pacemaker::dirty_mark(pool);
    let cib = pacemaker::cib(machine)?;
    let own = pacemaker::own_name(machine)?;
    for node in [&backend.peer.node, &own] {
        if cib.attribute(node, &mark).is_some() {
            pacemaker::remove_attribute(machine, node, &mark)?;
            tracing::info!("{pool} is well: the mark on {node} is removed");
        }
    }
    Ok(())
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

/// A leg that is ONLINE with errors is left to a person: its content is in doubt.
fn decide(status: &Status, legs: &BTreeSet<&str>) -> Verdict {
    // A leg that was not there at the import goes by its GUID, and ZFS says where it was.
    let is_leg = |vdev: &zfs::Vdev| {
        let was = vdev.was.as_deref().and_then(|path| path.strip_prefix("/dev/mapper/"));
        legs.contains(was.unwrap_or(&vdev.name))
    };
    let down: Vec<String> = status
        .vdevs
        .iter()
        .filter(|vdev| is_leg(vdev) && vdev.state != "ONLINE")
        .map(|vdev| vdev.name.clone())
        .collect();
    if !down.is_empty() {
        return Verdict::BringBack(down);
    }
    let is_well = |vdev: &zfs::Vdev| vdev.state == "ONLINE" && vdev.errors == 0;
    if !status.resilvering && status.vdevs.iter().all(is_well) {
        Verdict::Well
    } else {
        Verdict::Wait
    }
}

fn imported(machine: &Machine, backend: &Backend) -> Result<Vec<(String, PoolState)>, Fault> {
    let mut pools = Vec::new();
    for pool in &backend.pools {
        pools.extend(zfs::pool_state(machine, pool)?.map(|state| (pool.clone(), state)));
    }
    Ok(pools)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hasan::zfs::Vdev;

    fn vdev(name: &str, state: &str, errors: u64) -> Vdev {
        Vdev { name: name.to_string(), was: None, state: state.to_string(), errors }
    }

    #[test]
    fn what_a_look_leads_to() {
        let legs = BTreeSet::from(["a1", "b1"]);
        let back = |name: &str| Verdict::BringBack(vec![name.to_string()]);
        for (resilvering, a1, b1, want) in [
            (false, ("ONLINE", 0), ("ONLINE", 0), Verdict::Well),
            (true, ("ONLINE", 0), ("ONLINE", 0), Verdict::Wait),
            (false, ("ONLINE", 0), ("ONLINE", 4), Verdict::Wait),
            (false, ("ONLINE", 0), ("FAULTED", 4), back("b1")),
            (false, ("OFFLINE", 0), ("ONLINE", 0), back("a1")),
        ] {
            let vdevs = vec![vdev("a1", a1.0, a1.1), vdev("b1", b1.0, b1.1)];
            assert_eq!(decide(&Status { resilvering, vdevs }, &legs), want);
        }
        let mut absent = vdev("15359", "UNAVAIL", 0);
        absent.was = Some("/dev/mapper/b1".to_string());
        let status = Status { resilvering: false, vdevs: vec![absent.clone()] };
        assert_eq!(decide(&status, &legs), back("15359"));
        absent.was = Some("/dev/sdx".to_string());
        let status = Status { resilvering: false, vdevs: vec![absent] };
        assert_eq!(decide(&status, &legs), Verdict::Wait);
        let foreign = vec![vdev("sdx", "FAULTED", 1)];
        assert_eq!(decide(&Status { resilvering: false, vdevs: foreign }, &legs), Verdict::Wait);
    }
}
