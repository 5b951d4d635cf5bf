//! What one pass of the watch has to do about sessions, paths and maps; a pure function.

use hasan::config::Backend;
use hasan::iscsi::{self, Disk, DiskState, Session, SessionState};
use hasan::legs::{Leg, Map, Role};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How often a path is tried whose I/O fails while its disk seems well, one after the other.
const RETRIES: u32 = 2;
/// How long a leg is left alone whose disk fails I/O.
const REST: Duration = Duration::from_secs(3600);

/// How long a session may do without a login before its daemon is looked after.
const AWAY: Duration = Duration::from_secs(60);

/// What is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Actual {
    pub(crate) sessions: Vec<Session>,
    pub(crate) maps: Vec<Map>,
    /// The legs whose I/O stands still on a disk that takes it, and how often it has since none waited.
    pub(crate) still: BTreeMap<Leg, u32>,
}

/// What the watch knows from its earlier passes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// The legs whose path is known to work in their map.
    pub(crate) in_use: BTreeSet<Leg>,
    /// The legs whose I/O was let fail.
    pub(crate) released: BTreeSet<Leg>,
    /// The legs whose disk is known to be too small.
    pub(crate) refused: BTreeSet<Leg>,
    /// The legs whose disk fails I/O, and since when they are left alone.
    pub(crate) failing: BTreeMap<Leg, Instant>,
    /// Since when there are sessions, and none of them is logged in.
    pub(crate) away_since: Option<Instant>,
    /// Whether that is for long.
    pub(crate) is_away: bool,
}

impl Memory {
    /// A disk that was refused and went away may be another one when it returns.
    pub(crate) fn forget_refused(&mut self, actual: &Actual, now: Instant) {
        let is_there = |leg: &Leg| running(leg, actual).next().is_some();
        self.refused.retain(is_there);
        let is_new = |since: Instant| now.saturating_duration_since(since) < REST;
        self.failing.retain(|leg, since| is_there(leg) && is_new(*since));
    }

    /// Whether somebody brings lost sessions back is not to be seen of them, only that nobody does.
    pub(crate) fn note_sessions(&mut self, actual: &Actual, now: Instant) {
        let is_in = |session: &Session| session.state == SessionState::LoggedIn;
        let is_away = !actual.sessions.is_empty() && !actual.sessions.iter().any(is_in);
        self.away_since = is_away.then(|| self.away_since.unwrap_or(now));
        let is_long = |since: Instant| now.saturating_duration_since(since) >= AWAY;
        self.is_away = self.away_since.is_some_and(is_long);
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Log in to the peer's target.
    Login,
    /// Start the initiator's daemon: it alone brings a lost session back, and not every distribution starts it again when it dies.
    StartDaemon,
    /// Set the recovery timeout of a session.
    SetRecoveryTimeout(String),
    /// Somebody else has made the session, and it is asked for signs of life otherwise: after so many seconds, and for so many.
    /// That can't be changed while it lasts.
    OtherNoop([String; 2]),
    /// Make the map of a leg that arrived.
    MakeMap(Leg, Disk),
    /// The leg's LUN came back as another device.
    ExchangePath(Leg, Disk),
    /// The leg's path came back, or the watch has just begun and does not know.
    ReinstatePath(Leg, Disk),
    /// The same of a path that was never seen to be lost.
    RetryPath(Leg, Disk),
    /// It was tried again, and fails again, or does not go on.
    GiveUp(Leg),
    /// A leg has no disk in this session.
    Scan(String),
    /// The leg's LUN came back smaller than the leg is: no I/O may go there. Its map follows.
    Refuse(Leg, Disk, Map),
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
        let is_known = session.noop.iter().all(|seconds| !seconds.is_empty());
        if session.state == SessionState::LoggedIn && is_known && session.noop != iscsi::NOOP {
            steps.push(Step::OtherNoop(session.noop.clone()));
        }
    }
    let mut lost = Vec::new();
    for leg in &backend.peer.legs {
        for step in plan_leg(leg, actual, memory) {
            match step {
                Step::PathsLost(legs) => lost.extend(legs),
                other => steps.push(other),
            }
        }
    }
    // One question to the cluster for all of them.
    if !lost.is_empty() {
        steps.push(Step::PathsLost(lost));
    }
    let has_none = |leg: &Leg| disks(leg, actual).next().is_none();
    if backend.peer.legs.iter().any(has_none) {
        let working = actual.sessions.iter().filter(|it| it.state == SessionState::LoggedIn);
        steps.extend(working.map(|session| Step::Scan(session.name.clone())));
    }
    if memory.is_away {
        steps.push(Step::StartDaemon);
    }
    steps
}

fn disks<'a>(leg: &'a Leg, actual: &'a Actual) -> impl Iterator<Item = &'a Disk> {
    let disks = actual.sessions.iter().flat_map(|session| &session.disks);
    disks.filter(move |disk| Leg::of_serial(&disk.serial).as_ref() == Some(leg))
}

/// The disks of a leg that take I/O.
pub(crate) fn running<'a>(leg: &'a Leg, actual: &'a Actual) -> impl Iterator<Item = &'a Disk> {
    disks(leg, actual).filter(|disk| disk.state == DiskState::Running)
}

fn plan_leg(leg: &Leg, actual: &Actual, memory: &Memory) -> Vec<Step> {
    let running = running(leg, actual);
    let map = actual.maps.iter().find(|map| map.role == Role::Remote && map.leg == *leg);
    let is_failing = memory.failing.contains_key(leg);
    let Some(map) = map else {
        // udev's look at a new map would wait for a disk that fails it.
        let disks = running.filter(|_| !is_failing).take(1);
        return disks.map(|disk| Step::MakeMap(leg.clone(), disk.clone())).collect();
    };
    let (fitting, small): (Vec<&Disk>, Vec<&Disk>) = running.partition(|disk| map.fits(disk));
    if let Some(disk) = fitting.first().copied().filter(|_| !is_failing) {
        return with_path(leg, map, disk, actual, memory).into_iter().collect();
    }
    let refuse = |disk: &&Disk| Step::Refuse(leg.clone(), (*disk).clone(), map.clone());
    let is_news = !memory.refused.contains(leg);
    let mut steps: Vec<Step> = small.first().filter(|_| is_news).map(refuse).into_iter().collect();
    // While a disk of the leg is blocked, its session may come back: nothing is lost yet.
    let is_blocked = disks(leg, actual).any(|disk| disk.state == DiskState::Blocked);
    if !is_blocked && !memory.released.contains(leg) {
        steps.push(Step::PathsLost(vec![leg.clone()]));
    }
    steps
}

/// The map of a leg whose disk takes I/O.
fn with_path(leg: &Leg, map: &Map, disk: &Disk, actual: &Actual, memory: &Memory) -> Option<Step> {
    if !map.slaves.contains(&disk.block) {
        return Some(Step::ExchangePath(leg.clone(), disk.clone()));
    }
    if !memory.in_use.contains(leg) {
        return Some(Step::ReinstatePath(leg.clone(), disk.clone()));
    }
    let again = |times: u32| match times {
        0..=RETRIES => Step::RetryPath(leg.clone(), disk.clone()),
        _ => Step::GiveUp(leg.clone()),
    };
    actual.still.get(leg).copied().map(again)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hasan::config::Peer;
    use hasan::legs::Io;

    fn leg() -> Leg {
        Leg::new("data-b1").unwrap()
    }

    fn backend() -> Backend {
        let peer = Peer { legs: vec![leg()], ..Peer::default() };
        Backend { peer, ..Backend::default() }
    }

    fn disk(block: &str, state: DiskState) -> Disk {
        let numbers = "8:16".to_string();
        Disk { block: block.to_string(), numbers, serial: leg().serial(), sectors: 8, state }
    }

    fn session(disks: Vec<Disk>) -> Session {
        Session {
            name: "session1".to_string(),
            target: String::new(),
            state: SessionState::LoggedIn,
            recovery_timeout: "5".to_string(),
            noop: iscsi::NOOP.map(String::from),
            disks,
        }
    }

    fn map(block: &str) -> Vec<Map> {
        let slaves = BTreeSet::from([block.to_string()]);
        vec![Map { leg: leg(), role: Role::Remote, slaves, sectors: 8, io: Io::default() }]
    }

    #[test]
    fn each_situation_has_its_step() {
        use DiskState::{Blocked, Lost, Running};
        let of_leg = || BTreeSet::from([leg()]);
        let new = Memory::default();
        let known = Memory { in_use: of_leg(), ..Memory::default() };
        let released = Memory { released: of_leg(), ..Memory::default() };
        let running = || disk("sda", Running);
        let with = |disks| vec![session(disks)];
        let scan = || Step::Scan("session1".to_string());
        for (sessions, maps, memory, want) in [
            (vec![], vec![], &new, vec![Step::Login]),
            (vec![], map("sda"), &known, vec![Step::Login, Step::PathsLost(vec![leg()])]),
            (vec![], map("sda"), &released, vec![Step::Login]),
            (with(vec![]), vec![], &new, vec![scan()]),
            (with(vec![running()]), vec![], &new, vec![Step::MakeMap(leg(), running())]),
            (with(vec![running()]), map("sda"), &known, vec![]),
            (with(vec![running()]), map("sda"), &new, vec![Step::ReinstatePath(leg(), running())]),
            (with(vec![running()]), map("sdz"), &known, vec![Step::ExchangePath(leg(), running())]),
            (with(vec![disk("sda", Blocked)]), map("sda"), &known, vec![]),
            (with(vec![disk("sda", Lost)]), map("sda"), &known, vec![Step::PathsLost(vec![leg()])]),
            (with(vec![disk("sda", Lost)]), map("sda"), &released, vec![]),
            (with(vec![disk("sda", Lost)]), vec![], &known, vec![]),
        ] {
            let actual = Actual { sessions, maps, still: BTreeMap::new() };
            assert_eq!(plan(&backend(), &actual, memory), want, "{actual:?} {memory:?}");
        }
    }

    #[test]
    fn io_that_stands_still_has_its_path_tried_again_while_the_disk_seems_well() {
        let known = Memory { in_use: BTreeSet::from([leg()]), ..Memory::default() };
        let running = || disk("sda", DiskState::Running);
        for (disk, times, want) in [
            (running(), 1, vec![Step::RetryPath(leg(), running())]),
            (running(), RETRIES, vec![Step::RetryPath(leg(), running())]),
            (running(), RETRIES + 1, vec![Step::GiveUp(leg())]),
            (disk("sda", DiskState::Blocked), 9, vec![]),
            (disk("sda", DiskState::Lost), 9, vec![Step::PathsLost(vec![leg()])]),
        ] {
            let still = BTreeMap::from([(leg(), times)]);
            let actual = Actual { sessions: vec![session(vec![disk])], maps: map("sda"), still };
            assert_eq!(plan(&backend(), &actual, &known), want, "{actual:?}");
        }
    }

    #[test]
    fn a_leg_whose_disk_fails_io_is_lost_until_the_disk_goes_or_some_time_has_passed() {
        let now = Instant::now();
        let failing = BTreeMap::from([(leg(), now)]);
        let of = |state| {
            let sessions = vec![session(vec![disk("sda", state)])];
            Actual { sessions, maps: map("sda"), ..Actual::default() }
        };
        let running = of(DiskState::Running);
        let memory = Memory { failing, ..Memory::default() };
        assert_eq!(plan(&backend(), &running, &memory), [Step::PathsLost(vec![leg()])]);
        let released = Memory { released: BTreeSet::from([leg()]), ..memory.clone() };
        assert_eq!(plan(&backend(), &running, &released), []);
        let removed = Actual { maps: vec![], ..running.clone() };
        assert_eq!(plan(&backend(), &removed, &released), []);
        for (actual, later, is_kept) in [
            (&running, REST / 2, true),
            (&running, REST, false),
            (&of(DiskState::Blocked), REST / 2, false),
        ] {
            let mut memory = memory.clone();
            memory.forget_refused(actual, now + later);
            assert_eq!(memory.failing.contains_key(&leg()), is_kept, "{actual:?} {later:?}");
        }
    }

    #[test]
    fn a_leg_that_is_smaller_than_it_was_is_lost() {
        let small = || Disk { sectors: 7, ..disk("sda", DiskState::Running) };
        let of_leg = || BTreeSet::from([leg()]);
        let known = Memory { in_use: of_leg(), ..Memory::default() };
        let refused = Memory { refused: of_leg(), ..Memory::default() };
        let released = Memory { released: of_leg(), ..refused.clone() };
        let refuse = |map: Vec<Map>| Step::Refuse(leg(), small(), map[0].clone());
        let lost = || Step::PathsLost(vec![leg()]);
        let other = |sectors| Disk { sectors, ..disk("sdb", DiskState::Running) };
        for (disks, maps, memory, want) in [
            (vec![small()], map("sda"), &known, vec![refuse(map("sda")), lost()]),
            (vec![small()], map("sdz"), &known, vec![refuse(map("sdz")), lost()]),
            (vec![small()], map("sda"), &refused, vec![lost()]),
            (vec![small()], map("sda"), &released, vec![]),
            (
                vec![small(), other(9)],
                map("sda"),
                &released,
                vec![Step::ExchangePath(leg(), other(9))],
            ),
            // Nothing is known of what it was.
            (vec![small()], vec![], &known, vec![Step::MakeMap(leg(), small())]),
        ] {
            let actual = Actual { sessions: vec![session(disks)], maps, ..Actual::default() };
            assert_eq!(plan(&backend(), &actual, memory), want, "{actual:?} {memory:?}");
        }
        for (state, is_kept) in [(DiskState::Running, true), (DiskState::Blocked, false)] {
            let sessions = vec![session(vec![disk("sda", state)])];
            let mut memory = refused.clone();
            memory.forget_refused(&Actual { sessions, ..Actual::default() }, Instant::now());
            assert_eq!(memory.refused.contains(&leg()), is_kept);
        }
    }

    #[test]
    fn a_session_that_nobody_brings_back_has_its_daemon_started() {
        use SessionState::{Failed, Free, LoggedIn};
        let (start, mut memory) = (Instant::now(), Memory::default());
        let with = |state| vec![Session { state, ..session(vec![]) }];
        let both = || [with(Free), with(LoggedIn)].concat();
        for (second, sessions, want) in [
            (0, with(Failed), false),
            (59, with(Free), false),
            (60, with(Free), true),
            (61, with(Free), true),
            (62, both(), false),
            (63, with(Free), false),
            (122, with(Free), false),
            (123, with(Free), true),
            // A login starts it.
            (124, vec![], false),
        ] {
            let actual = Actual { sessions, ..Actual::default() };
            memory.note_sessions(&actual, start + Duration::from_secs(second));
            let steps = plan(&backend(), &actual, &memory);
            assert_eq!(steps.contains(&Step::StartDaemon), want, "{second} {steps:?}");
        }
    }

    #[test]
    fn all_lost_legs_are_one_step() {
        let (first, second) = (leg(), Leg::new("data-b2").unwrap());
        let mut backend = backend();
        backend.peer.legs.push(second.clone());
        let second_map = Map { leg: second.clone(), ..map("sdb").remove(0) };
        let maps = [map("sda"), vec![second_map]].concat();
        let actual = Actual { maps, ..Actual::default() };
        let want = vec![Step::Login, Step::PathsLost(vec![first, second])];
        assert_eq!(plan(&backend, &actual, &Memory::default()), want);
    }

    #[test]
    fn a_foreign_disk_is_left_alone_and_a_timeout_is_mended() {
        let foreign = Disk { serial: "data-b1".to_string(), ..disk("sda", DiskState::Running) };
        let mut session = session(vec![foreign]);
        session.recovery_timeout = "120".to_string();
        session.noop = ["0", "0"].map(String::from);
        let actual = Actual { sessions: vec![session], ..Actual::default() };
        let session = || "session1".to_string();
        let other = Step::OtherNoop(["0", "0"].map(String::from));
        let want = vec![Step::SetRecoveryTimeout(session()), other, Step::Scan(session())];
        assert_eq!(plan(&backend(), &actual, &Memory::default()), want);
    }
}
