//! What a look at a pool's vdevs leads to: whose legs miss writes, and what brings them back. Pure.

use hasan::config::Backend;
use hasan::legs::Leg;
use hasan::zfs::{Scan, Status, Vdev};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// How often legs are brought back, or a scrub is begun, within [`HOUR`]: what does not hold is for a person.
const TRIES: usize = 6;
const HOUR: Duration = Duration::from_secs(3600);

/// What to do about a pool that needs a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Bring these vdevs back: `zpool online`, `zpool clear`.
    BringBack(Vec<String>),
    /// Legs are ONLINE, but have had so many errors each: what they hold is in doubt until it is read.
    Scrub(BTreeMap<String, u64>),
    /// All that is on the legs was read since their last error, and is right: `zpool clear`.
    Clear,
    /// Something runs, or waits for a person.
    Wait,
    /// All legs have all writes.
    Well,
}

/// The leg that a vdev is. One that was not there at the import goes by its GUID, and ZFS says where it was.
pub(crate) fn leg_of(vdev: &Vdev) -> &str {
    let was = vdev.was.as_deref().and_then(|path| path.strip_prefix("/dev/mapper/"));
    was.unwrap_or(&vdev.name)
}

/// Which of the two nodes has legs that miss writes, or may: the own one, the other one. An error on a leg that stays
/// ONLINE counts, since ZFS may not be able to read that leg alone.
pub(crate) fn dirty(status: &Status, backend: &Backend) -> (bool, bool) {
    let is_dirty = |vdev: &&Vdev| vdev.state != "ONLINE" || vdev.errors > 0 || vdev.resilvering;
    let dirty: BTreeSet<&str> = status.vdevs.iter().filter(is_dirty).map(leg_of).collect();
    let is_dirty = |leg: &Leg| dirty.contains(leg.name());
    (backend.legs.keys().any(is_dirty), backend.peer.legs.iter().any(is_dirty))
}

/// `usable` are the legs that carry a label of the pool; `scrubbed` are the errors of each leg when the scrub began that
/// was the last one of this daemon's.
pub(crate) fn decide(
    status: &Status,
    usable: &BTreeSet<&str>,
    scrubbed: Option<&BTreeMap<String, u64>>,
) -> Verdict {
    let (legs, others): (Vec<&Vdev>, Vec<&Vdev>) =
        status.vdevs.iter().partition(|vdev| usable.contains(leg_of(vdev)));
    let down: Vec<String> =
        legs.iter().filter(|vdev| vdev.state != "ONLINE").map(|vdev| vdev.name.clone()).collect();
    if !down.is_empty() {
        return Verdict::BringBack(down);
    }
    // The pool and its mirrors have errors of their own only where both legs are wrong.
    let is_well = |vdev: &&Vdev| vdev.state == "ONLINE" && vdev.errors == 0;
    if status.scan == Scan::Running || !others.iter().all(is_well) {
        return Verdict::Wait;
    }
    let with_errors = legs.iter().filter(|vdev| vdev.errors > 0);
    let errors: BTreeMap<String, u64> =
        with_errors.map(|vdev| (vdev.name.clone(), vdev.errors)).collect();
    if errors.is_empty() {
        return Verdict::Well;
    }
    // A scrub that finds errors mends them and counts them: only one that found none proves that all is right.
    if status.scan == Scan::ScrubbedWell && scrubbed == Some(&errors) {
        return Verdict::Clear;
    }
    Verdict::Scrub(errors)
}

/// How often something was tried.
#[derive(Default)]
pub(crate) struct Limit(VecDeque<Instant>);

impl Limit {
    /// Whether it may be tried once more, which then counts.
    pub(crate) fn allows(&mut self, now: Instant) -> bool {
        self.0.retain(|then| now.saturating_duration_since(*then) < HOUR);
        let is_allowed = self.0.len() < TRIES;
        if is_allowed {
            self.0.push_back(now);
        }
        is_allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hasan::config::Peer;

    fn vdev(name: &str, state: &str, errors: u64) -> Vdev {
        let (name, state) = (name.to_string(), state.to_string());
        Vdev { name, was: None, state, errors, resilvering: false }
    }

    fn absent(guid: &str, was: &str) -> Vdev {
        Vdev { was: Some(was.to_string()), ..vdev(guid, "UNAVAIL", 0) }
    }

    #[test]
    fn what_a_look_leads_to() {
        let usable = BTreeSet::from(["a1", "b1"]);
        let back = |name: &str| Verdict::BringBack(vec![name.to_string()]);
        let errors = |count: u64| BTreeMap::from([("b1".to_string(), count)]);
        let (well, four) = (vdev("b1", "ONLINE", 0), vdev("b1", "ONLINE", 4));
        let faulted = vdev("b1", "FAULTED", 4);
        for (scan, b1, scrubbed, want) in [
            (Scan::Other, well.clone(), None, Verdict::Well),
            (Scan::Running, well.clone(), None, Verdict::Wait),
            (Scan::Running, four.clone(), None, Verdict::Wait),
            (Scan::Other, four.clone(), None, Verdict::Scrub(errors(4))),
            // Somebody's scrub of before the error.
            (Scan::ScrubbedWell, four.clone(), None, Verdict::Scrub(errors(4))),
            // One that has found more.
            (Scan::ScrubbedWell, four.clone(), Some(errors(1)), Verdict::Scrub(errors(4))),
            (Scan::Other, four.clone(), Some(errors(4)), Verdict::Scrub(errors(4))),
            (Scan::ScrubbedWell, four, Some(errors(4)), Verdict::Clear),
            (Scan::Running, faulted.clone(), None, back("b1")),
            (Scan::Other, faulted, None, back("b1")),
            (Scan::Other, vdev("b1", "OFFLINE", 0), None, back("b1")),
            (Scan::Other, absent("15359", "/dev/mapper/b1"), None, back("15359")),
            (Scan::Other, absent("15359", "/dev/sdx"), None, Verdict::Wait),
            // It carries another label, or none.
            (Scan::Other, vdev("b2", "UNAVAIL", 0), None, Verdict::Wait),
            (Scan::Other, vdev("mirror-0", "ONLINE", 1), None, Verdict::Wait),
        ] {
            let vdevs = vec![vdev("p", "ONLINE", 0), vdev("a1", "ONLINE", 0), b1];
            let status = Status { scan, vdevs };
            assert_eq!(decide(&status, &usable, scrubbed.as_ref()), want, "{status:?}");
        }
    }

    #[test]
    fn whose_legs_are_dirty() {
        let leg = |name: &str| Leg::new(name).unwrap();
        let text = String::new;
        let backend = Backend {
            legs: BTreeMap::from([(leg("a1"), "/dev/sda".into())]),
            iqn: text(),
            portal: text(),
            peer: Peer {
                node: text(),
                iqn: text(),
                portal: text(),
                initiator: text(),
                legs: vec![leg("b1")],
            },
            pools: Vec::new(),
        };
        let resilvering = Vdev { resilvering: true, ..vdev("b1", "ONLINE", 0) };
        for (vdev, want) in [
            (vdev("a1", "ONLINE", 0), (false, false)),
            (vdev("a1", "ONLINE", 1), (true, false)),
            (vdev("a1", "FAULTED", 0), (true, false)),
            (vdev("b1", "ONLINE", 1), (false, true)),
            (resilvering, (false, true)),
            (absent("77", "/dev/mapper/b1"), (false, true)),
            (vdev("else", "FAULTED", 9), (false, false)),
        ] {
            let status = Status { scan: Scan::Other, vdevs: vec![vdev] };
            assert_eq!(dirty(&status, &backend), want, "{status:?}");
        }
    }

    #[test]
    fn after_some_tries_it_is_left_to_a_person_for_an_hour() {
        let (mut limit, begin) = (Limit::default(), Instant::now());
        for _ in 0..TRIES {
            assert!(limit.allows(begin));
        }
        assert!(!limit.allows(begin + HOUR / 2));
        assert!(limit.allows(begin + HOUR));
    }
}
