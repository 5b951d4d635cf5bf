//! Asks the tools that other people wrote for agents about ours: schemas, Pacemaker's and crmsh's commands, pcs, a fencer,
//! the simulation of the example's cluster. They run in a root file system of each Debian release, without a cluster, and
//! without a virtual machine: what needs a kernel with ZFS is the lab's.
#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a program for a terminal, which drives many others; the rules of the agents are not its own"
)]

mod crm;
mod fencer;
mod node;
mod pcs;
mod report;
mod root;
mod schemas;
mod simulation;

use anyhow::{Result, ensure};
use report::Report;
use root::Root;
use std::process::ExitCode;

/// The Debian releases whose tools are asked.
const RELEASES: [&str; 2] = ["bookworm", "trixie"];
/// The resource agents.
const AGENTS: [&str; 5] = [
    "client-iscsi-tpg",
    "iscsi-backend-export",
    "iscsi-backend-health",
    "sync-iscsi-luns",
    "zfs-pool",
];

/// The target of those that are asked for one.
const TARGET: &str = "iqn=iqn.2025-01.lab.home:x";
/// A resource of each: its id, and what it is made of.
const RESOURCES: [(&str, &str); 5] = [
    ("pool", "ocf:hasan:zfs-pool pool=tank"),
    (
        "luns",
        "ocf:hasan:sync-iscsi-luns iqn=iqn.2025-01.lab.home:x dataset=tank/x generate_node_acls=1",
    ),
    ("door", "ocf:hasan:client-iscsi-tpg iqn=iqn.2025-01.lab.home:x portals=192.0.2.9:3260"),
    ("export", "ocf:hasan:iscsi-backend-export"),
    ("health", "ocf:hasan:iscsi-backend-health"),
];

type Ask = fn(&Root) -> Result<Vec<Report>>;

const TOOLS: [(&str, Ask); 6] = [
    ("xmllint", schemas::ask),
    ("crm_resource and crmsh", crm::ask),
    ("pcs", pcs::ask),
    ("stonith_admin", fencer::ask),
    ("crm_simulate", simulation::ask),
    ("pacemakerd", node::ask),
];

fn main() -> ExitCode {
    support::command::end(run())
}

/// Asks all tools, or those with one of the arguments in their name.
fn run() -> Result<()> {
    let only: Vec<String> = std::env::args().skip(1).collect();
    root::install_needs()?;
    let mut reports = Vec::new();
    // Each release has its own root, and a processor.
    std::thread::scope(|scope| {
        let threads = RELEASES.map(|release| scope.spawn(|| ask(release, &only)));
        for thread in threads {
            reports.extend(thread.join().expect("nothing panics")?);
        }
        Ok::<(), anyhow::Error>(())
    })?;
    let (checks, wrong) = reports.iter().fold((0, 0), |(checks, wrong), report: &Report| {
        (checks + report.checks, wrong + report.wrong.len())
    });
    for report in &reports {
        report.print();
    }
    println!("{} tools, {checks} checks, {wrong} of them wrong", reports.len());
    ensure!(wrong == 0 && checks > 0, "not all that was asked is right");
    Ok(())
}

fn ask(release: &str, only: &[String]) -> Result<Vec<Report>> {
    let root = Root::open(release)?;
    let is_asked = |name: &str| only.is_empty() || only.iter().any(|part| name.contains(part));
    let mut reports = Vec::new();
    for (name, ask) in TOOLS.iter().filter(|(name, _)| is_asked(name)) {
        // The others are asked all the same.
        let unable = |error| vec![Report::unable(&root, name, &error)];
        reports.extend(ask(&root).unwrap_or_else(unable));
    }
    Ok(reports)
}
