//! What one pass of the watch has to do about sessions, paths and maps; a pure function.

use hasan::config::Backend;
use hasan::iscsi::{self, Disk, DiskState, Session, SessionState};
use hasan::legs::{Leg, Map, Role};
use std::collections::BTreeSet;

/// What is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Actual {
    pub(crate) sessions: Vec<Session>,
    pub(crate) maps: Vec<Map>,
}

/// What the watch knows from its earlier passes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// The legs whose path is known to work in their map.
    pub(crate) in_use: BTreeSet<Leg>,
    /// The legs whose I/O was let fail.
    pub(crate) released: BTreeSet<Leg>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Log in to the peer's target.
    Login,
    /// Set the recovery timeout of a session.
    SetRecoveryTimeout(String),
    /// Make the map of a leg that arrived.
    MakeMap(Leg, Disk),
    /// The leg's LUN came back as another device.
    ExchangePath(Leg, Disk),
    /// The leg's path came back, or the watch has just begun and does not know.
    ReinstatePath(Leg, Disk),
    /// The paths of these legs are lost, and their I/O waits.
    PathsLost(Vec<Leg>),
}

pub(crate) fn plan(backend: &Backend, actual: &Actual, memory: &Memory) -> Vec<Step> {
    let mut steps = Vec::new();
    if actual.sessions.is_empty() {
        steps.push(Step::Login);
    }
    for session in &actual.sessions {
        let is_other = session.recovery_timeout != iscsi::RECOVERY_TIMEOUT;
        if session.state == SessionState::LoggedIn && is_other {
            steps.push(Step::SetRecoveryTimeout(session.name.clone()));
        }
    }
    let mut lost = Vec::new();
    for leg in &backend.peer.legs {
        match plan_leg(leg, actual, memory) {
            Some(Step::PathsLost(legs)) => lost.extend(legs),
            step => steps.extend(step),
        }
    }
    // One question to the cluster for all of them.
    if !lost.is_empty() {
        steps.push(Step::PathsLost(lost));
    }
    steps
}

fn plan_leg(leg: &Leg, actual: &Actual, memory: &Memory) -> Option<Step> {
    let disks = actual.sessions.iter().flat_map(|session| &session.disks);
    let of_leg: Vec<&Disk> =
        disks.filter(|disk| Leg::of_serial(&disk.serial).as_ref() == Some(leg)).collect();
    let running = of_leg.iter().find(|disk| disk.state == DiskState::Running);
    let map = actual.maps.iter().find(|map| map.role == Role::Remote && map.leg == *leg);
    match (map, running) {
        (None, Some(disk)) => Some(Step::MakeMap(leg.clone(), (*disk).clone())),
        (Some(map), Some(disk)) if !map.slaves.contains(&disk.block) => {
            Some(Step::ExchangePath(leg.clone(), (*disk).clone()))
        }
        (Some(_), Some(disk)) if !memory.in_use.contains(leg) => {
            Some(Step::ReinstatePath(leg.clone(), (*disk).clone()))
        }
        // While a disk of the leg is blocked, its session may come back: nothing is lost yet.
        (Some(_), None)
            if !of_leg.iter().any(|disk| disk.state == DiskState::Blocked)
                && !memory.released.contains(leg) =>
        {
            Some(Step::PathsLost(vec![leg.clone()]))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hasan::config::Peer;

    fn leg() -> Leg {
        Leg::new("data-b1").unwrap()
    }

    fn backend() -> Backend {
        let peer = Peer { legs: vec![leg()], ..Peer::default() };
        Backend { peer, ..Backend::default() }
    }

    fn disk(block: &str, state: DiskState) -> Disk {
        let numbers = "8:16".to_string();
        Disk { block: block.to_string(), numbers, serial: leg().serial(), state }
    }

    fn session(disks: Vec<Disk>) -> Session {
        Session {
            name: "session1".to_string(),
            target: String::new(),
            state: SessionState::LoggedIn,
            recovery_timeout: "5".to_string(),
            disks,
        }
    }

    fn map(block: &str) -> Vec<Map> {
        let slaves = BTreeSet::from([block.to_string()]);
        vec![Map { leg: leg(), role: Role::Remote, slaves }]
    }

    #[test]
    fn each_situation_has_its_step() {
        use DiskState::{Blocked, Lost, Running};
        let known = Memory { in_use: BTreeSet::from([leg()]), released: BTreeSet::new() };
        let new = Memory::default();
        let released = Memory { in_use: BTreeSet::new(), released: BTreeSet::from([leg()]) };
        let running = || disk("sda", Running);
        let with = |disks| vec![session(disks)];
        for (sessions, maps, memory, want) in [
            (vec![], vec![], &new, vec![Step::Login]),
            (vec![], map("sda"), &known, vec![Step::Login, Step::PathsLost(vec![leg()])]),
            (vec![], map("sda"), &released, vec![Step::Login]),
            (with(vec![]), vec![], &new, vec![]),
            (with(vec![running()]), vec![], &new, vec![Step::MakeMap(leg(), running())]),
            (with(vec![running()]), map("sda"), &known, vec![]),
            (with(vec![running()]), map("sda"), &new, vec![Step::ReinstatePath(leg(), running())]),
            (with(vec![running()]), map("sdz"), &known, vec![Step::ExchangePath(leg(), running())]),
            (with(vec![disk("sda", Blocked)]), map("sda"), &known, vec![]),
            (with(vec![disk("sda", Lost)]), map("sda"), &known, vec![Step::PathsLost(vec![leg()])]),
            (with(vec![disk("sda", Lost)]), map("sda"), &released, vec![]),
            (with(vec![disk("sda", Lost)]), vec![], &known, vec![]),
        ] {
            let actual = Actual { sessions, maps };
            assert_eq!(plan(&backend(), &actual, memory), want, "{actual:?} {memory:?}");
        }
    }

    #[test]
    fn all_lost_legs_are_one_step() {
        let (first, second) = (leg(), Leg::new("data-b2").unwrap());
        let mut backend = backend();
        backend.peer.legs.push(second.clone());
        let second_map = Map { leg: second.clone(), ..map("sdb").remove(0) };
        let maps = [map("sda"), vec![second_map]].concat();
        let actual = Actual { sessions: vec![], maps };
        let want = vec![Step::Login, Step::PathsLost(vec![first, second])];
        assert_eq!(plan(&backend, &actual, &Memory::default()), want);
    }

    #[test]
    fn a_foreign_disk_is_left_alone_and_a_timeout_is_mended() {
        let foreign = Disk { serial: "data-b1".to_string(), ..disk("sda", DiskState::Running) };
        let mut session = session(vec![foreign]);
        session.recovery_timeout = "120".to_string();
        let actual = Actual { sessions: vec![session], maps: vec![] };
        let want = vec![Step::SetRecoveryTimeout("session1".to_string())];
        assert_eq!(plan(&backend(), &actual, &Memory::default()), want);
    }
}
