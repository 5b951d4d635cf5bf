//! Whether the I/O of a leg goes on. A path that was lost and came back between two looks is as it was, by all that is to be
//! seen of its disk; but dm-multipath does not send I/O there any more, and lets it wait for ever. Nor does it where the disk
//! fails I/O.

use crate::legs::{Io, Leg};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// I/O that waits for so long, while none is done, stands still.
const STILL: Duration = Duration::from_secs(3);

/// I/O that goes on for so long makes what was before forgotten: on a busy leg some always waits.
const GOES_ON: Duration = Duration::from_secs(30);

/// What was last seen of each leg's I/O.
#[derive(Default)]
pub struct Flow(BTreeMap<Leg, Seen>);

struct Seen {
    io: Io,
    /// Since when it is the same.
    since: Instant,
    /// How often it has stood still since none waited, or it has gone on for a while, and when for the last time.
    times: u32,
    last: Option<Instant>,
}

impl Flow {
    /// How often the I/O of a leg has stood still lately, if it does now. Said once, and again after as long.
    pub fn stands_still(&mut self, leg: &Leg, io: Io, now: Instant) -> Option<u32> {
        let new = Seen { io, since: now, times: 0, last: None };
        let seen = self.0.entry(leg.clone()).or_insert(new);
        let is_long_ago =
            seen.last.is_some_and(|last| now.saturating_duration_since(last) >= GOES_ON);
        if io.waiting == 0 || is_long_ago {
            (seen.times, seen.last) = (0, None);
        }
        if io.waiting == 0 || seen.io.waiting == 0 || seen.io.done != io.done {
            (seen.io, seen.since) = (io, now);
            return None;
        }
        if now.saturating_duration_since(seen.since) < STILL {
            return None;
        }
        (seen.since, seen.last) = (now, Some(now));
        seen.times += 1;
        Some(seen.times)
    }

    /// What was seen of a leg says nothing any more.
    pub fn forget(&mut self, leg: &Leg) {
        self.0.remove(leg);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_that_waits_and_none_that_is_done() {
        let (start, leg, mut flow) = (Instant::now(), Leg::new("b1").unwrap(), Flow::default());
        for (second, done, waiting, want) in [
            (0, 5, 1, None),
            (2, 5, 1, None),
            (3, 5, 2, Some(1)),
            (4, 5, 2, None),
            (6, 5, 2, Some(2)),
            // Some goes through, and some waits still.
            (7, 6, 2, None),
            (9, 7, 2, None),
            (12, 7, 1, Some(3)),
            (13, 7, 0, None),
            (20, 7, 1, None),
            (22, 7, 1, None),
            (23, 7, 1, Some(1)),
            // Busy for long: some waits at each look, and some is done.
            (24, 8, 1, None),
            (40, 9, 1, None),
            (54, 10, 1, None),
            (57, 10, 1, Some(1)),
        ] {
            let now = start + Duration::from_secs(second);
            let still = flow.stands_still(&leg, Io { done, waiting }, now);
            assert_eq!(still, want, "{second}");
        }
    }
}
