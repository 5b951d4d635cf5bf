//! The scenarios. Each begins with the configured cluster, and writes while things happen.

use crate::faults::await_one_half;
use crate::load::{self, Acks, Writer};
use crate::machine::{self, MACHINES, Machine};
use crate::orders::hold_scans;
use crate::pool_checks::{Hand, POOL};
use crate::snapshot::{self, Kind};
use crate::state::Lab;
use crate::{cluster, image, net, plug, ssh, timeline, timers};
use anyhow::{Result, bail, ensure};
use std::fs;
use std::time::SystemTime;
use support::command::{await_until, stage};

/// Blocks that are acknowledged at least before, during and after each event.
pub(crate) const BLOCKS: u64 = 500;

/// The configured cluster, running: from its snapshot, or made from nothing and then saved. Returns the active node.
pub(crate) fn fresh_cluster(lab: &Lab) -> Result<&'static Machine> {
    image::ensure(lab)?;
    let key = cluster::key(lab)?;
    if !snapshot::folder(lab, Kind::Cluster, &key).is_dir() {
        make_cluster(lab)?;
        stage("snapshot", || snapshot::save(lab, Kind::Cluster, &key))?;
    }
    stage("cluster from its snapshot", || {
        snapshot::load(lab, Kind::Cluster, &key)?;
        ssh::await_all(lab)?;
        let quorum = Machine::named("quorum-c")?;
        Machine::named(&cluster::await_placed(lab, quorum, None)?)
    })
}

/// Boots the machines and makes the cluster.
fn make_cluster(lab: &Lab) -> Result<()> {
    machine::stop_all(lab)?;
    fs::remove_dir_all(lab.run())?;
    fs::create_dir_all(lab.run())?;
    net::ensure()?;
    stage("boot", || {
        MACHINES.iter().try_for_each(|machine| machine::boot(lab, machine))?;
        ssh::await_all(lab)
    })?;
    plug::start(lab)?;
    stage("install", || cluster::install(lab))?;
    stage("backend: all legs on both nodes", || cluster::backend(lab))?;
    stage("pool", || cluster::pool(lab))?;
    stage("members", || cluster::membership(lab))?;
    stage("resources by pcs", || cluster::configure(lab))?;
    stage("client", || cluster::client(lab))
}

/// The other storage node.
pub(crate) fn other(node: &Machine) -> Result<&'static Machine> {
    Machine::named(if node.name == "storage-a" { "storage-b" } else { "storage-a" })
}

/// The configured cluster with a client that writes: the active node, the other one, and the writer.
pub(crate) fn written_to(lab: &Lab) -> Result<(&'static Machine, &'static Machine, Writer)> {
    let active = fresh_cluster(lab)?;
    let mut writer = Writer::start(lab)?;
    writer.await_more(BLOCKS)?;
    Ok((active, other(active)?, writer))
}

/// The first leg of a storage node.
pub(crate) fn first_leg(node: &Machine) -> &'static str {
    if node.name == "storage-a" { "data-a1" } else { "data-b1" }
}

/// What ZFS says of the pool's vdevs, for who waits for something in it.
pub(crate) fn pool_status(lab: &Lab, node: &Machine) -> Result<String> {
    ssh::run(lab, node, "zpool status -p san-pool")
}

/// A node that refuses has imported nothing.
pub(crate) fn check_no_pool(lab: &Lab, node: &Machine) -> Result<()> {
    let pools = ssh::run(lab, node, "zpool list -H -o name")?;
    ensure!(pools.is_empty(), "{} has imported {pools:?}", node.name);
    Ok(())
}

/// Moves everything to the other node and back, by `pcs node standby`.
pub(crate) fn planned(lab: &Lab) -> Result<()> {
    let first = fresh_cluster(lab)?;
    let second = other(first)?;
    let luns = cluster::luns_of_client(lab)?;
    ensure!(luns.lines().count() == 2, "the client sees {luns:?}");
    let mut writer = Writer::start(lab)?;
    writer.await_more(BLOCKS)?;
    let begin = SystemTime::now();
    move_away(lab, first, second, &mut writer)?;
    writer.await_more(BLOCKS)?;
    println!("== and back");
    let back = SystemTime::now();
    move_away(lab, second, first, &mut writer)?;
    writer.await_more(BLOCKS)?;
    let acks = writer.stop()?;
    let now = cluster::luns_of_client(lab)?;
    ensure!(now == luns, "the client saw the LUNs {luns:?}, and sees {now:?}");
    println!("the client's LUNs, number and serial, before and after:\n{}", now.trim_end());
    println!("from {} to {}", first.name, second.name);
    timeline::print(lab, begin, &[first, second], &acks)?;
    println!("the way back began at {:.1} s", back.duration_since(begin)?.as_secs_f64());
    timeline::check_no_warning(lab, begin, &[first, second])?;
    judge(lab, &acks)
}

/// Puts the active node into standby, waits until the other one serves, and takes the first one back as a member.
fn move_away(lab: &Lab, from: &Machine, to: &Machine, writer: &mut Writer) -> Result<()> {
    stage(&format!("standby of {}", from.name), || cluster::move_away(lab, from, to))?;
    writer.await_more(BLOCKS)?;
    let status = ssh::run(lab, to, "zpool status -p san-pool")?;
    ensure!(is_healthy(&status), "a planned move left the pool as:\n{status}");
    let resilvered = status.contains("resilver") && !status.contains("resilvered 0B");
    ensure!(!resilvered, "a planned move resilvered:\n{status}");
    Ok(())
}

/// Kills the active node's power; the other one fences it, serves, and heals the pool when it is back.
pub(crate) fn crash(lab: &Lab) -> Result<()> {
    let dead = fresh_cluster(lab)?;
    let survivor = other(dead)?;
    let luns = cluster::luns_of_client(lab)?;
    let mut writer = Writer::start(lab)?;
    writer.await_more(BLOCKS)?;
    let begin = SystemTime::now();
    machine::kill(lab, dead)?;
    stage(&format!("{} dies, {} takes over", dead.name, survivor.name), || {
        cluster::await_placed(lab, survivor, Some(survivor.name)).map(|_| ())
    })?;
    writer.await_more(BLOCKS)?;
    stage(&format!("{} returns, the pool heals", dead.name), || {
        ssh::await_one(lab, dead)?;
        await_healed(lab, survivor, dead)
    })?;
    writer.await_more(BLOCKS)?;
    let acks = writer.stop()?;
    let now = cluster::luns_of_client(lab)?;
    ensure!(now == luns, "the client saw the LUNs {luns:?}, and sees {now:?}");
    timeline::print(lab, begin, &[survivor], &acks)?;
    let plugs = fs::read_to_string(plug::log(lab))?;
    let words = |line: &str| line.split_once(' ').map(|(_, what)| what.to_string());
    let did: Vec<String> = plugs.lines().filter_map(words).collect();
    let want = [format!("off {}", dead.name), format!("on {}", dead.name)];
    ensure!(did == want, "the plugs did {did:?}");
    judge(lab, &acks)
}

/// Both nodes die, one after the other. The one that missed the writes of the other never serves alone, and says why;
/// when the other is back, all is there.
pub(crate) fn stale(lab: &Lab) -> Result<()> {
    let (first, second, mut writer) = written_to(lab)?;
    let quorum = Machine::named("quorum-c")?;
    plug::damage(lab, first, plug::Fault::StaysOff)?;
    machine::kill(lab, first)?;
    stage(&format!("{} dies and stays off, {} takes over", first.name, second.name), || {
        cluster::await_placed(lab, quorum, Some(second.name)).map(|_| ())
    })?;
    writer.await_more(BLOCKS)?;
    let acks = writer.stop()?;
    plug::damage(lab, second, plug::Fault::StaysOff)?;
    machine::kill(lab, second)?;
    stage(&format!("{} dies too, {} comes back alone", second.name, first.name), || {
        power_up(lab, first)?;
        await_refusal(lab, quorum, first)
    })?;
    check_no_pool(lab, first)?;
    stage(&format!("{} is back", second.name), || {
        power_up(lab, second)?;
        cluster::await_placed(lab, quorum, None).map(|_| ())
    })?;
    stage(&format!("{} has all writes, and may serve again", first.name), || {
        await_healed(lab, second, first)?;
        // Its start has failed for good, until the failure is old enough.
        cluster::move_away(lab, second, first)
    })?;
    judge(lab, &acks)
}

/// Waits until the cluster shows that a node whose legs miss writes refuses to start alone.
pub(crate) fn await_refusal(lab: &Lab, from: &Machine, node: &Machine) -> Result<()> {
    let refusal = format!("{} misses writes since", node.name);
    await_until("it refuses", timers::CLUSTER, || {
        let status = ssh::run(lab, from, "crm_mon --one-shot --output-as=xml")?;
        let seen: Vec<&str> = status.lines().filter(|line| line.contains("exitreason")).collect();
        if seen.iter().any(|line| line.contains(&refusal)) {
            Ok(())
        } else {
            bail!(seen.join("\n"))
        }
    })
}

/// The active node dies and stays off, and the other one does not serve from its own legs.
pub(crate) fn dies_and_other_refuses(lab: &Lab, active: &Machine, standby: &Machine) -> Result<()> {
    stage(&format!("{} dies, {} refuses", active.name, standby.name), || {
        plug::damage(lab, active, plug::Fault::StaysOff)?;
        machine::kill(lab, active)?;
        await_refusal(lab, Machine::named("quorum-c")?, standby)?;
        check_no_pool(lab, standby)
    })
}

/// All power fails, and only the node that had the pool last gets it back: it serves alone, since nobody can have written
/// after it.
pub(crate) fn last_owner(lab: &Lab) -> Result<()> {
    let (first, second, mut writer) = written_to(lab)?;
    plug::damage(lab, second, plug::Fault::StaysOff)?;
    machine::kill(lab, second)?;
    machine::kill(lab, first)?;
    stage(&format!("both nodes die, {} boots alone and serves", first.name), || {
        machine::boot(lab, first)?;
        ssh::await_one(lab, first)?;
        cluster::await_placed(lab, first, Some(first.name))?;
        writer.await_more(BLOCKS)
    })?;
    stage(&format!("{} is back, the pool heals", second.name), || {
        power_up(lab, second)?;
        await_healed(lab, first, second)
    })?;
    let acks = writer.stop()?;
    judge(lab, &acks)
}

/// The storage link is cut while a client writes, and comes back. The pool goes on with the legs of one node and heals by
/// itself; nothing moves, nobody is fenced, and ZFS does not suspend the pool for want of its sign of life.
pub(crate) fn link_cut(lab: &Lab) -> Result<()> {
    let (active, standby, mut writer) = written_to(lab)?;
    let state = || ssh::run(lab, active, "cat /proc/spl/kstat/zfs/san-pool/state");
    stage("the storage link is cut, the pool goes on with one half", || {
        net::connect("stor", standby.id, false)?;
        await_one_half(lab, active)?;
        await_missing(lab, active, 2)?;
        writer.await_more(BLOCKS)?;
        ensure!(state()?.trim() != "SUSPENDED", "the pool is suspended");
        let said = Hand { lab, node: active }.act(POOL, "OCF_CHECK_LEVEL=10", "monitor")?;
        ensure!(said.text.contains(" is DEGRADED: "), "a deep monitor: {}", said.text);
        Ok(())
    })?;
    stage("the link is back, the pool heals", || {
        net::connect("stor", standby.id, true)?;
        await_healed(lab, active, standby)?;
        await_missing(lab, active, 0)
    })?;
    writer.await_more(BLOCKS)?;
    let acks = writer.stop()?;
    let owner = cluster::await_placed(lab, Machine::named("quorum-c")?, None)?;
    ensure!(owner == active.name, "the pool has moved to {owner}");
    ensure!(!plug::log(lab).exists(), "somebody was fenced");
    timeline::print(lab, acks.times[0], &[active], &acks)?;
    judge(lab, &acks)
}

/// Waits until the cluster knows how many legs of the other node a node misses.
fn await_missing(lab: &Lab, node: &Machine, count: u32) -> Result<()> {
    let ask = format!("attrd_updater --query --node {} --name hasan-legs-missing", node.name);
    await_until(&format!("{count} legs are missing"), timers::CLUSTER, || {
        let said = ssh::run(lab, node, &ask)?;
        if said.contains(&format!("value=\"{count}\"")) { Ok(()) } else { bail!(said) }
    })
}

/// Gives a machine power again whose plug had stayed off.
pub(crate) fn power_up(lab: &Lab, node: &Machine) -> Result<()> {
    plug::mend(lab, node, plug::Fault::StaysOff)?;
    machine::boot(lab, node)?;
    ssh::await_one(lab, node)
}

/// Waits until the pool is whole, and the node that missed writes bears no mark of it.
pub(crate) fn await_healed(lab: &Lab, active: &Machine, returned: &Machine) -> Result<()> {
    await_healthy(lab, active)?;
    await_unmarked(lab, active, returned)
}

/// A disk of the standby loses what it held, and says nothing of it. ZFS finds it by its checksums, on a leg that stays
/// ONLINE: the standby is marked, the pool is scrubbed until nothing is wrong, and the mark goes.
pub(crate) fn silent_damage(lab: &Lab) -> Result<()> {
    let (active, standby, mut writer) = written_to(lab)?;
    damage(lab, active, standby)?;
    stage("it is scrubbed until all is right", || await_healed(lab, active, standby))?;
    check_scrubbed(lab, active)?;
    writer.await_more(BLOCKS)?;
    judge_unfenced(lab, writer)
}

/// The same, and the active node dies before all is right: the standby, whose legs are ONLINE, does not serve.
pub(crate) fn silent_damage_and_death(lab: &Lab) -> Result<()> {
    let (active, standby, mut writer) = written_to(lab)?;
    let quorum = Machine::named("quorum-c")?;
    hold_scans(lab, active, true)?;
    damage(lab, active, standby)?;
    let leg = first_leg(standby);
    let status = pool_status(lab, active)?;
    let is_online = status.lines().any(|line| line.contains(leg) && line.contains("ONLINE"));
    ensure!(is_online, "{leg} is not ONLINE:\n{status}");
    dies_and_other_refuses(lab, active, standby)?;
    stage(&format!("{} is back, and scrubs until all is right", active.name), || {
        power_up(lab, active)?;
        cluster::await_placed(lab, quorum, Some(active.name))?;
        await_healed(lab, active, standby)?;
        check_scrubbed(lab, active)
    })?;
    writer.await_more(BLOCKS)?;
    judge(lab, &writer.stop()?)
}

/// Damages a disk of the standby, and waits until that is known.
fn damage(lab: &Lab, active: &Machine, standby: &Machine) -> Result<()> {
    let leg = first_leg(standby);
    // Labels lie in the first 4.5 MiB and in the last half; what lies between is the pool's.
    let fill = "set -e; zfs create -o mountpoint=/filler -o compression=off san-pool/filler
        head -c 192M /dev/urandom > /filler/data; sync; zpool sync san-pool; echo 3 > /proc/sys/vm/drop_caches";
    ssh::within(lab, active, timers::PCS, fill)?;
    let damage = format!(
        "dd if=/dev/urandom of=/dev/mapper/{leg}-export bs=1M seek=16 count=768 oflag=direct conv=notrunc status=none"
    );
    ssh::within(lab, standby, timers::PCS, &damage)?;
    stage("the damage is found, and the standby is marked", || {
        ssh::within(lab, active, timers::PCS, "cat /filler/data > /dev/null")?;
        await_until("the standby is marked", timers::CLUSTER, || {
            let mark = ssh::run(lab, active, &query_mark(standby))?;
            if mark.trim() == "none" { bail!("it bears no mark") } else { Ok(()) }
        })
    })
}

/// ZFS has read all that the pool holds, and it was right.
fn check_scrubbed(lab: &Lab, active: &Machine) -> Result<()> {
    let status = ssh::run(
        lab,
        active,
        "zpool status -p san-pool; journalctl -o cat -u hasan-backend-watch",
    )?;
    ensure!(status.contains("with 0 errors"), "not scrubbed:\n{status}");
    ensure!(status.contains("was scrubbed, and all that it holds is right"), "{status}");
    Ok(())
}

fn await_healthy(lab: &Lab, node: &Machine) -> Result<()> {
    await_until("all legs are ONLINE", timers::HEAL, || {
        let status = pool_status(lab, node)?;
        if is_healthy(&status) { Ok(()) } else { bail!(status) }
    })
}

/// The mark on the node that missed writes goes when it has them.
pub(crate) fn await_unmarked(lab: &Lab, from: &Machine, node: &Machine) -> Result<()> {
    let ask = query_mark(node);
    await_until(&format!("{} bears no mark", node.name), timers::HEAL, || {
        let mark = ssh::run(lab, from, &ask)?;
        if mark.trim() == "none" { Ok(()) } else { bail!("marked since {}", mark.trim()) }
    })
}

/// A command that says since when a node is marked, or "none".
pub(crate) fn query_mark(node: &Machine) -> String {
    format!(
        "crm_attribute --node {} --name hasan-dirty-san-pool --lifetime forever --query --quiet 2>/dev/null || echo none",
        node.name
    )
}

/// Whether every vdev is ONLINE and nothing is being resilvered.
fn is_healthy(status: &str) -> bool {
    let is_bad = |line: &str| {
        ["DEGRADED", "FAULTED", "OFFLINE", "REMOVED", "UNAVAIL", "SUSPENDED", "in progress"]
            .iter()
            .any(|word| line.contains(word))
    };
    status.contains("ONLINE") && !status.lines().any(is_bad)
}

/// The end of a scenario in which nobody may have been fenced.
pub(crate) fn judge_unfenced(lab: &Lab, writer: Writer) -> Result<()> {
    let acks = writer.stop()?;
    ensure!(!plug::log(lab).exists(), "somebody was fenced");
    judge(lab, &acks)
}

/// The verdict on a scenario's load; and the proof that the verifier can be red.
pub(crate) fn judge(lab: &Lab, acks: &Acks) -> Result<()> {
    let lost = load::verify(lab, acks)?;
    println!("{}", load::summary(acks, &lost));
    if !lost.is_empty() || !acks.errors.is_empty() {
        bail!("lost: {lost:?}; errors: {:?}", acks.errors);
    }
    plug::check_fencings(lab)?;
    load::corrupt(lab, acks, 7)?;
    let found = load::verify(lab, acks)?;
    let want = "slot 7: ";
    ensure!(
        found.len() == 1 && found[0].starts_with(want),
        "a block was corrupted on purpose, and the verifier found {found:?}"
    );
    println!("a block corrupted on purpose: {}", found[0]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_healthy_only_if_all_is_online() {
        let well = "  pool: p\n state: ONLINE\n  scan: resilvered 1M in 0 days\n  a ONLINE 0 0 0\n";
        assert!(is_healthy(well));
        for bad in ["  b FAULTED 1 0 0", "  scan: resilver in progress", "  b OFFLINE 0 0 0"] {
            assert!(!is_healthy(&format!("{well}{bad}\n")), "{bad}");
        }
        assert!(!is_healthy(""));
    }
}
