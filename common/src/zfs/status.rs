//! `zpool status`: the state of each vdev, and of the scan. ZFS 2.1 and 2.2 have no
//! machine-readable form of it, so the table is read strictly.

use crate::ocf::Fault;
use std::fmt;

/// What `zpool status -p POOL` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The scrub or resilver that runs, or was the last.
    pub scan: Scan,
    /// How much of a resilver that runs is done, percent; `None` if none runs, or ZFS cannot say yet.
    pub resilvered: Option<u8>,
    /// All vdevs that hold the pool's data, with the pool itself and the mirrors, in the order of the table: no spares and no
    /// caches, without which nothing is missing.
    pub vdevs: Vec<Vdev>,
}

/// What ZFS says of its scans (`cmd/zpool/zpool_main.c`, `print_scan_scrub_resilver_status`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// A scrub or a resilver runs, or a scrub is paused.
    Running,
    /// A scrub has ended, and all that it read is right now.
    ScrubbedWell,
    /// Anything else: none yet, a resilver that has ended, one that was cancelled, one that found what it could not mend.
    Other,
}

/// A vdev.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vdev {
    /// As ZFS prints it: for a leg its name; for one that was not there at the import its GUID.
    pub name: String,
    /// The path that such a one had.
    pub was: Option<String>,
    /// ONLINE, DEGRADED, FAULTED, OFFLINE, REMOVED or UNAVAIL.
    pub state: String,
    /// Errors of reading, of writing, and of checksums, together.
    pub errors: u64,
    /// Those of checksums alone: data that was there, and wrong.
    pub wrong: u64,
    /// Whether it is being resilvered, or waits for it.
    pub resilvering: bool,
}

impl fmt::Display for Vdev {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.was.as_deref().and_then(|path| path.rsplit('/').next());
        write!(out, "{} {}", name.unwrap_or(&self.name), self.state)?;
        if self.errors > 0 {
            write!(out, " with {} errors", self.errors)?;
        }
        Ok(())
    }
}

const STATES: [&str; 8] =
    ["ONLINE", "DEGRADED", "FAULTED", "OFFLINE", "REMOVED", "UNAVAIL", "AVAIL", "INUSE"];

/// Parses `zpool status -p POOL`.
///
/// # Errors
/// A row of the table that is not a vdev, or a text without a table.
pub fn parse_status(text: &str) -> Result<Status, Fault> {
    let resilvered = scans(text).find_map(|scan| resilvered(scan, text));
    let kinds: Vec<Scan> = scans(text).map(scan_of).collect();
    let has = |scan: &Scan| kinds.contains(scan);
    let scan = [Scan::Running, Scan::ScrubbedWell].into_iter().find(has).unwrap_or(Scan::Other);
    let mut rows = text.lines().skip_while(|line| !line.trim_start().starts_with("NAME "));
    if rows.next().is_none() {
        return Err(Fault::generic("\"zpool status\" shows no table of vdevs"));
    }
    let (mut vdevs, mut is_beside) = (Vec::new(), false);
    for row in rows.take_while(|row| !row.trim().is_empty()) {
        let words: Vec<&str> = row.split_whitespace().collect();
        match words[..] {
            [group @ ("logs" | "cache" | "spares" | "special" | "dedup")] => {
                is_beside = matches!(group, "cache" | "spares");
            }
            // A spare has no counters.
            [_, state, ..] if is_beside && STATES.contains(&state) => {}
            _ if is_beside => return Err(strange(row)),
            _ => vdevs.push(vdev(row, &words)?),
        }
    }
    Ok(Status { scan, resilvered, vdevs })
}

/// A line for the last scrub or resilver, and one for each mirror that was resilvered in sequence (`attach -s`).
fn scans(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.trim_start().strip_prefix("scan: "))
}

fn scan_of(line: &str) -> Scan {
    let is = |words: &str| line.contains(words);
    if is(" in progress since ") || line.starts_with("scrub paused since ") {
        Scan::Running
    } else if line.starts_with("scrub repaired ") && is(" with 0 errors on ") {
        Scan::ScrubbedWell
    } else {
        Scan::Other
    }
}

/// The scan's progress stands in a line below its first: `1.17M resilvered, 45.32% done, 00:00:12 to go`.
fn resilvered(scan: &str, text: &str) -> Option<u8> {
    if !scan.starts_with("resilver in progress since ") {
        return None;
    }
    let (before, _) = text.lines().find_map(|line| line.split_once("% done"))?;
    let number = before.rsplit(' ').next()?.split('.').next()?;
    number.parse().ok().filter(|percent| *percent <= 100)
}

fn vdev(row: &str, words: &[&str]) -> Result<Vdev, Fault> {
    let [name, state, read, write, checksum, ref more @ ..] = *words else {
        return Err(strange(row));
    };
    if !STATES.contains(&state) {
        return Err(strange(row));
    }
    let count = |word: &str| word.parse::<u64>().map_err(|_| strange(row));
    let wrong = count(checksum)?;
    let errors = count(read)?.saturating_add(count(write)?).saturating_add(wrong);
    let was = match more {
        ["was", path, ..] => Some(path.to_string()),
        _ => None,
    };
    let resilvering = more.iter().any(|word| word.contains("resilver"));
    let (name, state) = (name.to_string(), state.to_string());
    Ok(Vdev { name, was, state, errors, wrong, resilvering })
}

fn strange(row: &str) -> Fault {
    Fault::generic(format!("cannot read the row {:?} of \"zpool status\"", row.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEGRADED: &str = "  pool: san-pool\n state: DEGRADED\n  scan: resilver in progress since Sat\n\
        \t210698240 scanned at 3570105/s, 1228800 issued at 1/s\n\
        \t1228800 resilvered, 45.32% done, 00:00:12 to go\n\
        config:\n\n\tNAME         STATE     READ WRITE CKSUM\n\tsan-pool     DEGRADED     0     0     0\n\
        \t  mirror-0   DEGRADED     0     0     0\n\t    data-a1  ONLINE       0     0     0  (resilvering)\n\
        \t    data-b1  FAULTED      3   154     1  too many errors\n\
        \t    1535924578361137954  UNAVAIL  0  0  0  was /dev/mapper/data-b2\n\nerrors: No known data errors\n";

    #[test]
    fn of_several_scans_one_that_runs_counts() {
        let scrub = "scan: scrub repaired 0B in 00:00:02 with 0 errors on Sun";
        let running = "scan: resilver (mirror-0) in progress since Sun";
        let table = "\n\tNAME STATE READ WRITE CKSUM\n\tp ONLINE 0 0 0\n";
        for (lines, want) in [
            (format!("  {scrub}{table}"), Scan::ScrubbedWell),
            (format!("  {scrub}\n  {running}{table}"), Scan::Running),
            (table.to_string(), Scan::Other),
        ] {
            assert_eq!(parse_status(&lines).unwrap().scan, want, "{lines}");
        }
    }

    #[test]
    fn the_table_is_read() {
        let status = parse_status(DEGRADED).unwrap();
        assert_eq!((status.scan, status.resilvered), (Scan::Running, Some(45)));
        assert_eq!(status.vdevs.len(), 5);
        let (name, state) = ("data-b1".to_string(), "FAULTED".to_string());
        let faulted = Vdev { name, was: None, state, errors: 158, wrong: 1, resilvering: false };
        assert_eq!(status.vdevs[3], faulted);
        assert!(status.vdevs[2].resilvering);
        assert_eq!(status.vdevs[3].to_string(), "data-b1 FAULTED with 158 errors");
        assert_eq!(status.vdevs[4].to_string(), "data-b2 UNAVAIL");
        assert_eq!(status.vdevs[4].name, "1535924578361137954");
        assert_eq!(status.vdevs[4].was.as_deref(), Some("/dev/mapper/data-b2"));
    }

    #[test]
    fn what_holds_no_data_is_no_part_of_it() {
        let more = "\tlogs\n\t  log-a ONLINE 0 0 0\n\tcache\n\t  1234 UNAVAIL 0 0 0 was /dev/sdz1\n\tspares\n\t  1235 UNAVAIL was /dev/sdy1\n\t  data-a9  AVAIL\n\n";
        let status = parse_status(&DEGRADED.replace("data-b2\n\n", &format!("data-b2\n{more}")));
        let names: Vec<String> = status.unwrap().vdevs.into_iter().map(|vdev| vdev.name).collect();
        assert_eq!(names[4..], ["1535924578361137954", "log-a"]);
        let strange = more.replace("AVAIL\n\n", "GONE\n\n");
        assert!(
            parse_status(&DEGRADED.replace("data-b2\n\n", &format!("data-b2\n{strange}"))).is_err()
        );
    }

    #[test]
    fn the_scan_is_told_by_its_words() {
        for (line, want) in [
            ("", Scan::Other),
            ("none requested", Scan::Other),
            ("scrub repaired 0B in 00:00:01 with 0 errors on Sat Nov 21 2026", Scan::ScrubbedWell),
            ("scrub repaired 0B in 00:00:01 with 10 errors on Sat Nov 21 2026", Scan::Other),
            ("resilvered 1.2M in 00:00:02 with 0 errors on Sat Nov 21 2026", Scan::Other),
            ("scrub canceled on Sat Nov 21 2026", Scan::Other),
            ("scrub in progress since Sat Nov 21 2026", Scan::Running),
            ("resilver in progress since Sat Nov 21 2026", Scan::Running),
            ("scrub paused since Sat Nov 21 2026", Scan::Running),
        ] {
            assert_eq!(scan_of(line), want, "{line:?}");
        }
    }

    #[test]
    fn only_a_resilver_that_runs_has_progress() {
        let of =
            |from: &str, to: &str| parse_status(&DEGRADED.replace(from, to)).unwrap().resilvered;
        assert_eq!(of("resilver in progress", "scrub in progress"), None);
        assert_eq!(of("45.32% done", "no estimated completion time"), None);
        assert_eq!(of("45.32% done", "many% done"), None);
        assert_eq!(of("45.32% done", "100.00% done"), Some(100));
    }

    #[test]
    fn a_strange_row_is_an_error_that_shows_it() {
        for (from, to) in [("ONLINE       0", "BROKEN       0"), ("154", "many")] {
            let fault = parse_status(&DEGRADED.replace(from, to)).unwrap_err();
            assert!(fault.reason.contains("of \"zpool status\""), "{}", fault.reason);
        }
        assert!(parse_status("no pools available\n").is_err());
    }
}
