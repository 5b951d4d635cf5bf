//! What goes wrong with legs. The standby's go and come back, and heal without hands. Or the storage link is cut, and the
//! active node dies at a certain moment after it: where the mark was written by then, the other node must not serve alone;
//! where it was not, it must, with all that was acknowledged.

use crate::load::Writer;
use crate::machine::{self, Machine};
use crate::scenarios::{
    BLOCKS, await_healed, await_refusal, check_no_pool, judge, pool_status, power_up, written_to,
};
use crate::state::Lab;
use crate::{cluster, net, plug, ssh, timers};
use anyhow::{Context, Result, bail, ensure};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use support::command::{await_until, stage};

/// The standby's target is started anew; the link is cut in maintenance mode, and the watch is killed in the middle; the
/// standby dies. The client has no error, nothing moves, and no hand brings a leg back.
pub(crate) fn legs_return(lab: &Lab) -> Result<()> {
    let (active, standby, mut writer) = written_to(lab)?;
    stage("the standby's target is started anew", || {
        ssh::run(lab, standby, "systemctl restart hasan-backend-export")?;
        writer.await_more(BLOCKS)?;
        await_healed(lab, active, standby)
    })?;
    let maintain = |value: &str| {
        let set =
            format!("crm_attribute --type crm_config --name maintenance-mode --update {value}");
        ssh::run(lab, active, &set).map(|_| ())
    };
    stage("maintenance mode, the link is cut, the watch is killed", || {
        maintain("true")?;
        let count =
            "journalctl -o cat -u hasan-backend-watch | grep -c 'is lost; its I/O waits' || true";
        let before = ssh::run(lab, active, count)?;
        net::connect("stor", standby.id, false)?;
        await_until("the legs are lost", timers::CLUSTER, || {
            let now = ssh::run(lab, active, count)?;
            if now == before { bail!("{now} were lost") } else { Ok(()) }
        })?;
        kill_watch(lab, active)?;
        await_one_half(lab, active)?;
        writer.await_more(BLOCKS)
    })?;
    stage("the link is back, the watch is killed again", || {
        net::connect("stor", standby.id, true)?;
        kill_watch(lab, active)?;
        await_healed(lab, active, standby)?;
        maintain("false")
    })?;
    writer.await_more(BLOCKS)?;
    ensure!(!plug::log(lab).exists(), "somebody was fenced");
    stage("the standby is rebooted", || {
        let boot = || ssh::run(lab, standby, "cat /proc/sys/kernel/random/boot_id");
        let before = boot()?;
        ssh::run(lab, standby, "systemctl reboot --no-block")?;
        await_until("it has booted", timers::CLUSTER, || {
            if boot()? == before { bail!("not yet") } else { Ok(()) }
        })?;
        await_healed(lab, active, standby)
    })?;
    writer.await_more(BLOCKS)?;
    ensure!(!plug::log(lab).exists(), "somebody was fenced");
    stage("the standby dies", || {
        machine::kill(lab, standby)?;
        await_one_half(lab, active)?;
        writer.await_more(BLOCKS)
    })?;
    stage("the standby is back", || {
        ssh::await_one(lab, standby)?;
        await_healed(lab, active, standby)
    })?;
    writer.await_more(BLOCKS)?;
    let acks = writer.stop()?;
    let owner = cluster::await_placed(lab, Machine::named("quorum-c")?, None)?;
    ensure!(owner == active.name, "the pool has moved to {owner}");
    let plugs = std::fs::read_to_string(plug::log(lab)).context("the standby was not fenced")?;
    ensure!(!plugs.contains(active.name), "the active node was fenced:\n{plugs}");
    judge(lab, &acks)
}

/// A machine loses its power for good, as a node that goes on sees it.
fn lose(lab: &Lab, machine: &Machine, seen_by: &Machine) -> Result<()> {
    plug::damage(lab, machine, plug::Fault::StaysOff)?;
    machine::kill(lab, machine)?;
    let lost = format!("crm_node --partition | grep -v {}", machine.name);
    await_until("it is known", timers::CLUSTER, || ssh::run(lab, seen_by, &lost).map(|_| ()))
}

/// It has power again after all.
fn bring_back(lab: &Lab, machine: &Machine) -> Result<()> {
    plug::mend(lab, machine, plug::Fault::StaysOff)?;
    machine::boot(lab, machine)?;
    ssh::await_one(lab, machine)
}

/// Waits until a node's watch has said so often that it could not write the mark.
fn await_refusals(lab: &Lab, node: &Machine, count: u32) -> Result<()> {
    let refused = "journalctl -o cat -u hasan-backend-watch | grep -c 'the cluster has no quorum'";
    await_until(&format!("the mark is refused, {count}"), timers::CLUSTER, || {
        let found = ssh::run(lab, node, refused)?;
        if found.trim().parse::<u32>()? >= count { Ok(()) } else { bail!(found) }
    })
}

/// The third voter is lost for good. It was fenced, so that what runs can be started elsewhere.
pub(crate) fn moves_without_quorum_node(lab: &Lab) -> Result<()> {
    let (active, standby, mut writer) = written_to(lab)?;
    let quorum = Machine::named("quorum-c")?;
    stage("the third voter goes, and stays off", || {
        lose(lab, quorum, active)?;
        writer.await_more(BLOCKS)
    })?;
    stage(&format!("the pool moves to {}", standby.name), || {
        cluster::move_away(lab, active, standby)?;
        writer.await_more(BLOCKS)
    })?;
    stage("the third voter is back, nothing moves", || {
        bring_back(lab, quorum)?;
        cluster::await_placed(lab, quorum, Some(standby.name))?;
        writer.await_more(BLOCKS)
    })?;
    judge(lab, &writer.stop()?)
}

/// The third voter goes, and the active node goes on. Then the standby goes too: nobody may decide anything, nothing is
/// acknowledged, and when the third voter is back the cluster serves again.
pub(crate) fn quorum_goes(lab: &Lab) -> Result<()> {
    let (active, standby, mut writer) = written_to(lab)?;
    let quorum = Machine::named("quorum-c")?;
    let is_quorate = |want: bool| {
        let ask = format!("crm_node --quorum | grep -x {}", u8::from(want));
        await_until(&format!("quorum: {want}"), timers::CLUSTER, || {
            ssh::run(lab, active, &ask).map(|_| ())
        })
    };
    stage("the third voter goes, the active node goes on", || {
        lose(lab, quorum, active)?;
        is_quorate(true)?;
        writer.await_more(BLOCKS)
    })?;
    stage("the standby goes too, nothing is acknowledged", || {
        machine::kill(lab, standby)?;
        is_quorate(false)?;
        let acknowledged = writer.acks().count;
        // A watch says so once, though it asks for the mark again and again; the next watch says it anew. Pacemaker would take
        // the mark on a node that has lost all others.
        await_refusals(lab, active, 1)?;
        kill_watch(lab, active)?;
        await_refusals(lab, active, 2)?;
        let more = writer.acks().count - acknowledged;
        ensure!(more == 0, "{more} blocks were acknowledged with one leg, and no mark");
        Ok(())
    })?;
    stage("the third voter is back, the cluster serves", || {
        bring_back(lab, quorum)?;
        cluster::await_placed(lab, quorum, None)?;
        writer.await_more(BLOCKS)
    })?;
    judge(lab, &writer.stop()?)
}

pub(crate) fn kill_watch(lab: &Lab, node: &Machine) -> Result<()> {
    signal_watch(lab, node, "KILL")
}

/// Sends the watch a signal: KILL, STOP or CONT.
pub(crate) fn signal_watch(lab: &Lab, node: &Machine, signal: &str) -> Result<()> {
    let kill = format!("systemctl kill --signal={signal} hasan-backend-watch");
    ssh::run(lab, node, &kill).map(|_| ())
}

/// Waits until the pool goes on without the other node's legs. Its own state lags behind its vdevs', on ZFS 2.3 by minutes.
pub(crate) fn await_one_half(lab: &Lab, active: &Machine) -> Result<()> {
    await_until("the lost legs are known to be lost", timers::CLUSTER, || {
        let status = pool_status(lab, active)?;
        if status.contains("FAULTED") { Ok(()) } else { bail!(status) }
    })
}

/// How far the active node has come when its power goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// It does not know yet.
    LinkCut,
    /// It is about to ask for the mark.
    BeforeMark,
    /// The cluster has the mark, the lost legs still hold all I/O up.
    Marked,
    /// The pool goes on with one half.
    Released,
    /// Nobody knows.
    Random,
}

pub(crate) fn link_cut(lab: &Lab) -> Result<()> {
    dies(lab, Moment::LinkCut)
}

pub(crate) fn before_mark(lab: &Lab) -> Result<()> {
    dies(lab, Moment::BeforeMark)
}

pub(crate) fn marked(lab: &Lab) -> Result<()> {
    dies(lab, Moment::Marked)
}

pub(crate) fn released(lab: &Lab) -> Result<()> {
    dies(lab, Moment::Released)
}

pub(crate) fn random(lab: &Lab) -> Result<()> {
    dies(lab, Moment::Random)
}

fn dies(lab: &Lab, moment: Moment) -> Result<()> {
    let (first, second, mut writer) = written_to(lab)?;
    let quorum = Machine::named("quorum-c")?;
    match moment {
        Moment::BeforeMark => hold_marks(lab, first, BEFORE)?,
        Moment::Marked => hold_marks(lab, first, AFTER)?,
        _ => {}
    }
    // With power again it would serve as before, and nobody would ask the other one.
    plug::damage(lab, first, plug::Fault::StaysOff)?;
    stage("the storage link is cut", || {
        net::connect("stor", second.id, false)?;
        reach(lab, first, moment, &mut writer)
    })?;
    machine::kill(lab, first)?;
    let nodes = ssh::run(lab, quorum, "cibadmin --query --local --scope nodes")?;
    let is_marked = nodes.contains("hasan-dirty-san-pool");
    println!("{} dies; {} is marked: {is_marked}", first.name, second.name);
    match moment {
        Moment::LinkCut | Moment::BeforeMark => ensure!(!is_marked, "marked too early:\n{nodes}"),
        Moment::Marked | Moment::Released => ensure!(is_marked, "not marked:\n{nodes}"),
        Moment::Random => {}
    }
    let mend = || {
        net::connect("stor", second.id, true)?;
        power_up(lab, first)
    };
    if is_marked {
        stage(&format!("{} refuses", second.name), || await_refusal(lab, quorum, second))?;
        check_no_pool(lab, second)?;
        stage(&format!("{} and the link are back", first.name), || {
            mend()?;
            cluster::await_placed(lab, quorum, None).map(|_| ())
        })?;
        if moment == Moment::Released {
            stage(&format!("{} has all writes before its mark goes", second.name), || {
                await_healed(lab, first, second)?;
                check_mark_outlived_resilver(lab, first, second)
            })?;
        }
    } else {
        stage(&format!("{} serves", second.name), || {
            cluster::await_placed(lab, quorum, Some(second.name))?;
            writer.await_more(BLOCKS)
        })?;
        stage(&format!("{} and the link are back", first.name), || {
            mend()?;
            await_healed(lab, second, first)
        })?;
    }
    writer.await_more(BLOCKS)?;
    judge(lab, &writer.stop()?)
}

/// The pool was imported with legs that missed writes, which look well until ZFS has begun to resilver them.
fn check_mark_outlived_resilver(lab: &Lab, active: &Machine, marked: &Machine) -> Result<()> {
    let ask = format!(
        "removed=$(journalctl -b -o short-unix -t iscsi-backend-health | sed -n 's/[.].*the mark on {} is removed$//p' | head -n 1)
        finish=$(zpool events -H san-pool | sed -n 's/\tsysevent.fs.zfs.resilver_finish$//p' | tail -n 1)
        [ -n \"$finish\" ] || {{ echo no resilver has ended; exit 1; }}
        healed=$(date -d \"$finish\" +%s)
        echo \"healed at $healed, unmarked at $removed\"; [ \"$removed\" -ge \"$healed\" ]",
        marked.name
    );
    ssh::run(lab, active, &ask).map(|said| print!("{said}"))
}

/// Waits until the active node has come so far.
fn reach(lab: &Lab, active: &Machine, moment: Moment, writer: &mut Writer) -> Result<()> {
    match moment {
        Moment::LinkCut => Ok(()),
        Moment::BeforeMark | Moment::Marked => {
            await_held(lab, active, 1)?;
            let acknowledged = writer.acks().count;
            // The watch gives a request up after some time, also one that the cluster has taken, and asks anew.
            await_held(lab, active, 2)?;
            let more = writer.acks().count - acknowledged;
            ensure!(more == 0, "{more} blocks were acknowledged before the mark was read back");
            Ok(())
        }
        Moment::Released => {
            await_one_half(lab, active)?;
            writer.await_more(BLOCKS)
        }
        Moment::Random => {
            let delay = random_delay()?;
            println!("{} dies {:.1} s after the cut", active.name, delay.as_secs_f64());
            std::thread::sleep(delay);
            Ok(())
        }
    }
}

/// What is left to chance, printed. `HASAN_SEED` plays a run again.
pub(crate) fn seed() -> Result<u64> {
    let seed = match number("HASAN_SEED")? {
        Some(seed) => seed,
        None => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
    };
    println!("HASAN_SEED={seed}");
    Ok(seed)
}

/// A number that the environment gives.
pub(crate) fn number(variable: &str) -> Result<Option<u64>> {
    let Ok(text) = std::env::var(variable) else { return Ok(None) };
    text.parse().map(Some).with_context(|| format!("{variable} is no number"))
}

/// A number that looks like chance. Any mixing will do; neighbours should differ.
pub(crate) fn mixed(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
}

/// One of all, by a number.
pub(crate) fn pick<T>(all: &[T], number: u64) -> &T {
    &all[place(all.len(), number)]
}

/// One of so many places, by a number.
pub(crate) fn place(places: usize, number: u64) -> usize {
    usize::try_from(number % places as u64).unwrap_or_default()
}

/// Up to a minute, by which time the legs are let go.
fn random_delay() -> Result<Duration> {
    Ok(Duration::from_millis(mixed(seed()?) % 60_000))
}

const BEFORE: &str = "hold; exec /run/lab/real \"$@\"";
const AFTER: &str = "/run/lab/real \"$@\" || exit; hold";

/// From now on each request for a mark is held up on this node, before or after the cluster has taken it. It ends with the
/// node's power: all of it is in memory.
fn hold_marks(lab: &Lab, node: &Machine, what: &str) -> Result<()> {
    let script = format!(
        "#!/bin/sh\nhold() {{ echo >> /run/lab/held; while :; do sleep 1; done; }}\n\
         case \"$*\" in *hasan-dirty*) {what} ;; esac\nexec /run/lab/real \"$@\"\n"
    );
    let folder = "mkdir /run/lab && mount -t tmpfs -o mode=755 lab /run/lab && touch /run/lab/held && \
                  cp /usr/sbin/cibadmin /run/lab/real";
    ssh::run(lab, node, folder)?;
    ssh::put(lab, node, "/run/lab/cibadmin", script.as_bytes())?;
    let place = "chmod 755 /run/lab/cibadmin && mount --bind /run/lab/cibadmin /usr/sbin/cibadmin";
    ssh::run(lab, node, place).map(|_| ())
}

/// Waits until so many requests were held up.
fn await_held(lab: &Lab, node: &Machine, requests: usize) -> Result<()> {
    await_until("a mark is asked for", timers::CLUSTER, || {
        let held = ssh::run(lab, node, "cat /run/lab/held")?;
        let count = held.lines().count();
        if count >= requests { Ok(()) } else { bail!("{count} of {requests}") }
    })
}
