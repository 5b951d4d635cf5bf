//! A storm: what goes wrong in the field, one thing after another, as the seed chooses, while a client writes. After each the
//! cluster has to become whole again by itself.

use crate::faults::{await_one_half, kill_watch, mixed, number, pick, seed};
use crate::load::Writer;
use crate::machine::{self, Machine};
use crate::scenarios::{
    BLOCKS, await_healed, await_unmarked, check_no_pool, judge, other, written_to,
};
use crate::state::Lab;
use crate::{cluster, net, plug, qmp, ssh, timers};
use anyhow::{Result, bail, ensure};
use serde_json::json;
use support::command::{await_until, stage};

/// How many things go wrong, unless HASAN_ROUNDS says so.
const ROUNDS: u64 = 6;

/// Who is what when something goes wrong.
struct Scene<'a> {
    lab: &'a Lab,
    active: &'static Machine,
    standby: &'static Machine,
    writer: &'a mut Writer,
}

/// What can go wrong. Each returns when the cluster has seen it, and what it broke is there again.
type Event = (&'static str, fn(&mut Scene<'_>) -> Result<()>);
const EVENTS: [Event; 10] = [
    ("the active node dies", |scene| {
        fenced(scene.lab, scene.active, || machine::kill(scene.lab, scene.active))
    }),
    ("the standby dies", |scene| {
        fenced(scene.lab, scene.standby, || machine::kill(scene.lab, scene.standby))
    }),
    ("the active node freezes", |scene| {
        let freeze =
            || qmp::command(&scene.active.control(scene.lab), "stop", json!({})).map(|_| ());
        fenced(scene.lab, scene.active, freeze)
    }),
    ("the third voter dies", |scene| {
        let quorum = Machine::named("quorum-c")?;
        fenced(scene.lab, quorum, || machine::kill(scene.lab, quorum))
    }),
    ("the storage link is cut for a while", |scene| {
        net::connect("stor", scene.standby.id, false)?;
        await_one_half(scene.lab, scene.active)?;
        scene.writer.await_more(BLOCKS)?;
        net::connect("stor", scene.standby.id, true)
    }),
    ("the active node's cluster link is cut", |scene| cut_off(scene.lab, scene.active)),
    ("the standby's cluster link is cut", |scene| cut_off(scene.lab, scene.standby)),
    ("both watches are killed", |scene| {
        kill_watch(scene.lab, scene.active)?;
        kill_watch(scene.lab, scene.standby)
    }),
    ("the standby's target is started anew", |scene| {
        ssh::run(scene.lab, scene.standby, "systemctl restart hasan-backend-export").map(|_| ())
    }),
    ("the active node is put on standby", |scene| {
        cluster::move_away(scene.lab, scene.active, scene.standby)
    }),
];

/// Rounds of it.
pub(crate) fn rounds(lab: &Lab) -> Result<()> {
    let seed = seed()?;
    let rounds = number("HASAN_ROUNDS")?.unwrap_or(ROUNDS);
    let (mut active, mut standby, mut writer) = written_to(lab)?;
    for round in 1..=rounds {
        let (name, event) = pick(&EVENTS, mixed(seed.wrapping_add(round)));
        stage(&format!("{round} of {rounds}: {name}"), || {
            event(&mut Scene { lab, active, standby, writer: &mut writer })?;
            active = whole(lab)?;
            standby = other(active)?;
            writer.await_more(BLOCKS)
        })?;
    }
    judge(lab, &writer.stop()?)
}

/// Does something for which a node is fenced; returns when it has power again.
pub(crate) fn fenced(lab: &Lab, node: &Machine, event: impl FnOnce() -> Result<()>) -> Result<()> {
    let before = times_on(lab, node);
    event()?;
    await_until(&format!("{} is fenced", node.name), timers::CLUSTER, || {
        if times_on(lab, node) > before { Ok(()) } else { bail!("not yet") }
    })
}

/// How often its plug has given a node power.
fn times_on(lab: &Lab, node: &Machine) -> usize {
    let log = std::fs::read_to_string(plug::log(lab)).unwrap_or_default();
    log.lines().filter(|line| line.ends_with(&format!(" on {}", node.name))).count()
}

/// A node loses its cluster link, and has it again when it was fenced for it.
fn cut_off(lab: &Lab, node: &Machine) -> Result<()> {
    fenced(lab, node, || net::connect("mgmt", node.id, false))?;
    net::connect("mgmt", node.id, true)
}

/// Waits until all is as at the beginning: three members, each resource once, one importer, all legs with all writes.
/// Returns the active node.
pub(crate) fn whole(lab: &Lab) -> Result<&'static Machine> {
    let quorum = Machine::named("quorum-c")?;
    ssh::await_all(lab)?;
    await_until("all three are members", timers::CLUSTER, || {
        let status = ssh::run(lab, quorum, "crm_mon --one-shot --output-as=xml")?;
        let is_member = |line: &&str| {
            line.contains("<node name=")
                && line.contains("online=\"true\"")
                && line.contains("pending=\"false\"")
        };
        let members = status.lines().filter(is_member).count();
        let is_twice = status.contains("nodes_running_on=\"2\"");
        if members == 3 && !is_twice { Ok(()) } else { bail!(status) }
    })?;
    let active = Machine::named(&cluster::await_placed(lab, quorum, None)?)?;
    let standby = other(active)?;
    await_healed(lab, active, standby)?;
    await_unmarked(lab, active, active)?;
    check_no_pool(lab, standby)?;
    let still = cluster::await_placed(lab, quorum, None)?;
    ensure!(still == active.name, "the pool went on to {still}");
    Ok(active)
}
