//! Legs that are not what they were: another disk, another size, another peer; or they are, and do not work.

use crate::faults::await_one_half;
use crate::machine::Machine;
use crate::pool_checks::AGENTS;
use crate::scenarios::{BLOCKS, await_healed, first_leg, judge_unfenced, pool_status, written_to};
use crate::state::Lab;
use crate::{ssh, timers};
use anyhow::{Result, bail, ensure};
use support::command::{await_until, stage};

/// A disk of the standby is a new one. It is left alone, and the journal has the command that takes it into the pool.
pub(crate) fn replaced_disk(lab: &Lab) -> Result<()> {
    other_disk(lab, None, "zpool replace")
}

/// A disk of the standby is one of another pool. It is left alone as well, and ZFS too takes it only from a person who
/// knows what he does.
pub(crate) fn foreign_disk(lab: &Lab) -> Result<()> {
    let make = "zpool create -o cachefile=none -m none foreign";
    other_disk(lab, Some(make), "zpool replace -f")
}

fn other_disk(lab: &Lab, make: Option<&str>, take: &str) -> Result<()> {
    let (active, standby, mut writer) = written_to(lab)?;
    let leg = first_leg(standby);
    stage("a disk is replaced by another one", || {
        ssh::run(lab, standby, "systemctl stop hasan-backend-export")?;
        await_one_half(lab, active)?;
        // ZFS's labels are the first and the last 512 KiB.
        let blank = format!(
            "set -e; end=$(( $(blockdev --getsz /dev/mapper/{leg}) / 2048 - 4 ))
             for place in 0 $end; do
                 dd if=/dev/zero of=/dev/mapper/{leg} bs=1M seek=$place count=4 oflag=direct conv=notrunc status=none
             done"
        );
        ssh::run(lab, standby, &blank)?;
        if let Some(make) = make {
            ssh::run(
                lab,
                standby,
                &format!("set -e; {make} /dev/mapper/{leg}; zpool export foreign"),
            )?;
        }
        ssh::run(lab, standby, "systemctl start hasan-backend-export").map(|_| ())
    })?;
    stage("it is reported and left alone, the other one is back", || {
        await_without(lab, active, leg, &format!("zpool replace san-pool {leg}$"))
    })?;
    stage(take, || {
        ssh::run(lab, active, &format!("{take} san-pool {leg}"))?;
        await_healed(lab, active, standby)
    })?;
    writer.await_more(BLOCKS)?;
    judge_unfenced(lab, writer)
}

/// The standby is told of a peer that nobody is: it says so, and leaves all that is there as it is.
pub(crate) fn wrong_peer(lab: &Lab) -> Result<()> {
    let (active, standby, mut writer) = written_to(lab)?;
    let config = "/etc/hasan/backend.conf";
    let restart = "systemctl restart hasan-backend-watch";
    // Each try to log in has a session for a while; what was there before is there still.
    let session = ssh::run(lab, standby, "ls -d /sys/class/iscsi_session/*")?;
    let there = format!("ls -d {}; dmsetup table --target multipath", session.trim());
    let before = ssh::run(lab, standby, &there)?;
    let health = format!("OCF_ROOT=/usr/lib/ocf {AGENTS}/iscsi-backend-health monitor 2>&1");
    stage("the standby is told of a peer that nobody is", || {
        let tell = format!(
            "cp {config} {config}.right; sed -i 's/^peer.iqn = .*/&-nobody/' {config}; {restart}"
        );
        ssh::run(lab, standby, &tell)?;
        let journal =
            "journalctl -o cat -u hasan-backend-watch | grep -c 'cannot log in to .*-nobody at '";
        await_until("the watch says so", timers::CLUSTER, || {
            ssh::run(lab, standby, journal).map(|_| ())
        })?;
        writer.await_more(BLOCKS)?;
        let said = ssh::run(lab, standby, journal)?;
        ensure!(said.trim() == "1", "the watch has said it {} times", said.trim());
        let said = ssh::run(lab, standby, &format!("{health} || echo exit $?"))?;
        let is_weak = said.contains("legs of") && said.ends_with("exit 190\n");
        ensure!(is_weak, "the agent says {said}");
        let after = ssh::run(lab, standby, &there)?;
        ensure!(after == before, "it was\n{before}\nand is\n{after}");
        Ok(())
    })?;
    stage("it is told of the right one", || {
        ssh::run(lab, standby, &format!("mv {config}.right {config}; {restart}"))?;
        await_until("its legs are seen again", timers::CLUSTER, || {
            ssh::run(lab, standby, &health).map(|_| ())
        })?;
        await_healed(lab, active, standby)
    })?;
    judge_unfenced(lab, writer)
}

/// A leg of the standby comes back smaller than it was: it is left alone until it is as large again.
pub(crate) fn smaller_leg(lab: &Lab) -> Result<()> {
    let (active, standby, mut writer) = written_to(lab)?;
    let leg = first_leg(standby);
    // The map that is exported is made anew each time; one that is there is taken.
    let shrink = format!(
        "set -e; systemctl stop hasan-backend-export; set -- $(dmsetup table {leg})
         dmsetup create {leg}-export --uuid HASAN-export-{leg} --table \"0 $(($2 - 2048)) linear $4 0\"
         systemctl start hasan-backend-export"
    );
    stage("a leg comes back smaller", || {
        ssh::run(lab, standby, &shrink)?;
        await_without(lab, active, leg, &format!("leg {leg} is not used: it came back with"))
    })?;
    writer.await_more(BLOCKS)?;
    stage("it is as large again", || {
        ssh::run(lab, standby, "systemctl restart hasan-backend-export")?;
        await_healed(lab, active, standby)
    })?;
    writer.await_more(BLOCKS)?;
    judge_unfenced(lab, writer)
}

/// dm-multipath gives the standby's legs up while their disks are as they were: as after a session that was lost and came
/// back between two looks of the watch. Their I/O goes on, and the client has no error.
pub(crate) fn path_fails(lab: &Lab) -> Result<()> {
    let (active, standby, mut writer) = written_to(lab)?;
    let fail = "set -e; for map in /sys/block/dm-*; do
            grep -q HASAN-remote $map/dm/uuid || continue
            dmsetup message $(cat $map/dm/name) 0 fail_path $(cat $map/slaves/*/dev)
        done; dmsetup status --target multipath";
    stage("the paths fail, and are taken into use again", || {
        let status = ssh::run(lab, active, fail)?;
        ensure!(status.lines().filter(|line| line.contains(" F ")).count() == 2, "{status}");
        let journal = "journalctl -o cat -u hasan-backend-watch | grep -q 'stands still'";
        await_until("the watch sees it", timers::CLUSTER, || {
            ssh::run(lab, active, journal).map(|_| ())
        })?;
        writer.await_more(BLOCKS)?;
        await_healed(lab, active, standby)
    })?;
    judge_unfenced(lab, writer)
}

/// Waits until all legs but one are in the pool again, and the watch has said why that one is not.
fn await_without(lab: &Lab, active: &Machine, leg: &str, why: &str) -> Result<()> {
    let journal = format!("journalctl -o cat -u hasan-backend-watch | grep -q '{why}'");
    await_until(why, timers::CLUSTER, || {
        ssh::run(lab, active, &journal)?;
        let status = pool_status(lab, active)?;
        let lines: Vec<&str> = status.lines().filter(|line| line.contains("data-")).collect();
        let online = lines.iter().filter(|line| line.contains("ONLINE")).count();
        let is_alone = lines.iter().any(|line| line.contains(leg) && !line.contains("ONLINE"));
        if online == 3 && is_alone { Ok(()) } else { bail!(status) }
    })
}
