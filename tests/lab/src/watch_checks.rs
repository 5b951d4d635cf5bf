//! The watch itself: what it costs while all is well, what it sets right, and what becomes of it and of the pool when it hangs.

use crate::faults::{await_one_half, signal_watch};
use crate::machine::Machine;
use crate::scenarios::{BLOCKS, await_healed, fresh_cluster, judge_unfenced, other, written_to};
use crate::state::Lab;
use crate::{net, ssh, timeline, timers};
use anyhow::{Context, Result, bail, ensure};
use std::time::SystemTime;
use support::command::{await_until, stage};

/// The seconds for which a session holds I/O up, as the watch wants them.
const RECOVERY_TIMEOUT: &str = "grep -rh . /sys/class/iscsi_session/*/recovery_tmo";
/// Goes through so many signs of life that the watch gives systemd, at least one each pass, and tells of it: page faults and
/// processor time of the programs that it has started and that have ended, and its own processor time (proc_pid_stat(5)).
const COUNT: &str = "
    watch=hasan-backend-watch
    pid=$(systemctl show --value --property=MainPID $watch)
    signs=0 last=
    while [ $signs -le 40 ]; do
        now=$(systemctl show --value --property=WatchdogTimestampMonotonic $watch)
        [ \"$now\" = \"$last\" ] || signs=$((signs + 1))
        last=$now
        [ $signs != 1 ] || before=$(cat /proc/$pid/stat)
        sleep 0.1
    done
    for stat in \"$before\" \"$(cat /proc/$pid/stat)\"; do
        set -- $stat
        echo $((${11} + ${13} + ${16} + ${17})) $((${14} + ${15}))
    done";

/// While all is well the watch starts no program, on both nodes. It sets right what somebody has changed of its session.
pub(crate) fn healthy(lab: &Lab) -> Result<()> {
    let active = fresh_cluster(lab)?;
    let standby = other(active)?;
    for node in [active, standby] {
        stage(&format!("{}: no program in many passes", node.name), || {
            await_until("the watch starts no program", timers::CLUSTER, || {
                let [programs, _] = cost(lab, node)?;
                ensure!(programs == 0, "programs that took {programs}");
                Ok(())
            })
        })?;
    }
    stage("a session's timeout is changed, and set right", || {
        let want = ssh::run(lab, standby, RECOVERY_TIMEOUT)?;
        ssh::run(lab, standby, "echo 7 | tee /sys/class/iscsi_session/*/recovery_tmo")?;
        await_until("it is as before", timers::CLUSTER, || {
            let now = ssh::run(lab, standby, RECOVERY_TIMEOUT)?;
            if now == want { Ok(()) } else { bail!("{now} instead of {want}") }
        })
    })?;
    // What counts the programs sees those that log in again.
    stage("the session is ended, and a program makes it anew", || {
        let stat = "cut -d ' ' -f 11 /proc/$(systemctl show --value --property=MainPID hasan-backend-watch)/stat";
        let faults = || -> Result<u64> { Ok(ssh::run(lab, standby, stat)?.trim().parse()?) };
        let before = faults()?;
        ssh::run(lab, standby, "iscsiadm -m session --logout")?;
        await_until("a program was seen", timers::CLUSTER, || {
            if faults()? > before { Ok(()) } else { bail!("none was") }
        })
    })
}

/// What it takes of a processor by itself.
pub(crate) fn bench(lab: &Lab) -> Result<()> {
    let active = fresh_cluster(lab)?;
    for node in [active, other(active)?] {
        let [_, own] = cost(lab, node)?;
        println!(
            "a healthy watch on {}: {own} hundredths of a second of processor time in 20 to 40 passes",
            node.name
        );
    }
    Ok(())
}

/// What the programs of a watch, and what it itself, have cost in so many passes.
fn cost(lab: &Lab, node: &Machine) -> Result<[u64; 2]> {
    let said = ssh::within(lab, node, timers::CLUSTER, COUNT)?;
    let numbers: Vec<u64> =
        said.split_whitespace().map(str::parse).collect::<Result<_, _>>().context(said.clone())?;
    let [programs, own, programs_now, own_now] = numbers[..] else { bail!("{said:?}") };
    Ok([programs_now - programs, own_now - own])
}

/// The watch of the active node hangs, and then the storage link goes: nothing is acknowledged, systemd begins the watch anew,
/// and the pool goes on. The mark comes first. The link is back, and all heals without hands.
pub(crate) fn hangs(lab: &Lab) -> Result<()> {
    let (active, standby, mut writer) = written_to(lab)?;
    let restarts = || {
        let ask = "systemctl show --value --property=NRestarts hasan-backend-watch";
        ssh::run(lab, active, ask)
    };
    let before = restarts()?;
    let cut = stage("the watch hangs, and the storage link is cut", || {
        signal_watch(lab, active, "STOP")?;
        net::connect("stor", standby.id, false)?;
        let cut = SystemTime::now();
        await_until("the session is lost", timers::CLUSTER, || {
            ssh::run(lab, active, "grep FREE /sys/class/iscsi_session/*/state").map(|_| ())
        })?;
        Ok(cut)
    })?;
    stage("systemd begins the watch anew, the pool goes on", || {
        await_until("the watch is begun anew", timers::CLUSTER, || {
            let now = restarts()?;
            if now == before { bail!("{now} restarts") } else { Ok(()) }
        })?;
        await_one_half(lab, active)?;
        writer.await_more(BLOCKS)
    })?;
    timeline::check_mark_first(lab, active, standby, cut, &writer.acks())?;
    stage("the link is back, the pool heals", || {
        net::connect("stor", standby.id, true)?;
        await_healed(lab, active, standby)
    })?;
    writer.await_more(BLOCKS)?;
    judge_unfenced(lab, writer)
}
