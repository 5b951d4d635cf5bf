//! The lab's checks, a line for each; and the demo.

use crate::machine::{self, MACHINES, Machine};
use crate::state::Lab;
use crate::{
    access_checks, cluster, cts, faults, fences, load, lun_checks, many_luns, orders, pool_checks,
    scenarios, ssh, storm, strange_legs, tester, timers, two_pools, vlans, watch_checks,
};
use anyhow::{Result, bail, ensure};
use std::fs;
use std::time::{Duration, Instant};
use support::command::{await_until, last_lines};

type Check = (&'static str, fn(&Lab) -> Result<()>);

/// What `make test` always runs.
const CHECKS: [Check; 5] = [
    ("disks lose what was not flushed, and nothing else", disks_lose_unflushed),
    ("ocf-tester on every agent", tester::all_agents),
    ("zfs-pool refuses while another may have the pool", pool_checks::refusals),
    ("sync-iscsi-luns follows the zvols", lun_checks::syncs),
    ("sync-iscsi-luns with a hundred LUNs", many_luns::hundred),
];

/// What it runs for as long as [`BEGIN`] allows, in an order by the seed; and all by name, or with `--all`.
const BY_TURNS: [Check; 17] = [
    ("an administrator's commands", commands),
    ("the watch of a well node", watch_checks::healthy),
    ("zfs-pool names the holders of its pool", pool_checks::holders),
    ("zfs-pool writes, loads keys, mounts", pool_checks::datasets),
    ("zfs-pool knows an old fencing from a new one", pool_checks::fenced_before),
    ("zfs-pool finds a leg behind its mirror's other one", pool_checks::behind),
    ("zfs-pool is cut off between any two steps", pool_checks::cut_starts),
    ("zfs-pool is killed during its import", pool_checks::killed_import),
    ("zfs-pool loses the other node's legs at its import", pool_checks::legs_lost_at_import),
    ("zfs-pool while scrubs begin", pool_checks::scrubs),
    ("zfs-pool with blank legs, and a second pool", two_pools::second),
    ("zfs-pool on a suspended pool", pool_checks::suspended),
    ("sync-iscsi-luns beside Proxmox's plugin", lun_checks::plugin),
    ("sync-iscsi-luns with a dataset in another one's", lun_checks::nested),
    ("sync-iscsi-luns is cut off between any two steps", lun_checks::cut),
    ("targetcli's configuration is restored without our part", lun_checks::restore),
    ("CHAP lets in who has the password", access_checks::chap),
];

/// Until when one of [`BY_TURNS`] may begin. A cold run has the image and the cluster to make first, and has to end within
/// the hour on a slow machine, too.
const BEGIN: Duration = Duration::from_secs(25 * 60);

/// What fails in the field. `make test` runs one of them, by the seed; and all by name, with `--faults` or `--all`.
const FAULTS: [Check; 9] = [
    ("crash of the active node", scenarios::crash),
    ("the storage link is cut", scenarios::link_cut),
    ("a node with old data alone", scenarios::stale),
    ("a plug takes commands and does not obey", fences::stuck_plug),
    ("the link is cut, and the active node dies before the mark", faults::before_mark),
    ("the link is cut, and the active node dies with one half", faults::released),
    ("the link is cut, and the active node dies at once", faults::link_cut),
    ("the link is cut, and the active node dies some time", faults::random),
    ("the third voter goes, then the standby", faults::quorum_goes),
];

/// What takes long, or is young: by name, with `--faults` or `--all`.
const MORE: [Check; 26] = [
    ("two VLANs move and are taken over", vlans::two_vlans),
    ("the last owner alone", scenarios::last_owner),
    ("the pool moves while the third voter is lost", faults::moves_without_quorum_node),
    ("a frozen node wakes up", fences::frozen),
    ("a second plug where the first does not obey", fences::second_plug),
    ("a person confirms that a node is off", fences::confirmed),
    ("a leg is damaged in silence", scenarios::silent_damage),
    ("a leg is damaged in silence, and the active node dies", scenarios::silent_damage_and_death),
    ("the watch hangs, and the storage link is cut", watch_checks::hangs),
    ("the standby's legs go and come back", faults::legs_return),
    ("a disk is replaced by a blank one", strange_legs::replaced_disk),
    ("a disk is replaced by one of another pool", strange_legs::foreign_disk),
    ("a leg comes back smaller", strange_legs::smaller_leg),
    ("a peer that nobody is", strange_legs::wrong_peer),
    ("a path fails while its disk seems well", strange_legs::path_fails),
    ("the link is cut, and the active node dies with the mark", faults::marked),
    ("a disk of the standby fails I/O", orders::disk_fails),
    ("a disk of the active node fails I/O", orders::own_disk_fails),
    ("a disk of the active node fails, then the storage link", orders::own_disk_and_link),
    ("the storage link is cut, then the cluster link", orders::both_links),
    ("the pool moves while it resilvers", orders::moves_while_resilvering),
    ("the active node dies while it resilvers", orders::dies_while_resilvering),
    ("a leg is detached while it is away", orders::detached),
    ("the mark outlives the boot of every node", orders::mark_outlives_boots),
    ("the active node is logged out, then shut down", orders::logged_out),
    ("all nodes are shut down at once", orders::shut_down_at_once),
];

/// What is no fault, or takes hours: by name, or with `--all`. `make demo` shows the first one, and a crash.
const OTHERS: [Check; 3] = [
    ("planned failover and back", scenarios::planned),
    ("a storm", storm::rounds),
    ("CTS, the cluster test of Pacemaker", cts::random),
];

/// How much of a machine's console is shown after a check has failed.
const CONSOLE_LINES: usize = 40;
/// The same of our programs' lines in the journal, and which these are.
const JOURNAL_LINES: usize = 80;
const OURS: [&str; 4] =
    ["-t zfs-pool", "-t iscsi-backend-health", "-t iscsi-backend-export", "-t sync-iscsi-luns"];

/// What is to be done: always, and as long as there is time.
struct Plan {
    always: Vec<Check>,
    in_time: Vec<Check>,
}

/// What is asked for.
pub(crate) enum Asked {
    /// [`CHECKS`] and one of [`FAULTS`], by the seed, and what else there is time for.
    Usual,
    /// What has one of these in its name.
    Named(Vec<String>),
    /// All that fails in the field.
    Faults,
    /// All there is.
    All,
}

fn plan(asked: &Asked, seed: u64) -> Plan {
    let faults = || FAULTS.iter().chain(&MORE).copied();
    let every = || CHECKS.iter().chain(&BY_TURNS).copied().chain(faults()).chain(OTHERS);
    let is_named = |parts: &[String], name: &str| parts.iter().any(|part| name.contains(part));
    let only = |always: Vec<Check>| Plan { always, in_time: vec![] };
    match asked {
        Asked::Usual => {}
        Asked::Named(parts) => {
            return only(every().filter(|(name, _)| is_named(parts, name)).collect());
        }
        Asked::Faults => return only(faults().collect()),
        Asked::All => return only(every().collect()),
    }
    let mut in_time = BY_TURNS.to_vec();
    // Each has its turn first, whatever the other ones take.
    in_time.rotate_left(faults::place(BY_TURNS.len(), faults::mixed(seed)));
    Plan { always: CHECKS.iter().chain([faults::pick(&FAULTS, seed)]).copied().collect(), in_time }
}

/// Runs checks, and says of each how it ended.
pub(crate) fn test(lab: &Lab, asked: &Asked) -> Result<()> {
    let begun = Instant::now();
    let Plan { always, in_time } = plan(asked, faults::seed()?);
    let (mut passed, mut failed, mut not_run) = (Vec::new(), Vec::new(), Vec::new());
    let mut run = |(name, check): Check| match run_one(lab, name, check) {
        Ok(line) => passed.push(line),
        Err(line) => failed.push(line),
    };
    always.into_iter().for_each(&mut run);
    for check in in_time {
        if begun.elapsed() < BEGIN {
            run(check);
        } else {
            not_run.push(format!("not run {}", check.0));
        }
    }
    machine::stop_all(lab)?;
    println!();
    passed.iter().chain(&failed).chain(&not_run).for_each(|line| println!("{line}"));
    println!(
        "{} passed, {} failed, {} not run for want of time",
        passed.len(),
        failed.len(),
        not_run.len()
    );
    ensure!(failed.is_empty() && !passed.is_empty(), "not all checks passed");
    Ok(())
}

/// Runs a check; a line of how it ended.
fn run_one(lab: &Lab, name: &str, check: fn(&Lab) -> Result<()>) -> Result<String, String> {
    println!("\n==== {name}");
    let begun = Instant::now();
    let result = check(lab);
    let seconds = begun.elapsed().as_secs_f64();
    // Said at once as well: a run may be cut off.
    result
        .map(|()| format!("ok      {name} ({seconds:.0} s)"))
        .inspect(|line| println!("{line}"))
        .map_err(|error| {
            let why = format!("{error:#}");
            println!("{why}");
            show_journals(lab);
            show_consoles(lab);
            format!("FAILED  {name} ({seconds:.0} s): {}", why.lines().next().unwrap_or_default())
        })
}

/// What our programs have said in each storage node since it has booted; the next check begins with other machines.
fn show_journals(lab: &Lab) {
    let ask = format!("journalctl --no-pager --boot --lines {JOURNAL_LINES} {}", OURS.join(" "));
    for machine in &MACHINES[..2] {
        let said = ssh::run(lab, machine, &ask).unwrap_or_else(|error| format!("{error:#}"));
        println!("the journal of {}:\n{said}", machine.name);
    }
}

/// The last lines that each machine's kernel has said: a node that was fenced has no other memory of them.
fn show_consoles(lab: &Lab) {
    for machine in &MACHINES {
        let said = fs::read(machine.console(lab)).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        println!("the console of {}:\n{}", machine.name, last_lines(&said, CONSOLE_LINES));
    }
}

/// Shows the cluster, a planned failover and back, and a crash, while a client writes.
pub(crate) fn demo(lab: &Lab) -> Result<()> {
    let shown = show_all(lab);
    machine::stop_all(lab)?;
    shown?;
    println!("0 acknowledged writes lost, 0 I/O errors");
    Ok(())
}

fn show_all(lab: &Lab) -> Result<()> {
    let active = scenarios::fresh_cluster(lab)?;
    cluster::show(lab, active)?;
    println!("\n==== planned failover and back");
    scenarios::planned(lab)?;
    println!("\n==== crash of the active node");
    scenarios::crash(lab)
}

fn disks_lose_unflushed(lab: &Lab) -> Result<()> {
    scenarios::fresh_cluster(lab)?;
    load::unflushed_is_lost(lab)
}

/// What people do with pcs and crm_resource works.
fn commands(lab: &Lab) -> Result<()> {
    let active = scenarios::fresh_cluster(lab)?;
    for resource in cluster::RESOURCES {
        let said =
            ssh::run(lab, active, &format!("crm_resource --force-check -r {resource} 2>&1"))?;
        ensure!(said.contains("ok"), "force-check of {resource}: {said}");
    }
    let described =
        ssh::within(lab, active, timers::PCS, "pcs resource describe ocf:hasan:zfs-pool")?;
    for word in ["pool (required) (unique group: pool)", "backend", "mount"] {
        ensure!(described.contains(word), "pcs describes zfs-pool without {word:?}:\n{described}");
    }
    let status = ssh::within(lab, active, timers::PCS, "pcs status 2>&1")?;
    for word in ["Stopped", "FAILED", "Failed Resource Actions", "OFFLINE", "UNCLEAN"] {
        let lines: Vec<&str> = status
            .lines()
            .filter(|line| line.contains(word) && !line.contains("Stopped: [ quorum-c ]"))
            .collect();
        ensure!(lines.is_empty(), "pcs status shows {lines:?}:\n{status}");
    }
    let ask = "attrd_updater --query --all --name hasan-legs-missing";
    let published = ssh::run(lab, active, ask)?;
    ensure!(published.matches("value=\"0\"").count() == 2, "{ask}: {published}");
    alerts(lab, active)?;
    bad_input(lab, active)
}

/// The example's alert agent, set up as its head says, tells of a leg that is missing.
fn alerts(lab: &Lab, node: &Machine) -> Result<()> {
    let create = "pcs alert create path=/usr/share/doc/hasan/alert.sh id=hasan-alert";
    ssh::within(lab, node, timers::PCS, create)?;
    let select =
        "sed -n 's/^# *//; /^cibadmin/,/<.alerts>/p' /usr/share/doc/hasan/alert.sh | sh -e";
    ssh::run(lab, node, select)?;
    let said = format!("{}: 2 legs of the other node are missing", node.name);
    // One of the members tells of a change, and takes a moment to know that there is somebody to tell.
    let change = "attrd_updater --name hasan-legs-missing --update 1 && attrd_updater --name hasan-legs-missing --update 2";
    await_until("an alert", timers::CLUSTER, || {
        ssh::run(lab, node, change)?;
        let journal = "journalctl --sync; journalctl -o cat -t hasan-alert";
        let of = |name| ssh::run(lab, Machine::named(name)?, journal);
        let journals = of("storage-a")? + &of("storage-b")? + &of("quorum-c")?;
        if journals.lines().any(|line| line == said) { Ok(()) } else { bail!(journals) }
    })
}

/// Bad input gets one sentence, the right exit code, and changes nothing.
fn bad_input(lab: &Lab, node: &Machine) -> Result<()> {
    let agents = "/usr/lib/ocf/resource.d/hasan";
    let before = ssh::run(lab, node, SHAPE)?;
    for (line, code, reason) in [
        ("zfs-pool start", 6, "the parameter \"pool\" is required"),
        ("OCF_RESKEY_pool=a/b zfs-pool start", 6, "\"a/b\" is not the name of a pool"),
        ("OCF_RESKEY_pool=nope zfs-pool start", 1, "no leg carries the pool \"nope\""),
        ("OCF_RESKEY_pool=nope zfs-pool monitor", 7, ""),
        (
            "OCF_RESKEY_iqn=iqn.2025-01.lab.home:x OCF_RESKEY_portals=10.9.9.9:3260 client-iscsi-tpg start",
            1,
            "10.9.9.9:3260 is not on this node",
        ),
        (
            "OCF_RESKEY_iqn=iqn.2025-01.lab.home:x OCF_RESKEY_portals=0.0.0.0:3260 client-iscsi-tpg start",
            6,
            "the wildcard address",
        ),
        (
            "OCF_RESKEY_iqn=x OCF_RESKEY_dataset=nope/x sync-iscsi-luns start",
            6,
            "\"x\" is not an iSCSI name",
        ),
        (
            "OCF_RESKEY_iqn=iqn.2025-01.lab.home:x OCF_RESKEY_dataset=nope/x OCF_RESKEY_generate_node_acls=1 \
             sync-iscsi-luns start",
            1,
            "the pool \"nope\" is not imported here",
        ),
        ("OCF_RESKEY_backend=/nowhere iscsi-backend-export start", 5, "/nowhere is not there"),
        ("zfs-pool promote", 3, "\"promote\" is not supported"),
    ] {
        let line = format!(
            "export OCF_RESOURCE_INSTANCE=bad-input PATH={agents}:$PATH; {line} 2>&1; echo \"exit $?\""
        );
        let said = ssh::run(lab, node, &line)?;
        let is_right = said.trim_end().ends_with(&format!("exit {code}")) && said.contains(reason);
        ensure!(is_right, "{line}\nshould exit {code} with {reason:?}:\n{said}");
        let sentences = said.matches("ocf-exit-reason:").count();
        ensure!(sentences == usize::from(!reason.is_empty()), "{line}\n{said}");
    }
    let after = ssh::run(lab, node, SHAPE)?;
    if before != after {
        bail!("bad input changed the node from\n{before}\nto\n{after}");
    }
    meta_data_as_nobody(lab, node)
}

/// All that the agents could have changed.
const SHAPE: &str = "find /sys/kernel/config/target | grep -v statistics | sort; ls /sys/block /dev/mapper; zpool list -H -o name";

fn meta_data_as_nobody(lab: &Lab, node: &Machine) -> Result<()> {
    for agent in [
        "zfs-pool",
        "sync-iscsi-luns",
        "client-iscsi-tpg",
        "iscsi-backend-export",
        "iscsi-backend-health",
    ] {
        let line = format!(
            "su nobody -s /bin/sh -c 'env -i /usr/lib/ocf/resource.d/hasan/{agent} meta-data' | xmllint --noout -"
        );
        ssh::run(lab, node, &format!("set -o pipefail; {line}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn what_is_asked_for_is_run() {
        let count = |asked: &Asked| {
            let plan = plan(asked, 0);
            (plan.always.len(), plan.in_time.len())
        };
        let named =
            |parts: &[&str]| Asked::Named(parts.iter().map(|part| (*part).to_string()).collect());
        let faults = FAULTS.len() + MORE.len();
        let all = CHECKS.len() + BY_TURNS.len() + faults + OTHERS.len();
        assert_eq!(count(&Asked::All), (all, 0));
        assert_eq!(count(&Asked::Faults), (faults, 0));
        assert_eq!(count(&Asked::Usual), (CHECKS.len() + 1, BY_TURNS.len()));
        assert_eq!(count(&named(&["two VLANs", "crash"])), (2, 0));
        assert_eq!(count(&named(&["no such"])), (0, 0));
    }

    #[test]
    fn each_has_its_turn() {
        let first = |of: fn(Plan) -> Option<Check>| {
            let names =
                (0..100).filter_map(|seed| of(plan(&Asked::Usual, seed)).map(|check| check.0));
            names.collect::<BTreeSet<&str>>().len()
        };
        assert_eq!(first(|plan| plan.always.last().copied()), FAULTS.len());
        assert_eq!(first(|plan| plan.in_time.first().copied()), BY_TURNS.len());
        let names: BTreeSet<&str> =
            plan(&Asked::Usual, 7).in_time.iter().map(|check| check.0).collect();
        assert_eq!(names.len(), BY_TURNS.len());
    }
}
