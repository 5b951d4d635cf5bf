//! Whether the I/O of a leg goes on. A path that was lost and came back between two looks is as it was, by all that is to be
//! seen of its disk; but dm-multipath does not send I/O there any more, and lets it wait for ever.

use hasan::legs::{Io, Leg};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// I/O that waits for so long, while none is done, stands still.
const STILL: Duration = Duration::from_secs(3);

/// What was last seen of each leg's I/O, and since when it is the same.
#[derive(Default)]
pub(crate) struct Flow(BTreeMap<Leg, (Io, Instant)>);

impl Flow {
    /// Whether the I/O of a leg stands still. Said once, and again after as long.
    pub(crate) fn stands_still(&mut self, leg: &Leg, io: Io, now: Instant) -> bool {
        let (seen, since) = self.0.entry(leg.clone()).or_insert((io, now));
        if io.waiting == 0 || seen.waiting == 0 || seen.done != io.done {
            (*seen, *since) = (io, now);
            return false;
        }
        let is_still = now.saturating_duration_since(*since) >= STILL;
        if is_still {
            *since = now;
        }
        is_still
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_that_waits_and_none_that_is_done() {
        let (start, leg, mut flow) = (Instant::now(), Leg::new("b1").unwrap(), Flow::default());
        for (second, done, waiting, want) in [
            (0, 5, 1, false),
            (2, 5, 1, false),
            (3, 5, 2, true),
            (4, 5, 2, false),
            (6, 5, 2, true),
            (7, 6, 2, false),
            (9, 7, 2, false),
            (12, 7, 0, false),
            (20, 7, 1, false),
            (22, 7, 1, false),
            (23, 7, 1, true),
        ] {
            let now = start + Duration::from_secs(second);
            let still = flow.stands_still(&leg, Io { done, waiting }, now);
            assert_eq!(still, want, "{second}");
        }
    }
}
