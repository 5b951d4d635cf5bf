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
    /// Legs take part, but have had so many errors each: what they hold is in doubt until it is read.
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

/// What is wrong with a node's legs; the worse is the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Doubt {
    /// Nothing.
    None,
    /// They miss writes, or may. An error on a leg that stays ONLINE counts, since ZFS may not be able to read that leg alone.
    Misses,
    /// Something on them was read and was wrong; who knows what else is. A resilver copies only what they miss.
    Wrong,
}

/// What is wrong with the legs of this node, and with those of the other one.
pub(crate) fn doubts(status: &Status, backend: &Backend) -> (Doubt, Doubt) {
    let doubt_of = |leg: &Leg| {
        let vdevs = status.vdevs.iter().filter(|vdev| leg_of(vdev) == leg.name());
        vdevs.map(doubt).max().unwrap_or(Doubt::None)
    };
    let own = backend.legs.keys().map(doubt_of).max();
    let other = backend.peer.legs.iter().map(doubt_of).max();
    (own.unwrap_or(Doubt::None), other.unwrap_or(Doubt::None))
}

fn doubt(vdev: &Vdev) -> Doubt {
    if vdev.wrong > 0 || vdev.state == DEGRADED {
        Doubt::Wrong
    } else if vdev.state != "ONLINE" || vdev.errors > 0 || vdev.resilvering {
        Doubt::Misses
    } else {
        Doubt::None
    }
}

/// What ZFS's daemon says of a leg with many wrong checksums (zed(8)); it takes part in all writes. Of a mirror or a pool ZFS
/// says it if anything below is not ONLINE.
const DEGRADED: &str = "DEGRADED";

/// Whether the last scrub was begun here, and proves that all that is on the legs is right.
pub(crate) fn is_proven(status: &Status, scrubbed: Option<&BTreeMap<String, u64>>) -> bool {
    status.scan == Scan::ScrubbedWell && scrubbed.is_some()
}

/// `usable` are the legs that are here and carry a label of the pool, and `are_all` whether there should be no others;
/// `scrubbed` are the errors of each leg when the scrub began that was the last one of this daemon's.
pub(crate) fn decide(
    status: &Status,
    usable: &BTreeSet<&str>,
    are_all: bool,
    scrubbed: Option<&BTreeMap<String, u64>>,
) -> Verdict {
    let (legs, others): (Vec<&Vdev>, Vec<&Vdev>) =
        status.vdevs.iter().partition(|vdev| usable.contains(leg_of(vdev)));
    let takes_part = |vdev: &Vdev| vdev.state == "ONLINE" || vdev.state == DEGRADED;
    let down: Vec<String> =
        legs.iter().filter(|vdev| !takes_part(vdev)).map(|vdev| vdev.name.clone()).collect();
    if !down.is_empty() {
        return Verdict::BringBack(down);
    }
    // The pool and its mirrors have errors of their own only where both legs are wrong.
    let has_degraded = legs.iter().any(|vdev| vdev.state == DEGRADED);
    let is_well = |vdev: &&Vdev| {
        vdev.errors == 0 && (vdev.state == "ONLINE" || has_degraded && vdev.state == DEGRADED)
    };
    let is_resilvering = status.scan == Scan::Running || status.vdevs.iter().any(|v| v.resilvering);
    // One that was lost just now looks well until ZFS has asked it for something.
    if is_resilvering || !are_all || !others.iter().all(is_well) {
        return Verdict::Wait;
    }
    let in_doubt = legs.iter().filter(|vdev| vdev.errors > 0 || vdev.state == DEGRADED);
    let errors: BTreeMap<String, u64> =
        in_doubt.map(|vdev| (vdev.name.clone(), vdev.errors)).collect();
    if errors.is_empty() {
        return Verdict::Well;
    }
    // A scrub that finds errors mends them and counts them: only one that found none proves that all is right.
    if is_proven(status, scrubbed) && scrubbed == Some(&errors) {
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
        Vdev { name, was: None, state, errors, wrong: 0, resilvering: false }
    }

    fn absent(guid: &str, was: &str) -> Vdev {
        Vdev { was: Some(was.to_string()), ..vdev(guid, "UNAVAIL", 0) }
    }

    fn status(scan: Scan, vdevs: Vec<Vdev>) -> Status {
        Status { scan, resilvered: None, vdevs }
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
            (Scan::Other, Vdev { resilvering: true, ..well.clone() }, None, Verdict::Wait),
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
            (Scan::Other, vdev("mirror-0", "DEGRADED", 0), None, Verdict::Wait),
            (Scan::Other, vdev("b1", "DEGRADED", 0), None, Verdict::Scrub(errors(0))),
            (Scan::ScrubbedWell, vdev("b1", "DEGRADED", 4), Some(errors(4)), Verdict::Clear),
        ] {
            // As ZFS says of a pool with such a leg.
            let pool = if b1.state == DEGRADED && b1.name == "b1" { DEGRADED } else { "ONLINE" };
            let vdevs = vec![vdev("p", pool, 0), vdev("a1", "ONLINE", 0), b1];
            let status = status(scan, vdevs);
            assert_eq!(decide(&status, &usable, true, scrubbed.as_ref()), want, "{status:?}");
            // While one is away, no other is judged; but what is here is brought back.
            let want = if matches!(want, Verdict::BringBack(_)) { want } else { Verdict::Wait };
            assert_eq!(decide(&status, &usable, false, scrubbed.as_ref()), want, "{status:?}");
        }
    }

    #[test]
    fn whose_legs_are_in_doubt() {
        let leg = |name: &str| Leg::new(name).unwrap();
        let backend = Backend {
            legs: BTreeMap::from([(leg("a1"), "/dev/sda".into())]),
            peer: Peer { legs: vec![leg("b1")], ..Peer::default() },
            ..Backend::default()
        };
        let resilvering = Vdev { resilvering: true, ..vdev("b1", "ONLINE", 0) };
        let wrong = Vdev { wrong: 1, ..vdev("b1", "FAULTED", 3) };
        use Doubt::{Misses, None, Wrong};
        for (vdev, want) in [
            (vdev("a1", "ONLINE", 0), (None, None)),
            (vdev("a1", "ONLINE", 1), (Misses, None)),
            (vdev("a1", "FAULTED", 0), (Misses, None)),
            (vdev("b1", "ONLINE", 1), (None, Misses)),
            (vdev("b1", "DEGRADED", 0), (None, Wrong)),
            (wrong, (None, Wrong)),
            (resilvering, (None, Misses)),
            (absent("77", "/dev/mapper/b1"), (None, Misses)),
            (vdev("else", "FAULTED", 9), (None, None)),
        ] {
            let status = status(Scan::Other, vec![vdev]);
            assert_eq!(doubts(&status, &backend), want, "{status:?}");
        }
    }

    #[test]
    fn only_a_scrub_of_ours_after_which_nothing_was_wrong_proves_it() {
        let begun = Some(BTreeMap::new());
        for (scan, scrubbed, want) in [
            (Scan::ScrubbedWell, &begun, true),
            (Scan::ScrubbedWell, &None, false),
            (Scan::Running, &begun, false),
            (Scan::Other, &begun, false),
        ] {
            let status = status(scan, Vec::new());
            assert_eq!(is_proven(&status, scrubbed.as_ref()), want, "{scan:?} {scrubbed:?}");
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
