//! How long the other node's legs have been here.

use hasan::legs::Leg;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How long the same legs must have been here before they are brought back: a link that flaps would
/// begin a resilver each time, and so would legs that arrive one after another.
const STABLE: Duration = Duration::from_secs(5);

/// The legs of the other node that are here.
#[derive(Default)]
pub(crate) struct Presence {
    legs: BTreeSet<Leg>,
    /// Since when it is these, if it is any.
    since: Option<Instant>,
}

impl Presence {
    pub(crate) fn note(&mut self, legs: &BTreeSet<Leg>, now: Instant) {
        if self.legs != *legs {
            self.since = (!legs.is_empty()).then_some(now);
            self.legs.clone_from(legs);
        }
    }

    pub(crate) fn is_stable(&self, now: Instant) -> bool {
        self.since.is_some_and(|since| now.saturating_duration_since(since) >= STABLE)
    }
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
}
