//! One pass of the watch: observe, plan, apply.

use crate::notify::{ALIVE, notify};
use crate::plan::{self, Actual, Memory, Step, plan};
use crate::pools;
use crate::said::Said;
use crate::standing::Standing;
use hasan::config::{Backend, Peer};
use hasan::flow::Flow;
use hasan::iscsi::{self, Disk, SessionState};
use hasan::legs::{self, Leg, Map, Role};
use hasan::machine::Machine;
use hasan::ocf::Fault;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Pause between two tries to log in: the peer may be down for long.
const LOGIN_PAUSE: Duration = Duration::from_secs(3);
/// Pause between two questions for LUNs that are missing.
const SCAN_PAUSE: Duration = Duration::from_secs(15);
/// Pause between two starts of the initiator's daemon, which mostly runs: the other node may be down for long.
const DAEMON_PAUSE: Duration = Duration::from_secs(60);
/// Time to change the cluster's configuration and to see that it is changed: seven programs, of a cluster that has just lost a
/// node. I/O waits for it, and to begin anew would take longer.
const CLUSTER: Duration = Duration::from_secs(90);

/// How a pass goes on after a step.
enum Then {
    GoOn,
    /// Not at all: there is something new to see.
    LookAgain,
}

/// What lives from one pass to the next. All of it can be lost: a new watch finds it again.
#[derive(Default)]
pub(crate) struct Watch {
    memory: Memory,
    flow: Flow,
    pools: pools::Care,
    standing: Standing,
    last_login: Option<Instant>,
    last_scan: Option<Instant>,
    last_start: Option<Instant>,
    said: Said,
}

impl Watch {
    /// Does one pass. What fails is logged and tried again in the next one.
    pub(crate) fn pass(&mut self, machine: &Machine, backend: &Backend) {
        if let Err(fault) = self.try_pass(machine, backend) {
            self.said.error(&fault.reason);
        }
    }

    fn try_pass(&mut self, machine: &Machine, backend: &Backend) -> Result<(), Fault> {
        let sessions = iscsi::observe(machine, &backend.peer.iqn)?;
        let has_session = sessions.iter().any(|session| session.state == SessionState::LoggedIn);
        let maps = legs::observe(machine)?;
        let mut actual = Actual { sessions, maps, still: BTreeMap::new() };
        actual.still = still(&mut self.flow, &actual, Instant::now());
        self.memory.forget_refused(&actual, Instant::now());
        self.memory.note_sessions(&actual, Instant::now());
        for leg in legs::are_let_go(machine)? {
            self.memory.in_use.remove(&leg);
        }
        for step in plan(backend, &actual, &self.memory) {
            match self.apply(machine, backend, &step) {
                Ok(Then::GoOn) => {}
                // What follows was planned without the session's disks.
                Ok(Then::LookAgain) => break,
                Err(fault) => self.said.error(&fault.reason),
            }
        }
        // Legs first: without a cluster the questions to it fail.
        if let Err(fault) = self.standing.publish(machine, backend, has_session) {
            tracing::debug!("{}", fault.reason);
        }
        // While the other node is shut out it may have the pool on its legs still.
        let is_shut_out =
            self.standing.is_peer_shut_out(machine, backend).unwrap_or_else(|fault| {
                self.said.error(&fault.reason);
                true
            });
        let nothing = BTreeSet::new();
        let here = if is_shut_out { &nothing } else { &self.memory.in_use };
        notify(ALIVE);
        self.pools.pass(&machine.with_time(CLUSTER), backend, here)
    }

    fn apply(&mut self, machine: &Machine, backend: &Backend, step: &Step) -> Result<Then, Fault> {
        match step {
            Step::Login => return self.login(machine, backend),
            Step::StartDaemon => self.start_daemon(machine, backend)?,
            Step::SetRecoveryTimeout(session) => iscsi::set_recovery_timeout(machine, session)?,
            Step::OtherNoop([interval, timeout]) => self.said.error(&format!(
                "the session with {0} was not made by hasan: a lost link would be noticed late (asked each {interval} s, for \
                 {timeout} s); when the pool is elsewhere: iscsiadm -m node -T {0} --logout",
                backend.peer.iqn
            )),
            // What it is now is for the next pass.
            Step::MakeMap(_, disk) | Step::ExchangePath(_, disk) | Step::ReinstatePath(_, disk)
                if !is_as_it_was(machine, disk)? => {}
            Step::MakeMap(leg, disk) => {
                legs::make_remote(machine, leg, &disk.block, disk.sectors)?;
                self.arrived(leg, "is here");
            }
            Step::ExchangePath(leg, disk) => {
                // One that is cut off may leave the new table loaded, which looks like an exchange, and the old one in use.
                self.memory.in_use.remove(leg);
                legs::exchange_path(machine, leg, &disk.block, disk.sectors)?;
                self.arrived(leg, "is here under another device");
            }
            Step::ReinstatePath(leg, disk) => self.reinstate(machine, leg, disk)?,
            Step::RetryPath(leg, disk) => retry(machine, leg, disk)?,
            Step::GiveUp(leg) => self.give_up(machine, backend, leg)?,
            Step::Refuse(leg, disk, map) => self.refuse(machine, leg, disk, map)?,
            Step::PathsLost(legs) => self.paths_lost(machine, backend, legs)?,
            Step::Scan(session) => self.scan(machine, session)?,
        }
        Ok(Then::GoOn)
    }

    fn login(&mut self, machine: &Machine, backend: &Backend) -> Result<Then, Fault> {
        if self.last_login.is_some_and(|last| last.elapsed() < LOGIN_PAUSE) {
            return Ok(Then::GoOn);
        }
        let result = log_in(machine, backend);
        // A login that fails takes its time, and the pause begins behind it.
        self.last_login = Some(Instant::now());
        result.map(|()| Then::LookAgain)
    }

    fn scan(&mut self, machine: &Machine, session: &str) -> Result<(), Fault> {
        if self.last_scan.is_some_and(|last| last.elapsed() < SCAN_PAUSE) {
            return Ok(());
        }
        let result = iscsi::scan(machine, session);
        self.last_scan = Some(Instant::now());
        result
    }

    /// Where it runs this does nothing. It is not waited for.
    fn start_daemon(&mut self, machine: &Machine, backend: &Backend) -> Result<(), Fault> {
        if self.last_start.is_some_and(|last| last.elapsed() < DAEMON_PAUSE) {
            return Ok(());
        }
        self.last_start = Some(Instant::now());
        self.said.error(&format!(
            "the session with {} has been lost for a minute or more; if {} is up: systemctl restart iscsid",
            backend.peer.iqn, backend.peer.node
        ));
        machine.run("systemctl", &["start", "--no-block", "iscsid.service"]).map(|_| ())
    }

    fn reinstate(&mut self, machine: &Machine, leg: &Leg, disk: &Disk) -> Result<(), Fault> {
        // An exchange of the path that was cut off leaves a map that knows this disk and does not use it.
        legs::reinstate_path(machine, leg, &disk.numbers)
            .or_else(|_| legs::exchange_path(machine, leg, &disk.block, disk.sectors))?;
        self.arrived(leg, "is back");
        Ok(())
    }

    /// Each error of the disk is one of the path to dm-multipath, which lets the I/O wait. ZFS goes on without the leg, and
    /// knows what the leg misses.
    fn give_up(&mut self, machine: &Machine, backend: &Backend, leg: &Leg) -> Result<(), Fault> {
        // One that takes its time is for SCSI's own timeouts.
        if !legs::has_path_failed(machine, leg)? {
            return Ok(());
        }
        self.memory.failing.insert(leg.clone(), Instant::now());
        tracing::error!(
            "leg {leg} is not used: its disk in {} fails I/O; replace it",
            backend.peer.node
        );
        self.paths_lost(machine, backend, std::slice::from_ref(leg))
    }

    fn refuse(
        &mut self,
        machine: &Machine,
        leg: &Leg,
        disk: &Disk,
        map: &Map,
    ) -> Result<(), Fault> {
        // The kernel's size of it may be old.
        if iscsi::reread(machine, disk)?.map(|now| now.sectors) != Some(disk.sectors) {
            return Ok(());
        }
        if map.slaves.contains(&disk.block) {
            legs::fail_path(machine, leg, &disk.numbers)?;
        }
        self.memory.refused.insert(leg.clone());
        tracing::error!(
            "leg {leg} is not used: it came back with {} sectors and had {}; give it a disk that is large enough",
            disk.sectors,
            map.sectors
        );
        Ok(())
    }

    fn arrived(&mut self, leg: &Leg, how: &str) {
        self.memory.in_use.insert(leg.clone());
        self.memory.released.remove(leg);
        self.memory.refused.remove(leg);
        tracing::info!("leg {leg} {how}");
    }

    /// The legs' I/O waits. It may fail, so that the pool goes on without them, only when the cluster has taken the mark
    /// that the other node's legs miss writes from now on.
    fn paths_lost(
        &mut self,
        machine: &Machine,
        backend: &Backend,
        lost: &[Leg],
    ) -> Result<(), Fault> {
        for leg in lost.iter().filter(|leg| self.memory.in_use.remove(leg)) {
            tracing::warn!("leg {leg} is lost; its I/O waits");
        }
        if pools::imported(machine, backend)?.is_empty() {
            return Ok(());
        }
        notify(ALIVE);
        let patient = machine.with_time(CLUSTER);
        self.pools.mark_for_release(&patient, backend)?;
        // One that cannot be let go holds up no other one.
        for leg in lost {
            match legs::fail_if_no_path(&patient, leg) {
                Ok(()) => {
                    self.memory.released.insert(leg.clone());
                    tracing::warn!("leg {leg} is let go; the pool goes on without it");
                }
                Err(fault) => self.said.error(&fault.reason),
            }
        }
        Ok(())
    }
}

/// The legs whose I/O stands still. What waits while no disk of the leg takes it says nothing of the disk, and uses up none of
/// the tries that its path has when it is back.
fn still(flow: &mut Flow, actual: &Actual, now: Instant) -> BTreeMap<Leg, u32> {
    let mut still = BTreeMap::new();
    for map in actual.maps.iter().filter(|map| map.role == Role::Remote) {
        if plan::running(&map.leg, actual).next().is_none() {
            flow.forget(&map.leg);
        } else if let Some(times) = flow.stands_still(&map.leg, map.io, now) {
            still.insert(map.leg.clone(), times);
        }
    }
    still
}

/// A path that has not failed has all I/O, and a question to its disk could take as long as that does.
fn retry(machine: &Machine, leg: &Leg, disk: &Disk) -> Result<(), Fault> {
    if !legs::has_path_failed(machine, leg)? || !is_as_it_was(machine, disk)? {
        return Ok(());
    }
    tracing::warn!("the I/O of leg {leg} stands still: its path is tried again");
    legs::reinstate_path(machine, leg, &disk.numbers)
}

/// Whether the disk is what it seems to be: a session that comes back may carry another one behind the same number, or a
/// smaller one.
fn is_as_it_was(machine: &Machine, disk: &Disk) -> Result<bool, Fault> {
    let now = iscsi::reread(machine, disk)?;
    Ok(now.is_some_and(|now| now.serial == disk.serial && now.sectors >= disk.sectors))
}

fn log_in(machine: &Machine, backend: &Backend) -> Result<(), Fault> {
    let own = backend.initiator.as_deref().unwrap_or("this node's initiator");
    let credentials = backend.credentials(machine, own)?;
    let Peer { iqn, portal, .. } = &backend.peer;
    iscsi::login(machine, iqn, portal, credentials.as_ref())?;
    tracing::info!("logged in to {iqn}");
    Ok(())
}

#[cfg(test)]
#[path = "pass_tests.rs"]
mod tests;
