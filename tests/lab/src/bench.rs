//! What is worth a comparison: measurements, not tests.

use crate::machine;
use crate::many_luns;
use crate::plug;
use crate::pool_checks::{AGENTS, POOL, by_hand, exports};
use crate::state::Lab;
use crate::watch_checks;
use anyhow::Result;

/// How often ZFS writes its sign of life, milliseconds; after how many that fail it suspends the pool, 0 for never; and how
/// many an import waits for. First ZFS's own values, last ours.
const SIGNS: [[u32; 3]; 4] = [[1000, 10, 20], [500, 10, 20], [500, 0, 10], [250, 0, 10]];

/// Runs all of them, or those of these names.
pub(crate) fn run(lab: &Lab, only: &[String]) -> Result<()> {
    let measured = measure(lab, only);
    // Also after one that failed, whose error is what counts.
    let stopped = machine::stop_all(lab);
    measured.and(stopped)
}

fn measure(lab: &Lab, only: &[String]) -> Result<()> {
    let is_asked = |name: &str| only.is_empty() || only.iter().any(|each| each == name);
    if is_asked("monitor") {
        monitor(lab)?;
    }
    for signs in SIGNS.iter().filter(|_| is_asked("import")) {
        import(lab, *signs)?;
    }
    if is_asked("luns") {
        many_luns::bench(lab)?;
    }
    if is_asked("watch") {
        watch_checks::bench(lab)?;
    }
    Ok(())
}

/// The monitor against that of the agent that people use today.
fn monitor(lab: &Lab) -> Result<()> {
    let (here, _) = by_hand(lab)?;
    let time = |agent: &str| -> Result<f64> {
        let line = format!(
            "{}begin=$(date +%s%N); for i in $(seq 20); do {agent} monitor > /dev/null 2>&1 || exit 1; done; \
             echo $(( $(date +%s%N) - begin ))",
            exports("")
        );
        Ok(here.run(&line)?.trim().parse::<f64>()? / 20e6)
    };
    let ours = time(&format!("{AGENTS}/{POOL}"))?;
    let theirs = time("/usr/lib/ocf/resource.d/heartbeat/ZFS")?;
    println!(
        "a healthy monitor: zfs-pool {ours:.0} ms, ocf:heartbeat:ZFS {theirs:.0} ms: {:.1} times",
        theirs / ours
    );
    Ok(())
}

/// The start that takes the pool of a dead node, by how both nodes write their sign of life.
fn import(lab: &Lab, [interval, fail, import]: [u32; 3]) -> Result<()> {
    let (dead, here) = by_hand(lab)?;
    for hand in [&dead, &here] {
        hand.run(&format!(
            "cd /sys/module/zfs/parameters; echo {interval} > zfs_multihost_interval; \
             echo {fail} > zfs_multihost_fail_intervals; echo {import} > zfs_multihost_import_intervals"
        ))?;
    }
    // The label that the next importer reads has to tell of it.
    dead.run("for i in 1 2 3; do zfs set hasan:measured=$i san-pool; zpool sync san-pool; done")?;
    // A machine that boots beside would be measured with it.
    plug::damage(lab, dead.node, plug::Fault::StaysOff)?;
    machine::kill(lab, dead.node)?;
    here.await_peer_lost(&dead)?;
    here.run(&format!("stonith_admin --reboot {} --timeout 100", dead.node.name))?;
    let said = here.expect("start", 0, &[])?;
    println!(
        "zfs_multihost_interval {interval}, fail_intervals {fail}, import_intervals {import}: a start that takes over takes {:.1} s",
        said.took.as_secs_f64()
    );
    Ok(())
}
