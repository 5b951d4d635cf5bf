//! What was logged. Of what fails at each pass, the journal needs no line for each.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// After so long the same is said again: whoever looks at the end of the journal has to find it.
const AGAIN: Duration = Duration::from_secs(600);

/// The errors that were said, and when.
#[derive(Default)]
pub(crate) struct Said(BTreeMap<String, Instant>);

impl Said {
    /// Logs an error, unless that was done not long ago.
    pub(crate) fn error(&mut self, text: &str) {
        if self.is_new(text, Instant::now()) {
            tracing::error!("{text}");
        }
    }

    fn is_new(&mut self, text: &str, now: Instant) -> bool {
        self.0.retain(|_, then| now.saturating_duration_since(*then) < AGAIN);
        let is_new = !self.0.contains_key(text);
        if is_new {
            self.0.insert(text.to_string(), now);
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_in_a_while() {
        let (start, mut said) = (Instant::now(), Said::default());
        for (second, text, want) in [
            (0, "no login", true),
            (3, "no login", false),
            (4, "no mark", true),
            (599, "no login", false),
            (600, "no login", true),
            (603, "no mark", false),
            (604, "no mark", true),
        ] {
            assert_eq!(said.is_new(text, start + Duration::from_secs(second)), want, "{second}");
        }
    }
}
