//! Several things happen one after the other, or a disk of the standby answers with errors: what is served, and by whom, is
//! always what was acknowledged.

use crate::faults::{await_one_half, signal_watch};
use crate::machine::{self, Machine};
use crate::scenarios::{
    BLOCKS, await_healed, await_refusal, await_unmarked, check_no_pool, dies_and_other_refuses,
    first_leg, judge, judge_unfenced, other, pool_status, power_up, query_mark, written_to,
};
use crate::state::Lab;
use crate::storm::fenced;
use crate::{cluster, net, plug, ssh, timers};
use anyhow::{Result, bail, ensure};
use support::command::{await_until, stage};

/// Puts an error, for reads and writes, under all of a leg but its ZFS labels, as the backend target sees it.
const BREAK: &str = "set -e; set -- $(dmsetup table $map); end=$(($2 - 32768))
    dmsetup load $map --table \"0 32768 linear $4 $5
32768 $((end - 32768)) error
$end 32768 linear $4 $(($5 + end))\"
    dmsetup resume $map";
/// And takes it away.
const MEND: &str = "set -e; set -- $(dmsetup table $map | head -n 1); device=$4
    dmsetup load $map --table \"0 $(blockdev --getsz /dev/mapper/$map) linear $device 0\"
    dmsetup resume $map";

fn on_export(lab: &Lab, node: &Machine, script: &str) -> Result<()> {
    let script = format!("map={}-export; {script}", first_leg(node));
    ssh::run(lab, node, &script).map(|_| ())
}

/// A disk of the standby fails all I/O but is there. The pool goes on without it, the standby is marked and nobody is fenced;
/// the active node dies, and the standby does not serve. When the disk works again all heals.
pub(crate) fn disk_fails(lab: &Lab) -> Result<()> {
    let (active, standby, mut writer) = written_to(lab)?;
    let quorum = Machine::named("quorum-c")?;
    let leg = first_leg(standby);
    stage("a disk of the standby fails I/O", || {
        on_export(lab, standby, BREAK)?;
        await_said(lab, active, &format!("leg {leg} is not used: its disk in"))?;
        await_one_half(lab, active)?;
        writer.await_more(BLOCKS)?;
        ensure!(is_marked(lab, quorum, standby)?, "{} is not marked", standby.name);
        ensure!(!plug::log(lab).exists(), "somebody was fenced");
        let status = pool_status(lab, active)?;
        let rest = if leg == "data-a1" { "data-a2" } else { "data-b2" };
        let is_here = status.lines().any(|line| line.contains(rest) && line.contains("ONLINE"));
        ensure!(is_here, "the other leg is not ONLINE:\n{status}");
        Ok(())
    })?;
    dies_and_other_refuses(lab, active, standby)?;
    stage(&format!("{} is back, and serves without the disk", active.name), || {
        power_up(lab, active)?;
        cluster::await_placed(lab, quorum, Some(active.name))?;
        writer.await_more(BLOCKS)
    })?;
    stage("the disk works again", || {
        on_export(lab, standby, MEND)?;
        ssh::run(lab, standby, "systemctl restart hasan-backend-export")?;
        await_healed(lab, active, standby)
    })?;
    writer.await_more(BLOCKS)?;
    judge(lab, &writer.stop()?)
}

/// A disk of a node fails all I/O from now on, also of its label, until it is mended or the node boots.
pub(crate) fn fail_disk(lab: &Lab, node: &Machine) -> Result<()> {
    lead_disk(lab, node, "error")
}

/// And works again, with what it held.
pub(crate) fn mend_disk(lab: &Lab, node: &Machine) -> Result<()> {
    lead_disk(lab, node, "linear $device 0")
}

/// Leads both maps of a node's first disk elsewhere.
fn lead_disk(lab: &Lab, node: &Machine, target: &str) -> Result<()> {
    let leg = first_leg(node);
    let lead = format!(
        "set -e; device=$(sed -n 's/^leg.{leg} *= *//p' /etc/hasan/backend.conf)
         for map in {leg} {leg}-export; do
             dmsetup load $map --table \"0 $(blockdev --getsz /dev/mapper/$map) {target}\"
             dmsetup suspend --noflush --nolockfs $map; dmsetup resume $map
         done"
    );
    ssh::run(lab, node, &lead).map(|_| ())
}

/// A disk of the active node fails, and the storage link goes before its watch knows of the disk. Only the standby has all
/// writes: its legs are not let go, the active node is marked instead, and when that one dies the standby serves.
pub(crate) fn own_disk_and_link(lab: &Lab) -> Result<()> {
    let (active, standby, mut writer) = written_to(lab)?;
    let quorum = Machine::named("quorum-c")?;
    stage("a disk of the active node fails, its watch stands still", || {
        signal_watch(lab, active, "STOP")?;
        fail_disk(lab, active)?;
        await_one_half(lab, active)?;
        writer.await_more(BLOCKS)
    })?;
    stage("the storage link is cut, nothing is let go", || {
        net::connect("stor", standby.id, false)?;
        await_until("the session is lost", timers::CLUSTER, || {
            ssh::run(lab, active, "grep FREE /sys/class/iscsi_session/*/state").map(|_| ())
        })?;
        let acknowledged = writer.acks().count;
        signal_watch(lab, active, "CONT")?;
        await_said(lab, active, "which are lost: the I/O of san-pool goes on waiting")?;
        let more = writer.acks().count - acknowledged;
        ensure!(more == 0, "{more} blocks were acknowledged with half of the legs of one node");
        ensure!(is_marked(lab, quorum, active)?, "{} is not marked", active.name);
        ensure!(!is_marked(lab, quorum, standby)?, "{} is marked", standby.name);
        Ok(())
    })?;
    stage(&format!("{} dies, {} serves", active.name, standby.name), || {
        plug::damage(lab, active, plug::Fault::StaysOff)?;
        machine::kill(lab, active)?;
        cluster::await_placed(lab, quorum, Some(standby.name))?;
        writer.await_more(BLOCKS)
    })?;
    stage(&format!("{} and the link are back", active.name), || {
        net::connect("stor", standby.id, true)?;
        power_up(lab, active)?;
        await_healed(lab, standby, active)
    })?;
    writer.await_more(BLOCKS)?;
    judge(lab, &writer.stop()?)
}

/// A disk of the active node fails all I/O, also of its label. The pool goes on with the other leg, and moves.
pub(crate) fn own_disk_fails(lab: &Lab) -> Result<()> {
    let (active, standby, mut writer) = written_to(lab)?;
    stage("a disk of the active node fails I/O", || {
        fail_disk(lab, active)?;
        await_one_half(lab, active)?;
        writer.await_more(BLOCKS)
    })?;
    stage(&format!("the pool moves to {}", standby.name), || {
        cluster::move_away(lab, active, standby)?;
        writer.await_more(BLOCKS)
    })?;
    stage("and back", || {
        let quorum = Machine::named("quorum-c")?;
        await_until("it is a member again", timers::CLUSTER, || {
            let seen = ssh::run(lab, quorum, "crm_mon --one-shot --output-as=xml")?;
            let is_member = |line: &str| {
                line.contains(&format!("<node name=\"{}\"", active.name))
                    && line.contains("standby=\"false\"")
            };
            if seen.lines().any(is_member) { Ok(()) } else { bail!(seen) }
        })?;
        cluster::move_away(lab, standby, active)?;
        writer.await_more(BLOCKS)
    })?;
    judge_unfenced(lab, writer)
}

/// The storage link is cut, then the active node's cluster link: it is fenced, and the standby does not serve. The active node
/// does, without hands, as soon as it is a member again, also while the storage link is still cut.
pub(crate) fn both_links(lab: &Lab) -> Result<()> {
    let (first, second, mut writer) = written_to(lab)?;
    let quorum = Machine::named("quorum-c")?;
    stage("the storage link is cut", || {
        net::connect("stor", second.id, false)?;
        await_one_half(lab, first)?;
        writer.await_more(BLOCKS)
    })?;
    stage("the active node's cluster link is cut", || {
        fenced(lab, first, || net::connect("mgmt", first.id, false))?;
        await_refusal(lab, quorum, second)?;
        check_no_pool(lab, second)
    })?;
    stage("the cluster link is back", || {
        net::connect("mgmt", first.id, true)?;
        ssh::await_one(lab, first)?;
        cluster::await_placed(lab, quorum, Some(first.name))?;
        writer.await_more(BLOCKS)
    })?;
    stage("the storage link is back", || {
        net::connect("stor", second.id, true)?;
        await_healed(lab, first, second)
    })?;
    writer.await_more(BLOCKS)?;
    judge(lab, &writer.stop()?)
}

/// Whether resilvers and scrubs make progress on a node: a parameter of ZFS (zfs(4), `zfs_scan_suspend_progress`).
pub(crate) fn hold_scans(lab: &Lab, node: &Machine, hold: bool) -> Result<()> {
    let parameter = "/sys/module/zfs/parameters/zfs_scan_suspend_progress";
    ssh::run(lab, node, &format!("echo {} > {parameter}", u8::from(hold))).map(|_| ())
}

/// The storage link is cut for a while, and the legs that missed writes are being resilvered, which does not end.
fn resilver_held(lab: &Lab, active: &Machine, standby: &Machine) -> Result<()> {
    hold_scans(lab, active, true)?;
    net::connect("stor", standby.id, false)?;
    await_one_half(lab, active)?;
    net::connect("stor", standby.id, true)?;
    await_until("a resilver begins", timers::CLUSTER, || {
        let status = pool_status(lab, active)?;
        let lines = || status.lines().filter(|line| line.contains("data-"));
        let are_here = lines().all(|line| line.contains("ONLINE"));
        if status.contains("resilver in progress") && are_here { Ok(()) } else { bail!(status) }
    })?;
    ensure!(is_marked(lab, active, standby)?, "{} is not marked", standby.name);
    Ok(())
}

/// How many resilvers ZFS has told of.
fn resilvers(lab: &Lab, node: &Machine) -> Result<usize> {
    let events = ssh::run(lab, node, "zpool events -H san-pool")?;
    Ok(events.matches("sysevent.fs.zfs.resilver_start").count())
}

/// A planned move while the standby's legs are resilvered: it is allowed, since all legs are there, and the resilver ends on
/// the other node.
pub(crate) fn moves_while_resilvering(lab: &Lab) -> Result<()> {
    let (first, second, mut writer) = written_to(lab)?;
    stage("the standby's legs are resilvered", || {
        resilver_held(lab, first, second)?;
        writer.await_more(BLOCKS)
    })?;
    stage(&format!("the pool moves to {}", second.name), || {
        cluster::move_away(lab, first, second)?;
        writer.await_more(BLOCKS)
    })?;
    stage("it heals there", || {
        await_healed(lab, second, first)?;
        await_unmarked(lab, second, second)
    })?;
    writer.await_more(BLOCKS)?;
    judge_unfenced(lab, writer)
}

/// The standby is away for long, and an administrator detaches its legs, so that the pool is ONLINE. They come back with the
/// data of the day they went: the standby stays marked, and does not serve when the active node dies. When they are attached
/// again all heals.
pub(crate) fn detached(lab: &Lab) -> Result<()> {
    let (active, standby, mut writer) = written_to(lab)?;
    let quorum = Machine::named("quorum-c")?;
    let pairs = if active.name == "storage-a" {
        ["a1 data-b1", "a2 data-b2"]
    } else {
        ["b1 data-a1", "b2 data-a2"]
    };
    let first = first_leg(standby);
    stage("the standby's legs go, and are detached", || {
        net::connect("stor", standby.id, false)?;
        await_one_half(lab, active)?;
        for pair in pairs {
            let leg = pair.split(' ').next_back().unwrap_or_default();
            ssh::run(lab, active, &format!("zpool detach san-pool {leg}"))?;
        }
        writer.await_more(BLOCKS)
    })?;
    stage("they are back", || {
        net::connect("stor", standby.id, true)?;
        await_said(lab, active, &format!("leg {first} is back"))?;
        await_said(lab, active, &format!("well without {first}, which may hold old data"))?;
        ensure!(is_marked(lab, quorum, standby)?, "{} is not marked", standby.name);
        writer.await_more(BLOCKS)
    })?;
    dies_and_other_refuses(lab, active, standby)?;
    stage(&format!("{} is back, and the legs are attached", active.name), || {
        power_up(lab, active)?;
        cluster::await_placed(lab, quorum, Some(active.name))?;
        for pair in pairs {
            ssh::run(lab, active, &format!("zpool attach -f san-pool data-{pair}"))?;
        }
        await_healed(lab, active, standby)
    })?;
    writer.await_more(BLOCKS)?;
    judge(lab, &writer.stop()?)
}

/// A resilver is interrupted; in the middle of the second one the active node dies, and the standby has all legs of its own,
/// with half of what they missed: it does not serve.
pub(crate) fn dies_while_resilvering(lab: &Lab) -> Result<()> {
    let (first, second, mut writer) = written_to(lab)?;
    let quorum = Machine::named("quorum-c")?;
    stage("the standby's legs are resilvered", || resilver_held(lab, first, second))?;
    writer.await_more(BLOCKS)?;
    stage("the resilver is interrupted, and begins anew", || {
        let before = resilvers(lab, first)?;
        resilver_held(lab, first, second)?;
        let now = resilvers(lab, first)?;
        ensure!(now > before, "{now} resilvers have begun, as before");
        Ok(())
    })?;
    writer.await_more(BLOCKS)?;
    dies_and_other_refuses(lab, first, second)?;
    stage(&format!("{} is back", first.name), || {
        power_up(lab, first)?;
        let active = Machine::named(&cluster::await_placed(lab, quorum, None)?)?;
        await_healed(lab, active, other(active)?)?;
        await_unmarked(lab, active, second)
    })?;
    writer.await_more(BLOCKS)?;
    judge(lab, &writer.stop()?)
}

/// The mark outlives the boot of each node, alone and of all at once, and goes when the pool is whole.
pub(crate) fn mark_outlives_boots(lab: &Lab) -> Result<()> {
    let (first, second, mut writer) = written_to(lab)?;
    let quorum = Machine::named("quorum-c")?;
    stage("the storage link is cut", || {
        net::connect("stor", second.id, false)?;
        await_one_half(lab, first)?;
        writer.await_more(BLOCKS)
    })?;
    for node in [quorum, second] {
        stage(&format!("{} boots, the mark stays", node.name), || {
            fenced(lab, node, || machine::kill(lab, node))?;
            ssh::await_one(lab, node)?;
            await_until("it is a member, and knows the mark", timers::CLUSTER, || {
                if is_marked(lab, node, second)? { Ok(()) } else { bail!("it knows no mark") }
            })?;
            writer.await_more(BLOCKS)
        })?;
    }
    stage(&format!("all die; {} stays off, {} refuses", first.name, second.name), || {
        plug::damage(lab, first, plug::Fault::StaysOff)?;
        for node in [first, second, quorum] {
            machine::kill(lab, node)?;
        }
        for node in [quorum, second] {
            machine::boot(lab, node)?;
            ssh::await_one(lab, node)?;
        }
        await_refusal(lab, quorum, second)?;
        check_no_pool(lab, second)
    })?;
    stage(&format!("{} is back, and the link", first.name), || {
        power_up(lab, first)?;
        cluster::await_placed(lab, quorum, Some(first.name))?;
        net::connect("stor", second.id, true)?;
        await_healed(lab, first, second)
    })?;
    writer.await_more(BLOCKS)?;
    judge(lab, &writer.stop()?)
}

/// The active node's sessions are ended by hand: the watch logs in again, and the legs are there under other devices. Then
/// the node is shut down, where the distribution logs out of all targets: the pool moves, and nobody is marked.
pub(crate) fn logged_out(lab: &Lab) -> Result<()> {
    let (active, standby, mut writer) = written_to(lab)?;
    let leg = first_leg(standby);
    let device = format!("ls /sys/block/$(basename $(readlink /dev/mapper/{leg}))/slaves");
    let before = ssh::run(lab, active, &device)?;
    stage("the active node is logged out", || {
        let portal = if standby.name == "storage-a" { "10.10.10.1" } else { "10.10.10.2" };
        let logout = format!(
            "iscsiadm -m node -T iqn.2025-01.lab.home:{} -p {portal}:3260 --logout",
            standby.name
        );
        ssh::run(lab, active, &logout)?;
        await_said(lab, active, &format!("leg {leg} is here under another device"))?;
        await_healed(lab, active, standby)?;
        let after = ssh::run(lab, active, &device)?;
        ensure!(after != before, "{leg} lies over {after} as before");
        writer.await_more(BLOCKS)
    })?;
    stage(&format!("{} is shut down, {} serves", active.name, standby.name), || {
        // It is disabled in the image, and its own check of the records would not have it begin.
        ssh::run(
            lab,
            active,
            "systemctl start open-iscsi.service && systemctl is-active open-iscsi.service",
        )?;
        plug::damage(lab, active, plug::Fault::StaysOff)?;
        ssh::run(lab, active, "systemctl poweroff --no-block")?;
        let quorum = Machine::named("quorum-c")?;
        cluster::await_placed(lab, quorum, Some(standby.name))?;
        writer.await_more(BLOCKS)?;
        ensure!(!is_marked(lab, quorum, standby)?, "{} is marked", standby.name);
        Ok(())
    })?;
    stage(&format!("{} is back", active.name), || {
        await_until("it has ended", timers::CLUSTER, || {
            if active.has_power(lab) { bail!("it has power") } else { Ok(()) }
        })?;
        power_up(lab, active)?;
        await_healed(lab, standby, active)
    })?;
    writer.await_more(BLOCKS)?;
    judge(lab, &writer.stop()?)
}

/// The mains fails, and a UPS has all nodes shut down at once: each one ends by itself, the active one too, whose mirrors lose
/// the other halves while the pool is given back. When they are up again the pool is served and whole.
pub(crate) fn shut_down_at_once(lab: &Lab) -> Result<()> {
    let (active, standby, mut writer) = written_to(lab)?;
    let quorum = Machine::named("quorum-c")?;
    let all = [standby, quorum, active];
    stage("all are shut down at once", || {
        for node in all {
            ssh::run(lab, node, "systemctl poweroff --no-block")?;
        }
        await_until("all have ended", timers::CLUSTER, || {
            match all.iter().find(|node| node.has_power(lab)) {
                None => Ok(()),
                Some(node) => bail!("{} has power", node.name),
            }
        })
    })?;
    stage("all are back", || {
        for node in all {
            machine::boot(lab, node)?;
            ssh::await_one(lab, node)?;
        }
        let now = Machine::named(&cluster::await_placed(lab, quorum, None)?)?;
        await_healed(lab, now, other(now)?)?;
        await_unmarked(lab, now, now)
    })?;
    writer.await_more(BLOCKS)?;
    judge(lab, &writer.stop()?)
}

/// Whether a node bears a mark, as another one knows it. A node without a cluster knows nothing.
fn is_marked(lab: &Lab, from: &Machine, node: &Machine) -> Result<bool> {
    let said = ssh::run(
        lab,
        from,
        &format!(
            "cibadmin --query --local --scope nodes > /dev/null && {{ {}; }}",
            query_mark(node)
        ),
    )?;
    Ok(said.trim() != "none")
}

/// Waits until a node's watch has said something.
fn await_said(lab: &Lab, node: &Machine, what: &str) -> Result<()> {
    let journal = format!("journalctl --boot -o cat -u hasan-backend-watch | grep -q '{what}'");
    await_until(what, timers::CLUSTER, || ssh::run(lab, node, &journal).map(|_| ()))
}
