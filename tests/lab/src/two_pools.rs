//! Legs that are not the pool's: blank ones, and those of a second pool.

use crate::machine::Machine;
use crate::pool_checks::{Hand, POOL, by_hand};
use crate::state::Lab;
use crate::{net, ssh, timers};
use anyhow::{Result, bail, ensure};
use support::command::await_until;

const SECOND: &str = "OCF_RESKEY_pool=second";

/// A pair of legs more on both nodes, of which no pool is made: no node is marked for what does not miss anything. Then they
/// are a second pool, which is started while the first one runs without the other node's legs: both go on, and both say so.
pub(crate) fn second(lab: &Lab) -> Result<()> {
    let (here, there) = by_hand(lab)?;
    more_legs(&here, &there)?;
    here.free_pool()?;
    here.expect("stop", 0, &[])?;
    here.expect("start", 0, &[])?;
    let seen = marks(&here)?;
    ensure!(seen.is_empty(), "marked for blank legs: {seen:?}");

    here.run(
        "zpool create -o multihost=on -o cachefile=none -O mountpoint=none second mirror data-a3 data-b3
         crm_attribute --type crm_config --name hasan-owner-second --update $(crm_node --name)
         zpool export second",
    )?;
    for node in [&here, &there] {
        node.run(
            "sed -i 's/^pool = .*/pool = san-pool second/' /etc/hasan/backend.conf
             systemctl restart hasan-backend-watch",
        )?;
    }
    net::connect("stor", there.node.id, false)?;
    ssh::within(lab, here.node, timers::PCS, "zfs set hasan:written=1 san-pool")?;
    ensure!(marks(&here)? == [mark("san-pool", there.node)], "marks: {:?}", marks(&here)?);
    expect_second(&here, "start", 0)?;
    let both = [mark("san-pool", there.node), mark("second", there.node)];
    ensure!(marks(&here)? == both, "marks: {:?}", marks(&here)?);
    for pool in ["san-pool", "second"] {
        // The pool's own state lags behind its vdevs', on ZFS 2.3 by minutes.
        let write = format!("zfs set hasan:written=2 {pool} && zpool status -p {pool}");
        let status = ssh::within(lab, here.node, timers::PCS, &write)?;
        let mut legs = status.lines().filter(|line| line.contains("data-b")).peekable();
        let are_lost = legs.peek().is_some() && legs.all(|line| !line.contains("ONLINE"));
        ensure!(are_lost, "{pool} has not lost a leg: {status}");
    }
    net::connect("stor", there.node.id, true)?;
    await_until("both pools are well", timers::CLUSTER, || {
        let status = here.run("zpool status -x; cat /proc/spl/kstat/zfs/*/state")?;
        let are_well = status.matches("ONLINE").count() == 2 && marks(&here)?.is_empty();
        if are_well { Ok(()) } else { bail!("{status}, {:?}", marks(&here)?) }
    })?;
    expect_second(&here, "stop", 0)?;
    here.expect("monitor", 0, &[])?;
    Ok(())
}

fn expect_second(hand: &Hand<'_>, action: &str, code: i32) -> Result<()> {
    let said = hand.act(POOL, SECOND, action)?;
    ensure!(said.code == code, "{action} of the second pool: {}", said.text);
    Ok(())
}

/// Gives each node a third leg, and waits until the other one has it, too.
fn more_legs(here: &Hand<'_>, there: &Hand<'_>) -> Result<()> {
    for (node, own, other) in [(here, "a", "b"), (there, "b", "a")] {
        ensure!(node.node.name == format!("storage-{own}"), "the pool is not where it begins");
        node.run(&format!(
            "set -e; truncate -s 256M /root/leg; disk=$(losetup --find --show /root/leg)
             sed -i \"s/^\\(peer.legs = .*\\)/\\1 data-{other}3/; 1i leg.data-{own}3 = $disk\" /etc/hasan/backend.conf
             systemctl reload-or-restart hasan-backend-export; systemctl restart hasan-backend-watch"
        ))?;
    }
    for node in [here, there] {
        let legs = "ls /dev/mapper/data-a3 /dev/mapper/data-b3";
        await_until("both have the new legs", timers::CLUSTER, || node.run(legs).map(|_| ()))?;
    }
    Ok(())
}

fn mark(pool: &str, node: &Machine) -> String {
    format!("{} hasan-dirty-{pool}", node.name)
}

/// The marks that the cluster has: node and attribute.
fn marks(hand: &Hand<'_>) -> Result<Vec<String>> {
    let mut marks = Vec::new();
    for node in ["storage-a", "storage-b"] {
        let query = format!("cibadmin --query --xpath \"//node[@uname='{node}']\"");
        let found =
            hand.run(&format!("{query} | grep -o 'name=\"hasan-dirty-[^\"]*\"' | sort || true"))?;
        marks.extend(found.lines().map(|line| {
            format!("{node} {}", line.trim_start_matches("name=\"").trim_end_matches('"'))
        }));
    }
    Ok(marks)
}
