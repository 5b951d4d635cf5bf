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
    let results = said.lines().rev().find(|line| line.contains("Overall Results"));
    ensure!(status.success(), "CTS: {status}: {}", results.unwrap_or("no results"));
    let all = format!("'success': {}", tests.len());
    ensure!(results.is_some_and(|line| line.contains(&all)), "CTS: {results:?}");
    Ok(())
}
