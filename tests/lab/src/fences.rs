//! What depends on the plugs: one that lies, one that does not obey, and a second one behind it.

use crate::machine::{self, Machine};
use crate::scenarios::{BLOCKS, await_healed, check_no_pool, judge, query_mark, written_to};
use crate::state::Lab;
use crate::{cluster, plug, qmp, ssh, timeline, timers};
use anyhow::{Result, bail, ensure};
use serde_json::json;
use support::command::{await_until, stage};

/// The active node is frozen, and its plug lies: it is taken for dead and wakes up later. Nothing that it writes then
/// reaches a leg of the other node, and it serves nobody.
pub(crate) fn frozen(lab: &Lab) -> Result<()> {
    let (sleeper, survivor, mut writer) = written_to(lab)?;
    plug::damage(lab, sleeper, plug::Fault::Lies)?;
    qmp::command(&sleeper.control(lab), "stop", json!({}))?;
    stage(&format!("{} freezes, {} takes over", sleeper.name, survivor.name), || {
        cluster::await_placed(lab, survivor, Some(survivor.name)).map(|_| ())
    })?;
    writer.await_more(BLOCKS)?;
    qmp::command(&sleeper.control(lab), "cont", json!({}))?;
    stage(&format!("{} wakes up with the pool", sleeper.name), || {
        ssh::await_one(lab, sleeper)?;
        // It wants to write; the legs of the other node never take it.
        ssh::run(lab, sleeper, "(zfs set hasan:woken=1 san-pool > /dev/null 2>&1 &)")?;
        let target =
            format!("/sys/kernel/config/target/iscsi/iqn.2025-01.lab.home:{}", survivor.name);
        let refused =
            format!("grep -h . {target}/fabric_statistics/iscsi_login_stats/authorize_fails");
        await_until("its logins are refused", timers::CLUSTER, || {
            let count = ssh::run(lab, survivor, &refused)?;
            if count.trim() == "0" { bail!("no login was refused") } else { Ok(()) }
        })?;
        // It does not know yet what it missed, and asks the cluster to mark the other one. Nobody must take that.
        await_until("it has asked to let its legs go", timers::CLUSTER, || {
            let asked = "journalctl -o cat -u hasan-backend-watch | grep -E 'record .*(has it:|does not have the pool)'";
            ssh::run(lab, sleeper, asked).map(|_| ())
        })?;
        let mark = ssh::run(lab, Machine::named("quorum-c")?, &query_mark(survivor))?;
        ensure!(mark.trim() == "none", "{} is marked, since {mark}", survivor.name);
        let acls = ssh::run(lab, survivor, &format!("ls {target}/tpgt_1/acls"))?;
        ensure!(acls.trim().is_empty(), "{} lets in {acls:?}", survivor.name);
        Ok(())
    })?;
    let owner = ssh::run(
        lab,
        survivor,
        "for leg in $(dmsetup ls --target linear | cut -f1 | grep -v export); do \
                                           zdb -l /dev/mapper/$leg | grep -m1 hostname; done | sort -u",
    )?;
    ensure!(owner.trim() == format!("hostname: '{}'", survivor.name), "the legs say {owner:?}");
    stage(&format!("{} is really switched off and on", sleeper.name), || {
        plug::mend(lab, sleeper, plug::Fault::Lies)?;
        machine::kill(lab, sleeper)?;
        machine::boot(lab, sleeper)?;
        ssh::await_one(lab, sleeper)?;
        cluster::await_placed(lab, survivor, Some(survivor.name))?;
        await_healed(lab, survivor, sleeper)
    })?;
    writer.await_more(BLOCKS)?;
    let acks = writer.stop()?;
    timeline::print(lab, acks.times[0], &[survivor], &acks)?;
    judge(lab, &acks)
}

/// The active node is frozen, and its plug takes commands without obeying: nobody is fenced, so nobody takes the pool. When
/// the plug is mended, the cluster goes on by itself.
pub(crate) fn stuck_plug(lab: &Lab) -> Result<()> {
    let (sleeper, survivor, mut writer) = written_to(lab)?;
    plug::damage(lab, sleeper, plug::Fault::Stuck)?;
    qmp::command(&sleeper.control(lab), "stop", json!({}))?;
    stage(&format!("{} freezes, and cannot be fenced", sleeper.name), || {
        await_failed_fencings(lab, survivor, 2)?;
        println!("the plug took {} commands", disobeyed(lab, survivor)?);
        check_no_pool(lab, survivor)
    })?;
    stage(&format!("the plug is mended, {} takes over", survivor.name), || {
        plug::mend(lab, sleeper, plug::Fault::Stuck)?;
        cluster::await_placed(lab, survivor, Some(survivor.name)).map(|_| ())
    })?;
    writer.await_more(BLOCKS)?;
    judge(lab, &writer.stop()?)
}

/// The active node is dark, and so is its plug. A person tells the cluster so, and the other node takes over; without that word
/// it does not.
pub(crate) fn confirmed(lab: &Lab) -> Result<()> {
    let (dead, survivor, mut writer) = written_to(lab)?;
    plug::pull_cord(lab, dead)?;
    stage(&format!("{} is dark, and cannot be fenced", dead.name), || {
        await_failed_fencings(lab, survivor, 2)?;
        check_no_pool(lab, survivor)
    })?;
    stage(&format!("a person confirms it, {} takes over", survivor.name), || {
        let confirm = format!("pcs stonith confirm {} --force 2>&1", dead.name);
        println!("{}", ssh::within(lab, survivor, timers::PCS, &confirm)?.trim());
        cluster::await_placed(lab, survivor, Some(survivor.name)).map(|_| ())
    })?;
    writer.await_more(BLOCKS)?;
    stage(&format!("{} returns, the pool heals", dead.name), || {
        plug::mend(lab, dead, plug::Fault::Dark)?;
        machine::boot(lab, dead)?;
        ssh::await_one(lab, dead)?;
        await_healed(lab, survivor, dead)
    })?;
    writer.await_more(BLOCKS)?;
    judge(lab, &writer.stop()?)
}

fn await_failed_fencings(lab: &Lab, seen_by: &Machine, count: usize) -> Result<()> {
    await_until("fencings have failed", timers::CLUSTER, || {
        let history = ssh::run(lab, seen_by, "crm_mon --one-shot --output-as=xml")?;
        let is_failed =
            |line: &&str| line.contains("<fence_event") && line.contains("status=\"failed\"");
        let events: Vec<&str> = history.lines().filter(is_failed).collect();
        if events.len() >= count { Ok(()) } else { bail!(events.join("\n")) }
    })
}

/// The same plug, with a second one on the next level of the fencing topology: that one takes the node off, and the other
/// node serves.
pub(crate) fn second_plug(lab: &Lab) -> Result<()> {
    let (sleeper, survivor, mut writer) = written_to(lab)?;
    let (name, second) = (sleeper.name, plug::second(sleeper)?);
    stage("a second plug", || {
        for command in [
            format!(
                "stonith create fence-second fence_smartplug type=kasa ip={second} pcmk_host_list={name} \
                 power_timeout=30 login_timeout=10 shell_timeout=15"
            ),
            format!("stonith level add 1 {name} fence-{name}"),
            format!("stonith level add 2 {name} fence-second"),
        ] {
            ssh::within(lab, survivor, timers::PCS, &format!("pcs {command}"))?;
        }
        Ok(())
    })?;
    plug::damage(lab, sleeper, plug::Fault::Stuck)?;
    qmp::command(&sleeper.control(lab), "stop", json!({}))?;
    stage(&format!("{name} freezes, its second plug cuts its power"), || {
        cluster::await_placed(lab, survivor, Some(survivor.name)).map(|_| ())
    })?;
    ensure!(disobeyed(lab, survivor)? > 0, "the first plug was not tried");
    stage(&format!("{name} returns, the pool heals"), || {
        ssh::await_one(lab, sleeper)?;
        await_healed(lab, survivor, sleeper)
    })?;
    writer.await_more(BLOCKS)?;
    judge(lab, &writer.stop()?)
}

/// How often a node has found that a plug took a command and did not obey.
fn disobeyed(lab: &Lab, by: &Machine) -> Result<usize> {
    let journal = ssh::run(lab, by, "journalctl -o cat -u pacemaker")?;
    Ok(journal.matches("it took the command and is still on").count())
}
