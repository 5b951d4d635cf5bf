//! The example's cluster, as Pacemaker's `crm_simulate` moves it: what fails beside the pool never moves the pool.

use crate::report::Report;
use crate::root::Root;
use anyhow::{Result, ensure};

/// cluster.sh asks a cluster for its configuration and gives one back; here they are files. What it asks of the other nodes is
/// noted.
const PCS: &str = r#"#!/bin/bash
case "$1 $2" in
    "cluster cib") exec cp /conformance/empty.xml "$3" ;;
    "cluster cib-push") exec cp "$3" /conformance/made.xml ;;
    --request-timeout=*) echo "$2 $3" >> /conformance/asked ;;
    *) exec /usr/sbin/pcs "$@" ;;
esac
"#;
const VARIABLES: &str = r#"
HACLUSTER_PASSWORD_FILE=/dev/null
make_stonith() {
    for node in "$NODE_A" "$NODE_B" "$QUORUM"; do
        P stonith create "fence-$node" fence_smartplug type=shelly2 ip=192.0.2.1 pcmk_host_list="$node"
        P constraint location "fence-$node" avoids "$node"
    done
}
"#;
const NODES: [&str; 3] = ["storage-a", "storage-b", "quorum-c"];
/// What serves the clients.
const SERVED: [&str; 4] = ["zfs-pool", "luns-hypervisor", "vip-hypervisor", "door-hypervisor"];

/// What a thing that happens leads to.
enum Then {
    /// All that serves stays as and where it is.
    Stays,
    /// It goes on where it was, after a restart of some of it.
    Recovers,
    /// The other storage node serves, after a fencing.
    Moves,
    /// The other storage node serves, after a stop.
    Leaves,
    /// Nobody serves.
    Ends,
}

/// Asks it.
pub(crate) fn ask(root: &Root) -> Result<Vec<Report>> {
    let mut report = Report::of(root, "crm_simulate of", "crm_simulate --version")?;
    make(root)?;
    report.run(root, "crm_verify --xml-file up.xml -V", 0, &[])?;
    let (active, standby) = active(root)?;
    let failed =
        |operation: &str, node: &str, rc: u8| format!("--op-inject={operation}@{node}={rc}");
    let health = "backend-health_monitor_30000";
    let pool = "zfs-pool_monitor_10000";
    // What happens, and a word of what is done about it: that nothing moves proves nothing where nothing was noticed.
    let happens = [
        ("the health monitor fails", failed(health, &active, 1), Then::Stays, "backend-health"),
        ("the standby's fails", failed(health, &standby, 1), Then::Stays, "backend-health"),
        (
            "the export's monitor fails",
            failed("backend-export_monitor_30000", &active, 1),
            Then::Stays,
            "backend-export",
        ),
        ("the pool is degraded", failed(pool, &active, 190), Then::Stays, ""),
        ("SMB fails too often", failed("smb_monitor_30000", &active, 1), Then::Stays, "smb"),
        ("the standby dies", format!("--node-fail={standby}"), Then::Stays, "Fence"),
        ("the quorum node dies", "--node-fail=quorum-c".to_string(), Then::Stays, "Fence"),
        ("the pool's monitor fails", failed(pool, &active, 1), Then::Recovers, "zfs-pool"),
        (
            "the LUNs' monitor fails",
            failed("luns-hypervisor_monitor_10000", &active, 1),
            Then::Recovers,
            "luns-hypervisor",
        ),
        // What each kind of code means on more than one node: soft above, hard, fatal.
        (
            "the pool's monitor finds it not installed",
            failed(pool, &active, 5),
            Then::Leaves,
            "zfs-pool",
        ),
        ("it finds wrong arguments", failed(pool, &active, 2), Then::Leaves, "zfs-pool"),
        ("it has no permission", failed(pool, &active, 4), Then::Leaves, "zfs-pool"),
        ("it finds a wrong configuration", failed(pool, &active, 6), Then::Ends, "zfs-pool"),
        ("the active node dies", format!("--node-fail={active}"), Then::Moves, "Fence"),
        ("the pool's stop fails", failed("zfs-pool_stop_0", &active, 1), Then::Moves, "Fence"),
    ];
    for (what, inject, then, done) in &happens {
        let summary = summary(root, "up.xml", inject)?;
        let is_noticed = done.is_empty() || summary.iter().any(|line| line.contains(done));
        report.check(&format!("{what}: {done:?} is noticed"), is_noticed, &summary.join("\n"));
        judge(&mut report, what, &summary, then, &active, &standby);
    }
    on_purpose(root, &mut report, &active, &standby)?;
    rest_of_a_pool(root, &mut report, &active, &standby)?;
    Ok(vec![report])
}

/// What an administrator sets moves nothing that serves.
fn on_purpose(root: &Root, report: &mut Report, active: &str, standby: &str) -> Result<()> {
    for (what, set, inject) in [
        (
            "the standby is put on standby",
            format!("--node {standby} --name standby --update on"),
            String::new(),
        ),
        ("maintenance mode", "--name maintenance-mode --update true".to_string(), String::new()),
        (
            "maintenance mode, and the pool's monitor fails",
            "--name maintenance-mode --update true".to_string(),
            format!("--op-inject=zfs-pool_monitor_10000@{active}=1"),
        ),
    ] {
        let set = format!("cp up.xml set.xml && CIB_file=set.xml crm_attribute {set}");
        report.run(root, &set, 0, &[])?;
        judge(report, what, &summary(root, "set.xml", &inject)?, &Then::Stays, active, standby);
    }
    Ok(())
}

/// A probe that finds the rest of a pool on the standby has it cleared away there. The pool is not stopped where it serves.
fn rest_of_a_pool(root: &Root, report: &mut Report, active: &str, standby: &str) -> Result<()> {
    let text = simulate(root, "up.xml", &format!("--op-inject=zfs-pool_monitor_0@{standby}=1"))?;
    let is_stop =
        |line: &&str| line.contains("Resource action: zfs-pool ") && line.contains(" stop on ");
    let stops: Vec<&str> = text.lines().filter(is_stop).collect();
    let is_so = matches!(stops[..], [stop] if stop.ends_with(standby))
        && !text.contains(&format!("Fence (reboot) {active}"));
    report.check("a probe finds the rest of a pool on the standby", is_so, &text);
    Ok(())
}

/// The example's script makes the configuration, and the simulation starts all of it.
fn make(root: &Root) -> Result<()> {
    root.put("pcs", PCS)?;
    root.put("variables", VARIABLES)?;
    let nodes: String = NODES
        .iter()
        .enumerate()
        .map(|(at, name)| format!("<node id=\\\"{}\\\" uname=\\\"{name}\\\"/>", at + 1))
        .collect();
    let up: Vec<String> = NODES.iter().map(|name| format!("--node-up={name}")).collect();
    let script = format!(
        "set -e; rm -f *.xml; cibadmin --empty > empty.xml
         CIB_file=empty.xml cibadmin --modify --scope nodes --xml-text \"<nodes>{nodes}</nodes>\"
         mkdir -p bin; install -m 755 pcs bin/pcs; rm -f asked; destroy() {{ rm -f /etc/corosync/corosync.conf; }}; destroy
         PATH=/conformance/bin:$PATH /usr/share/doc/hasan/cluster.sh /conformance/variables
         pcs=\"pcs -f made.xml\"
         $pcs resource create --force smb systemd:smbd op monitor interval=30s meta critical=false migration-threshold=1
         $pcs constraint colocation add smb with zfs-pool
         $pcs constraint order zfs-pool then smb
         crm_simulate --simulate --xml-file made.xml --save-output up.xml --quorum=true {}",
        up.join(" ")
    );
    refusals(root, &script)?;
    // One that nobody can fence: it is named.
    let without = script.replace("/conformance/variables", "/conformance/without");
    root.put("without", &VARIABLES.replace(" \"$QUORUM\"", ""))?;
    let said = root.run(&without)?;
    let is_told = said.text.matches("no fence device has").count() == 1
        && said.text.contains("no fence device has quorum-c in pcmk_host_list");
    ensure!(is_told, "the quorum node has no fence device, and nobody says so: {}", said.text);
    let said = root.run(&script)?;
    let is_made = said.code == 0 && !said.text.contains("no fence device has");
    ensure!(is_made, "the example's cluster cannot be made: {}", said.text);
    let asked = root.get("asked")?;
    let want = "host auth\ncluster setup\ncluster enable\ncluster start\n";
    ensure!(asked == want, "the other nodes were asked for {asked:?}");
    Ok(())
}

/// Beside the distribution's sample of a cluster, and without a fence device, nothing is asked of the other nodes.
fn refusals(root: &Root, script: &str) -> Result<()> {
    root.put("empty", "")?;
    for (script, want) in [
        (script.replace("; destroy\n", "\n"), "this node is in a cluster already"),
        (script.replace("/conformance/variables", "/conformance/empty"), "fill in make_stonith"),
    ] {
        let said = root.run(&script)?;
        ensure!(said.code != 0 && said.text.contains(want), "not refused: {want}: {}", said.text);
        ensure!(root.get("asked").is_err(), "{want}, and the other nodes were asked");
    }
    Ok(())
}

/// Who has the pool, and who has not.
fn active(root: &Root) -> Result<(String, String)> {
    let shown = root.run("crm_simulate --xml-file up.xml")?.text;
    let line = shown.lines().find(|line| line.contains("ocf:hasan:zfs-pool")).unwrap_or_default();
    let (active, standby) = if line.ends_with("storage-b") { (1, 0) } else { (0, 1) };
    ensure!(
        line.contains("Started") && line.ends_with(NODES[active]),
        "the pool is not started: {shown}"
    );
    Ok((NODES[active].to_string(), NODES[standby].to_string()))
}

/// What Pacemaker would do: its summary's lines.
fn summary(root: &Root, cib: &str, inject: &str) -> Result<Vec<String>> {
    let text = simulate(root, cib, inject)?;
    let lines = text.lines().skip_while(|line| !line.starts_with("Transition Summary"));
    Ok(lines.skip(1).take_while(|line| !line.is_empty()).map(str::to_string).collect())
}

/// What Pacemaker would do, all of it.
fn simulate(root: &Root, cib: &str, inject: &str) -> Result<String> {
    let said = root.run(&format!(
        "crm_simulate --simulate --xml-file {cib} --save-output next.xml {inject}"
    ))?;
    // What it does not know it names, and goes on without.
    let is_one = said.code == 0
        && said.text.contains("Transition Summary")
        && !said.text.contains("Invalid");
    ensure!(is_one, "no simulation: {}", said.text);
    Ok(said.text)
}

fn judge(
    report: &mut Report,
    what: &str,
    summary: &[String],
    then: &Then,
    active: &str,
    standby: &str,
) {
    let of_served: Vec<&String> = summary
        .iter()
        .filter(|line| SERVED.iter().any(|name| line.split_whitespace().any(|word| word == *name)))
        .collect();
    let fenced =
        |node: &str| summary.iter().any(|line| line.contains("Fence") && line.contains(node));
    let path = format!("{active} -> {standby}");
    let is_so = match then {
        Then::Stays => of_served.is_empty() && !fenced(active),
        Then::Recovers => {
            !of_served.is_empty()
                && !of_served.iter().any(|line| line.contains("->"))
                && !fenced(active)
        }
        Then::Moves | Then::Leaves => {
            of_served.len() == SERVED.len()
                && of_served.iter().all(|line| line.contains(&path))
                && fenced(active) == matches!(then, Then::Moves)
        }
        Then::Ends => {
            of_served.len() == SERVED.len()
                && of_served.iter().all(|line| line.contains("Stop "))
                && !fenced(active)
        }
    };
    report.check(what, is_so, &summary.join("\n"));
}
