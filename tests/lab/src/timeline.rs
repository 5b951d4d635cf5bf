//! Who did what, when: from the journals of the nodes, the plugs' log and the client's acknowledgements.

use crate::load::Acks;
use crate::machine::Machine;
use crate::state::Lab;
use crate::{plug, ssh};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Programs whose journal lines tell the story.
const TELLERS: [&str; 5] = [
    "zfs-pool",
    "sync-iscsi-luns",
    "client-iscsi-tpg",
    "iscsi-backend-export",
    "iscsi-backend-health",
];
/// Stalls of the client that are worth a line.
const STALL: Duration = Duration::from_secs(2);

/// Something that happened, in seconds since 1970 by this host's clock.
struct Event {
    at: f64,
    text: String,
    is_warning: bool,
}

/// Prints what happened since `begin`.
pub(crate) fn print(lab: &Lab, begin: SystemTime, nodes: &[&Machine], acks: &Acks) -> Result<()> {
    let mut events = Vec::new();
    for node in nodes {
        events.extend(journal(lab, node)?);
    }
    events.extend(plugs(lab));
    events.extend(stalls(acks).flat_map(told));
    let begin = seconds(begin);
    events.retain(|event| event.at >= begin - 0.5);
    events.sort_by(|a, b| a.at.total_cmp(&b.at));
    println!("timeline, seconds since the event:");
    for event in events {
        println!("  {:7.1}  {}", event.at - begin, event.text);
    }
    Ok(())
}

/// Where all goes as planned, the agents have nothing to warn of.
pub(crate) fn check_no_warning(lab: &Lab, begin: SystemTime, nodes: &[&Machine]) -> Result<()> {
    for node in nodes {
        let told = journal(lab, node)?;
        let since = |event: &&Event| event.is_warning && event.at >= seconds(begin) + CLOCKS;
        let warnings: Vec<&str> =
            told.iter().filter(since).map(|each| each.text.as_str()).collect();
        ensure!(
            warnings.is_empty(),
            "warnings where all went as planned:\n{}",
            warnings.join("\n")
        );
    }
    Ok(())
}

/// The clocks of host and machine are compared by a command that takes some time.
const CLOCKS: f64 = 2.0;

/// The mark on the other node, whose legs are lost since `cut`, is older than their release, and that is older than the first
/// block that was acknowledged after the stall: so says the journal of the active node.
pub(crate) fn check_mark_first(
    lab: &Lab,
    active: &Machine,
    other: &Machine,
    cut: SystemTime,
    acks: &Acks,
) -> Result<()> {
    let told = journal(lab, active)?;
    let mark = format!("{} is marked", other.name);
    let place = |what: &str| {
        let since = |event: &&Event| event.at >= seconds(cut) - CLOCKS && event.text.contains(what);
        told.iter().find(since).with_context(|| format!("the journal has no {what:?}"))
    };
    let (marked, released) = (place(&mark)?, place("is let go")?);
    let first = stalls(acks).find(|(_, next)| *next >= cut);
    let first = seconds(first.context("the client had no stall")?.1);
    println!(
        "since the cut: marked {:.1} s, let go {:.1} s, next block {:.1} s",
        marked.at - seconds(cut),
        released.at - seconds(cut),
        first - seconds(cut)
    );
    ensure!(marked.at <= released.at, "let go before the mark");
    ensure!(released.at <= first + CLOCKS, "acknowledged before the legs were let go");
    Ok(())
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// The lines of this boot. A machine that came from a snapshot has a clock that is behind: its distance is taken off.
fn journal(lab: &Lab, node: &Machine) -> Result<Vec<Event>> {
    let clock = ssh::run(lab, node, "date +%s.%N")?;
    let distance = seconds(SystemTime::now()) - clock.trim().parse::<f64>()?;
    let tellers: Vec<String> = TELLERS.iter().map(|teller| format!("-t {teller}")).collect();
    let line = format!("journalctl --boot --output=json --no-pager {}", tellers.join(" "));
    let mut events = Vec::new();
    for row in ssh::run(lab, node, &line)?.lines() {
        let entry: Value = serde_json::from_str(row)?;
        let get = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
        let at = get("__REALTIME_TIMESTAMP").parse::<f64>()? / 1e6 + distance;
        let (teller, message) = (get("SYSLOG_IDENTIFIER"), get("MESSAGE"));
        // The agents' steps are at 6; what they begin, end and find is at 5 and below.
        if !message.is_empty() && get("PRIORITY") <= "5" {
            let text = format!("{:9}  {teller}: {message}", node.name);
            events.push(Event { at, text, is_warning: get("PRIORITY") <= "4" });
        }
    }
    Ok(events)
}

fn plugs(lab: &Lab) -> Vec<Event> {
    let text = fs::read_to_string(plug::log(lab)).unwrap_or_default();
    let event = |line: &str| {
        let (at, what) = line.split_once(' ')?;
        Some(Event { at: at.parse().ok()?, text: format!("plug       {what}"), is_warning: false })
    };
    text.lines().filter_map(event).collect()
}

/// The last block before each stall, and the next one.
fn stalls(acks: &Acks) -> impl Iterator<Item = (SystemTime, SystemTime)> {
    let pairs = acks.times.windows(2).map(|pair| (pair[0], pair[1]));
    pairs.filter(|(last, next)| next.duration_since(*last).unwrap_or_default() >= STALL)
}

fn told((last, next): (SystemTime, SystemTime)) -> [Event; 2] {
    let length = next.duration_since(last).unwrap_or_default().as_secs_f64();
    let event = |at, text| Event { at: seconds(at), text, is_warning: false };
    [
        event(last, "client     last block before a stall".to_string()),
        event(next, format!("client     next block, after {length:.1} s")),
    ]
}
