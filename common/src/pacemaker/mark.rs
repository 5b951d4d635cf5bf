//! The text of a mark: since when a node's legs have missed writes, and what is asked for.

/// What follows the time if something on the node's legs was wrong: they are to be read, all of them.
const SCRUB: &str = " scrub";

/// The text of a mark that is written now: its time is that of the first who wrote it, and what was asked for stays.
pub fn text(before: Option<&str>, now: &str, asks_for_scrub: bool) -> String {
    let mut text = before.unwrap_or(now).to_string();
    if asks_for_scrub && !self::asks_for_scrub(&text) {
        text += SCRUB;
    }
    text
}

/// Whether the legs are to be read before the mark goes.
pub fn asks_for_scrub(mark: &str) -> bool {
    mark.ends_with(SCRUB)
}

/// Whether a node with this mark, or none, may let the other one's legs go and write on without them. ZFS would write on to
/// legs that lack what only the lost ones have.
pub fn lets_other_go(own: Option<&str>) -> bool {
    own.is_none()
}

/// Since when.
pub fn since(mark: &str) -> &str {
    mark.split(' ').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_keeps_its_time_and_what_it_asks_for() {
        for (before, asks, want) in [
            (None, false, "7"),
            (None, true, "7 scrub"),
            (Some("5"), false, "5"),
            (Some("5"), true, "5 scrub"),
            (Some("5 scrub"), false, "5 scrub"),
            (Some("5 scrub"), true, "5 scrub"),
        ] {
            let mark = text(before, "7", asks);
            assert_eq!(mark, want);
            assert_eq!(asks_for_scrub(&mark), want.ends_with("scrub"));
            assert_eq!(since(&mark), before.map_or("7", |before| &before[..1]));
        }
    }
}
