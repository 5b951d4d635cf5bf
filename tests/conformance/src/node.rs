//! A real Pacemaker on a cluster of one node: what it does with each exit code at each moment, what it tells an agent, and
//! what becomes of our own agents there, where there is neither ZFS nor a peer.

use crate::RESOURCES;
use crate::report::Report;
use crate::root::Root;
use anyhow::{Result, ensure};
use std::fmt::Write;

/// The cluster.
pub(crate) const CLUSTER: &str = include_str!("../cluster.sh");
/// What happens in it.
const SCRIPT: &str = include_str!("../one_node.sh");
/// An agent that ends as its parameters say.
const SAYS: &str = include_str!("../says");
/// A storage node whose peer is not there.
const BACKEND: &str = "leg.data-a1 = /dev/disk/by-partlabel/data-a1
iqn = iqn.2025-01.lab.home:storage-a
portal = 10.10.10.1:3260
peer.node = storage-b
peer.iqn = iqn.2025-01.lab.home:storage-b
peer.portal = 10.10.10.2:3260
peer.initiator = iqn.2025-01.lab.home:initiator-storage-b
peer.legs = data-b1 data-b2
pool = san-pool
";

/// An action that ends with one of the codes, and what is called then, in this order.
struct Case {
    action: &'static str,
    codes: &'static [u32],
    calls: &'static str,
}

/// What our agents rely on. A monitor may fail twice here.
const CASES: [Case; 11] = [
    // "Not here" is taken from 2 and 5, too, so nobody may say that of what may be active.
    Case { action: "probe", codes: &[2, 5, 7], calls: "probe" },
    Case { action: "probe", codes: &[0, 1, 3, 4, 6, 42, 190], calls: "probe stop" },
    // What is promoted, well or not, is none of ours.
    Case { action: "probe", codes: &[8, 9, 191], calls: "probe demote stop" },
    // A degraded one is left alone.
    Case { action: "monitor", codes: &[0, 190], calls: "probe start monitor" },
    Case {
        action: "monitor",
        codes: &[1, 3, 7, 42],
        calls: "probe start monitor stop start monitor stop",
    },
    Case {
        action: "monitor",
        codes: &[8, 9, 191],
        calls: "probe start monitor demote stop start monitor demote stop",
    },
    // They are not tried again here.
    Case { action: "monitor", codes: &[2, 4, 5, 6], calls: "probe start monitor stop" },
    Case {
        action: "monitor",
        codes: &[SLEEP],
        calls: "probe start monitor stop start monitor stop",
    },
    // Nobody may end a start with 190: Pacemaker 2.1.5 begins it again and again, 3.0 takes it for well.
    Case { action: "start", codes: &[1, 2, 3, 4, 5, 6, 7, 42], calls: "probe start stop" },
    Case { action: "start", codes: &[8, 9, 191], calls: "probe start demote stop" },
    // Without fencing nothing more is done.
    Case {
        action: "stop",
        codes: &[1, 2, 3, 4, 5, 6, 7, 8, 9, 42, 191],
        calls: "probe start monitor stop",
    },
];
/// No code: it does not end by itself.
const SLEEP: u32 = 999;

/// A second monitor.
const DEEP: &str = "<op id='deep' name='monitor' interval='3s' timeout='15s'><instance_attributes id='deep-p'>\
    <nvpair id='deep-level' name='OCF_CHECK_LEVEL' value='10'/></instance_attributes></op>";

/// How our agents fare: the action, its code, and words of the exit reason.
const OURS: [(&str, u32, &str); 5] = [
    ("pool_start_0", 5, "there is no ZFS module for this kernel"),
    ("luns_start_0", 1, "is not imported here"),
    (
        "door_start_0",
        1,
        "the address of the portal 192.0.2.9:3260 is not on this node: start the VIP first",
    ),
    ("export_start_0", 1, "legs without maps: data-a1; see: systemctl status hasan-backend-export"),
    ("health_monitor_1000", 190, "legs of storage-b that are not here: data-b1, data-b2"),
];

/// Asks it.
pub(crate) fn ask(root: &Root) -> Result<Vec<Report>> {
    let mut report = Report::of(root, "pacemakerd of", "pacemakerd --version")?;
    for (name, text) in [
        ("cluster.sh", CLUSTER),
        ("says", SAYS),
        ("one_node.sh", SCRIPT),
        ("backend.conf", BACKEND),
        ("resources.xml", &resources()),
    ] {
        root.put(name, text)?;
    }
    let said = root.run("bash one_node.sh")?;
    ensure!(said.code == 0, "no cluster of one node: {}", said.text);
    codes(root, &mut report)?;
    told(root, &mut report)?;
    ours(root, &mut report)?;
    Ok(vec![report])
}

/// What was called after each code.
fn codes(root: &Root, report: &mut Report) -> Result<()> {
    let all = root.get("calls")?;
    for case in &CASES {
        for code in case.codes {
            let id = id(case, *code);
            let seen = calls_of(&all, &id);
            report.check(&format!("{id}: {}", case.calls), seen == case.calls, &seen);
        }
    }
    let status = root.get("status.xml")?;
    for code in CASES.iter().filter(|case| case.action == "stop").flat_map(|case| case.codes) {
        let line =
            status.lines().find(|line| line.contains(&format!("<resource id=\"stop-{code}\"")));
        let line = line.unwrap_or_default();
        report.check(&format!("stop-{code} is blocked"), line.contains("blocked=\"true\""), line);
    }
    // One that does not end is killed with its children.
    let left = root.get("left")?;
    report.check("nothing is left of a monitor that was killed", left.is_empty(), &left);
    Ok(())
}

/// What an agent is told, and that it is told of a new parameter without a stop.
fn told(root: &Root, report: &mut Report) -> Result<()> {
    let calls = root.get("calls")?;
    let is_called = |call: &str| calls.lines().any(|line| line == format!("steady {call}"));
    report.check(
        "both depths, then a reload",
        is_called("monitor10") && is_called("reload-agent"),
        &calls,
    );
    report.check("no stop for a reload", !is_called("stop"), &calls);
    for (call, lines) in [
        (
            "monitor",
            [
                "OCF_RESKEY_CRM_meta_timeout=20000",
                "OCF_RESOURCE_INSTANCE=steady",
                "OCF_RESKEY_word=other",
            ],
        ),
        (
            "monitor10",
            ["OCF_CHECK_LEVEL=10", "OCF_RESKEY_CRM_meta_timeout=15000", "OCF_RESKEY_word=other"],
        ),
        (
            "reload-agent",
            [
                "OCF_RESKEY_CRM_meta_timeout=20000",
                "OCF_RESOURCE_INSTANCE=steady",
                "OCF_RESKEY_word=other",
            ],
        ),
    ] {
        let environment = root.get(&format!("environment.steady.{call}"))?;
        for line in lines {
            let is_there = environment.lines().any(|each| each == line);
            report.check(&format!("{call} is told {line}"), is_there, &environment);
        }
    }
    Ok(())
}

/// What Pacemaker and pcs show of our agents.
fn ours(root: &Root, report: &mut Report) -> Result<()> {
    let (status, shown) = (root.get("status.xml")?, root.get("status.txt")?);
    for (operation, code, reason) in OURS {
        let failure =
            status.lines().find(|line| line.contains(&format!("<failure op_key=\"{operation}\"")));
        let failure = failure.unwrap_or_default();
        let is_so = failure.contains(&format!("exitcode=\"{code}\"")) && failure.contains(reason);
        report.check(&format!("{operation} ends with {code}: {reason}"), is_so, failure);
        report.check(&format!("pcs status shows {reason:?}"), shown.contains(reason), &shown);
    }
    // It reads the metadata of each agent that it starts.
    let log = root.get("pacemaker.log")?;
    let strange: Vec<&str> = log.lines().filter(|line| line.contains("assertion")).collect();
    report.check(
        "Pacemaker finds nothing strange in what it reads",
        log.contains("pool") && strange.is_empty(),
        &strange.join("\n"),
    );
    Ok(())
}

/// The calls of a resource, where one that is repeated is one.
fn calls_of(all: &str, id: &str) -> String {
    let mut calls: Vec<&str> =
        all.lines().filter_map(|line| line.strip_prefix(id)?.strip_prefix(' ')).collect();
    calls.dedup();
    calls.join(" ")
}

fn id(case: &Case, code: u32) -> String {
    format!("{}-{code}", case.action)
}

fn resources() -> String {
    let mut xml = String::from("<resources>");
    for case in &CASES {
        for code in case.codes {
            let mut parameters = vec![(case.action, code.to_string())];
            if case.action == "stop" {
                parameters.push(("monitor", "1".to_string()));
            }
            let role = if case.action == "probe" { "Stopped" } else { "Started" };
            xml += &primitive(&id(case, *code), "ocf:others:says", &parameters, role);
        }
    }
    xml += &primitive("steady", "ocf:others:says", &[("word", "one".to_string())], "Started");
    for (id, made) in RESOURCES {
        let mut words = made.split_whitespace();
        let agent = words.next().unwrap_or_default();
        let parameters: Vec<(&str, String)> = words
            .filter_map(|word| word.split_once('='))
            .map(|(name, value)| (name, value.to_string()))
            .collect();
        xml += &primitive(id, agent, &parameters, "Started");
    }
    xml + "</resources>"
}

fn primitive(id: &str, agent: &str, parameters: &[(&str, String)], role: &str) -> String {
    let [class, provider, kind] = agent.splitn(3, ':').collect::<Vec<_>>()[..] else {
        return String::new();
    };
    let mut pairs = String::new();
    for (name, value) in parameters {
        let _ = write!(pairs, "<nvpair id='{id}-{name}' name='{name}' value='{value}'/>");
    }
    // What does not end is given less time.
    let timeout = if id.ends_with(&SLEEP.to_string()) { 2 } else { 20 };
    let deep = if id == "steady" { DEEP } else { "" };
    format!(
        "<primitive id='{id}' class='{class}' provider='{provider}' type='{kind}'>\
         <instance_attributes id='{id}-p'>{pairs}</instance_attributes>\
         <meta_attributes id='{id}-m'><nvpair id='{id}-role' name='target-role' value='{role}'/>\
         <nvpair id='{id}-threshold' name='migration-threshold' value='2'/></meta_attributes><operations>\
         <op id='{id}-1' name='monitor' interval='1s' timeout='{timeout}s'/>{deep}</operations></primitive>"
    )
}
