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
    let status = timed(LIMIT, "ip", &words).status()?;
    let said = fs::read_to_string(&log).with_context(|| log.display().to_string())?;
    ensure!(status.success(), "CTS: {status}: {}", results(&said));
    judge_log(&said, tests.len())
}

fn results(log: &str) -> &str {
    log.lines().rev().find(|line| line.contains("Overall Results")).unwrap_or("no results")
}

/// Whether so many tests have succeeded, and each audit. One that is skipped counts as one that succeeded to it: most have to
/// have been done.
fn judge_log(log: &str, tests: usize) -> Result<()> {
    let audit = log.lines().find(|line| line.contains("Audit ") && line.ends_with(" FAILED."));
    ensure!(audit.is_none(), "CTS: {audit:?}");
    let results = results(log);
    ensure!(results.contains(&format!("'success': {tests}")), "CTS: {results:?}");
    let mut skipped = 0;
    for line in log.lines().filter(|line| line.contains("'skipped': ")) {
        let rest = line.split("'skipped': ").nth(1).unwrap_or_default();
        let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
        skipped += number.parse::<usize>().with_context(|| format!("CTS says {line:?}"))?;
    }
    println!("{skipped} of {tests} tests of CTS were skipped");
    ensure!(skipped * 2 <= tests, "CTS has skipped too many tests");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::judge_log;

    #[test]
    fn a_log_is_judged_by_successes_skips_and_audits() {
        let log = |success: usize, skipped: usize, more: &str| {
            format!(
                "Nov 23 11:29:40\tOverall Results:{{'success': {success}, 'failure': 0, 'BadNews': 4}}\n{more}\
                 Nov 23 11:29:40\tTest Flip:                {{'calls': 2, 'failure': 0, 'skipped': {skipped}, 'auditfail': 0}}\n\
                 Nov 23 11:29:40\tTest Standby:             {{'calls': 1, 'failure': 0, 'skipped': 1, 'auditfail': 0}}\n"
            )
        };
        assert!(judge_log(&log(4, 0, ""), 4).is_ok());
        assert!(judge_log(&log(4, 1, ""), 4).is_ok());
        assert!(judge_log(&log(4, 2, ""), 4).is_err());
        assert!(judge_log(&log(3, 0, ""), 4).is_err());
        assert!(judge_log(&log(4, 0, "Nov 23\tAudit FileAudit FAILED.\n"), 4).is_err());
        assert!(judge_log(&log(4, 0, "").replace("'skipped': 1", "'skipped': x"), 4).is_err());
        assert!(judge_log("", 0).is_err());
    }
}
