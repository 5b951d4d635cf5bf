//! CTS, by which Pacemaker's own people test it, over this cluster with its resources: it stops, starts, fences and breaks
//! members and resources, and looks after each whether Pacemaker did what it should. A client writes all the while.

use crate::faults::{mixed, number, pick, seed};
use crate::machine::MACHINES;
use crate::net::NAMESPACE;
use crate::scenarios::{judge, written_to};
use crate::state::Lab;
use crate::storm::whole;
use crate::{image, ssh};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use support::command::{stage, timed};
use support::debian;
use support::recipe::Recipe;

/// Its tests that need nothing that the machines do not have. What a cut link does is our own storm's.
const TESTS: [&str; 13] = [
    "Flip",
    "Restart",
    "Stonithd",
    "StartOnebyOne",
    "SimulStart",
    "SimulStop",
    "StopOnebyOne",
    "RestartOnebyOne",
    "PartialStart",
    "Standby",
    "MaintenanceMode",
    "ComponentFail",
    "NearQuorumPoint",
];
/// How many of them, unless HASAN_ROUNDS says so.
const COUNT: u64 = 20;
/// For all of them.
const LIMIT: Duration = Duration::from_secs(6 * 3600);
/// For the making of the program out of its source.
const BUILD: Duration = Duration::from_secs(900);
/// What it needs on the host.
const NEEDS: [(&str, &str); 3] = [
    ("ping", "iputils-ping"),
    ("python3", "python3"),
    ("python3/dist-packages/dateutil/__init__.py", "python3-dateutil"),
];

/// So many tests, chosen by the seed.
pub(crate) fn random(lab: &Lab) -> Result<()> {
    let seed = seed()?;
    let count = number("HASAN_ROUNDS")?.unwrap_or(COUNT);
    let chosen: Vec<&str> =
        (1..=count).map(|round| *pick(&TESTS, mixed(seed.wrapping_add(round)))).collect();
    let folder = ensure(lab)?;
    let (_, _, writer) = written_to(lab)?;
    stage(&format!("CTS: {}", chosen.join(" ")), || run(lab, &folder, seed, &chosen))?;
    // At its end it stops the cluster.
    for node in &MACHINES[..3] {
        ssh::run(lab, node, "systemctl start corosync pacemaker")?;
    }
    whole(lab)?;
    judge(lab, &writer.stop()?)
}

/// The folder of its program, made if it is not there.
fn ensure(lab: &Lab) -> Result<PathBuf> {
    debian::install(&NEEDS)?;
    let recipe = Recipe {
        cache: &lab.cache,
        name: format!("cts-{}", lab.release),
        script: lab.project.join("tests/lab/cts.sh"),
        release: &lab.release,
    };
    recipe.made(BUILD)
}

fn run(lab: &Lab, folder: &Path, seed: u64, tests: &[&str]) -> Result<()> {
    let log = lab.file("cts.log");
    let text = |path: PathBuf| path.display().to_string();
    let (program, key) = (text(folder.join("run")), text(image::folder(lab)?.join("key")));
    let (sockets, log_text, seed) = (text(lab.run()), text(log.clone()), seed.to_string());
    let mut words = vec!["netns", "exec", NAMESPACE, &program, &key, &sockets, &log_text, &seed];
    words.extend(tests);
    let command = timed(LIMIT, "ip", &words);
    // It ends with the lab: otherwise it would go on, through the lab's connections, with the next cluster.
    let status = Command::new("setpriv")
        .args(["--pdeathsig", "TERM"])
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null())
        .status()?;
    let said = fs::read_to_string(&log).with_context(|| log.display().to_string())?;
    ensure!(status.success(), "CTS: {status}: {}", results(&said));
    judge_log(&said, tests.len())
}

fn results(log: &str) -> &str {
    log.lines().rev().find(|line| line.contains("Overall Results")).unwrap_or("no results")
}

/// Whether all tests have succeeded, and each audit. A test that was skipped is counted as a success, too: half of them at
/// least have to have been done.
fn judge_log(log: &str, tests: usize) -> Result<()> {
    let audit = log.lines().find(|line| is_failed_audit(line));
    ensure!(audit.is_none(), "CTS: {}", audit.unwrap_or_default());
    let results = results(log);
    ensure!(figure(results, "success") == Some(tests), "CTS: {results}");
    let skipped = skipped(log, tests)?;
    println!("{skipped} of {tests} tests of CTS were skipped");
    ensure!(skipped * 2 <= tests, "CTS has skipped {skipped} of {tests} tests");
    Ok(())
}

/// `Audit NAME FAILED.` after a test, `Internal TEST Audit NAME FAILED.` during one. What an audit has found stands before it.
fn is_failed_audit(line: &str) -> bool {
    line.contains("Audit ") && line.ends_with(" FAILED.")
}

/// How many of the tests were skipped: the last summary has a row for each, and in the log, though not on the terminal, each
/// row comes once more for those who debug.
fn skipped(log: &str, tests: usize) -> Result<usize> {
    let (_, summary) = log.rsplit_once("Test Summary").context("CTS has summed nothing up")?;
    let is_row = |line: &&str| line.contains("'auditfail': ") && !line.contains("debug: ");
    let rows: Vec<&str> = summary.lines().filter(is_row).collect();
    ensure!(rows.len() == tests, "CTS has summed up {} of {tests} tests", rows.len());
    rows.iter().map(|row| figure(row, "skipped").with_context(|| format!("CTS: {row}"))).sum()
}

/// A figure of a line as Python prints it: `{'NAME': FIGURE, 'NAME': FIGURE}`.
fn figure(line: &str, name: &str) -> Option<usize> {
    let (_, rest) = line.split_once(&format!("'{name}': "))?;
    rest.split([',', '}']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{figure, is_failed_audit, judge_log};

    /// The end of a log of four tests, as both releases write it; 2.1 has more figures in the rows for those who debug.
    fn log(success: usize, skipped: usize, before: &str) -> String {
        let at = "Nov 23 11:29:40\texerciser";
        let row = |name: &str, skipped: usize| {
            format!(
                "Test {name:<20} {{'calls': 1, 'failure': 0, 'skipped': {skipped}, 'auditfail': 0}}"
            )
        };
        let rows =
            [row("Flip:", skipped), row("Flip:", 0), row("Standby:", 1), row("SimulStart:", 0)];
        let shown: String = rows.iter().map(|row| format!("{at} {row}\n")).collect();
        let detailed: String = rows.iter().map(|row| format!("{at} debug: {row}\n")).collect();
        format!(
            "{at} Running test Flip                   (storage-a)    [  1]\n{before}\
             {at} debug: Audit FileAudit passed.\n\
             {at} ****************\n\
             {at} Overall Results:{{'success': {success}, 'failure': 0, 'BadNews': 4, 'skipped': 0}}\n\
             {at} ****************\n{at} Test Summary\n{shown}\
             {at} debug: Detailed Results\n{detailed}\
             {at} <<<<<<<<<<<<<<<< TESTS COMPLETED\n"
        )
    }

    #[test]
    fn a_log_is_judged_by_successes_and_skips() {
        assert!(judge_log(&log(4, 0, ""), 4).is_ok());
        assert!(judge_log(&log(4, 1, ""), 4).is_ok());
        assert!(judge_log(&log(4, 2, ""), 4).is_err());
        assert!(judge_log(&log(3, 0, ""), 4).is_err());
        assert!(judge_log(&log(40, 0, ""), 4).is_err());
        // A row that is missing, one that tells no figure, a summary before the last one, and nothing.
        assert!(judge_log(&log(4, 0, "").replace(" Test Standby", " debug: "), 4).is_err());
        assert!(judge_log(&log(4, 0, "").replace("'skipped': 1", "'skipped': x"), 4).is_err());
        assert!(judge_log(&log(4, 1, &log(0, 9, "")), 4).is_ok());
        assert!(judge_log("", 0).is_err());
    }

    #[test]
    fn an_audit_that_failed_is_seen() {
        let at = "Nov 23 11:29:40\texerciser";
        for (line, want) in [
            ("Audit FileAudit FAILED.", true),
            ("Internal SplitBrain Audit PartitionAudit FAILED.", true),
            ("debug: Audit FileAudit passed.", false),
            ("audit: Could not perform audit: No configuration from storage-a", false),
            (
                "Test start                          FAILED: Startup crm-corosync on node storage-b failed",
                false,
            ),
        ] {
            let line = format!("{at} {line}");
            assert_eq!(is_failed_audit(&line), want, "{line}");
            assert_eq!(judge_log(&log(4, 0, &format!("{line}\n")), 4).is_err(), want, "{line}");
        }
    }

    #[test]
    fn a_figure_is_a_whole_number() {
        assert_eq!(figure("{'success': 20, 'skipped': 3}", "success"), Some(20));
        assert_eq!(figure("{'success': 20, 'skipped': 3}", "skipped"), Some(3));
        assert_eq!(figure("{'success': 2x}", "success"), None);
        assert_eq!(figure("no results", "success"), None);
    }
}
