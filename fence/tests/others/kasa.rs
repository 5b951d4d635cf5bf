//! Kasa plugs of tplink-smarthome-simulator.

use crate::plugs::Plugs;
use crate::report::{AMPLE, Report};
use crate::server::{command, file, installed};
use serde_json::{Value, json};
use std::path::Path;

/// For what ends only when the time is over.
const SHORT: &str = "power_timeout=0.6\nshell_timeout=0.3\nlogin_timeout=0.3\n";

/// Some plugs of the simulator.
pub(crate) struct Kasa(pub(crate) Plugs);

impl Kasa {
    pub(crate) fn start(name: &str, made: &Value) -> Kasa {
        let mut command = command(Path::new("node"));
        command.arg(file("kasa_plugs.js")).arg(made.to_string());
        command.env("NODE_PATH", installed("node_modules"));
        Kasa(Plugs::start(name, &mut command))
    }

    /// The relays of each.
    pub(crate) fn relays(&mut self) -> Vec<Vec<u8>> {
        serde_json::from_value(self.0.truth()).unwrap()
    }

    /// Options for one of them.
    fn lines(&self, plug: usize, action: &str, options: &str) -> String {
        self.0.lines(plug, "kasa", action, options)
    }
}

/// Data of a plug that is on.
fn is_on() -> Value {
    json!({"system": {"sysinfo": {"relay_state": 1}}})
}

/// Data of a strip whose sockets are on; the first has a node's name.
pub(crate) fn all_on() -> Value {
    let socket = |name: &str| json!({"sysinfo": {"state": 1, "alias": name}});
    let children = json!({"00": socket("storage-a"), "01": socket("two"), "02": socket("three"),
        "03": socket("four"), "04": socket("five"), "05": socket("six")});
    json!({"children": children})
}

#[test]
fn kasa_plugs() {
    let mut report = Report::new("tplink-smarthome-simulator");
    single_plugs(&mut report);
    a_strip(&mut report);
    evidence_against_an_off(&mut report);
    slow_plugs(&mut report);
    unreliable_plugs(&mut report);
    report.close();
}

/// What is asked of a plug that is off, in order: how the program ends, and the relay then.
const DAY: [(&str, i32, &str, u8); 11] = [
    ("on", 0, "Success: Powered ON", 1),
    ("monitor", 0, "", 1),
    ("status", 0, "Status: ON", 1),
    ("off", 0, "Success: Powered OFF", 0),
    ("status", 2, "Status: OFF", 0),
    ("monitor", 0, "", 0),
    ("off", 0, "Success: Powered OFF", 0),
    ("on", 0, "Success: Powered ON", 1),
    ("on", 0, "Success: Powered ON", 1),
    ("reboot", 0, "Success: Rebooted", 1),
    ("list", 0, "1,", 1),
];

fn single_plugs(report: &mut Report) {
    let models = ["hs100", "hs110", "hs110v2"];
    let made = models.map(|model| json!({"model": model, "alias": "storage-a"}));
    let mut plugs = Kasa::start("kasa-single", &json!(made));
    for (at, model) in models.iter().enumerate() {
        for (action, code, text, relay) in DAY {
            report.run(&format!("{model} {action}"), &plugs.lines(at, action, AMPLE), code, text);
            report.equal(&format!("{model} {action}, relay"), plugs.relays()[at][0], relay);
        }
        for (action, outlet, code, text) in [
            ("status", "1", 0, "Status: ON"),
            ("status", "storage-a", 0, "Status: ON"),
            ("status", "2", 1, "none named \"2\""),
            ("off", "2", 1, "none named \"2\""),
            ("off", "storage-b", 1, "none named \"storage-b\""),
        ] {
            let name = format!("{model} {action} of {outlet}");
            let lines = plugs.lines(at, action, &format!("{AMPLE}plug={outlet}"));
            report.run(&name, &lines, code, text);
            report.equal(&format!("{name}, relay"), plugs.relays()[at][0], 1);
        }
    }
}

fn a_strip(report: &mut Report) {
    let mut plugs = Kasa::start("kasa-strip", &json!([{"model": "hs300", "data": all_on()}]));
    for (action, outlet, code, text, relays) in [
        ("monitor", "", 0, "", [1, 1, 1, 1, 1, 1]),
        ("status", "2", 0, "Status: ON", [1, 1, 1, 1, 1, 1]),
        ("off", "2", 0, "Success: Powered OFF", [1, 0, 1, 1, 1, 1]),
        ("status", "2", 2, "Status: OFF", [1, 0, 1, 1, 1, 1]),
        ("status", "1", 0, "Status: ON", [1, 0, 1, 1, 1, 1]),
        ("off", "storage-a", 0, "Success: Powered OFF", [0, 0, 1, 1, 1, 1]),
        ("status", "1", 2, "Status: OFF", [0, 0, 1, 1, 1, 1]),
        ("on", "2", 0, "Success: Powered ON", [0, 1, 1, 1, 1, 1]),
        ("reboot", "storage-a", 0, "Success: Rebooted", [1, 1, 1, 1, 1, 1]),
        ("off", "1,4", 0, "Success: Powered OFF", [0, 1, 1, 0, 1, 1]),
        ("list", "1,4", 0, "1,\n4,", [0, 1, 1, 0, 1, 1]),
        ("list-status", "1,2,4", 0, "1,,OFF\n2,,ON\n4,,OFF", [0, 1, 1, 0, 1, 1]),
        ("status", "2,4", 0, "Status: ON", [0, 1, 1, 0, 1, 1]),
        ("reboot", "1,4", 0, "Success: Rebooted", [1, 1, 1, 1, 1, 1]),
        ("off", "", 1, "no plug is given", [1, 1, 1, 1, 1, 1]),
        ("off", "7", 1, "it has no outlet \"7\"", [1, 1, 1, 1, 1, 1]),
        ("off", "0", 1, "it has no outlet \"0\"", [1, 1, 1, 1, 1, 1]),
        ("reboot", "storage-b", 1, "it has no outlet \"storage-b\"", [1, 1, 1, 1, 1, 1]),
        ("monitor", "7", 1, "it has no outlet \"7\"", [1, 1, 1, 1, 1, 1]),
        // What is there goes off, what is not there is no success.
        ("off", "5,7", 1, "it has no outlet \"7\"", [1, 1, 1, 1, 0, 1]),
    ] {
        let name = format!("hs300 {action} of {outlet:?}");
        let lines = plugs.lines(0, action, &format!("{AMPLE}plug={outlet}"));
        report.run(&name, &lines, code, text);
        report.equal(&format!("{name}, relays"), plugs.relays(), vec![relays.to_vec()]);
    }
}

fn evidence_against_an_off(report: &mut Report) {
    let mut load = is_on();
    load["emeter"] = json!({"realtime": {"power": 85}});
    let mut timer = is_on();
    let rule = json!({"enable": 1, "act": 1, "delay": 600, "remain": 599});
    timer["count_down"] = json!({"rules": {"rule_list": [rule]}});
    let (mut strip_load, mut strip_timer) = (all_on(), all_on());
    strip_load["emeter"] = load["emeter"].clone();
    strip_timer["count_down"] = timer["count_down"].clone();
    let mut schedule = is_on();
    let rule = json!({"name": "evening", "enable": 1, "sact": 1});
    schedule["schedule"] = json!({"rules": {"rule_list": [rule]}});
    let mut plugs = Kasa::start(
        "kasa-evidence",
        &json!([
            {"model": "hs110", "data": load},
            {"model": "hs300", "data": strip_load},
            {"model": "hs100", "data": timer},
            {"model": "hs300", "data": strip_timer},
            {"model": "hs100", "data": schedule},
        ]),
    );
    let timer = "a timer switches it on in 599 s";
    for (at, name, text) in [
        (0, "hs110 with a load", "measures 85 W"),
        (1, "hs300 with a load", "measures 85 W"),
        (2, "hs100 with a timer", timer),
        (3, "hs300 with a timer", timer),
    ] {
        for action in ["off", "reboot"] {
            let lines = plugs.lines(at, action, "power_timeout=2\nplug=1");
            report.run(&format!("{name} {action}"), &lines, 1, text);
            // And nothing has sent an on.
            report.equal(&format!("{name} {action}, relay"), plugs.relays()[at][0], 0);
        }
    }
    let fail = format!("{AMPLE}unsafe_settings=fail");
    let lines = plugs.lines(4, "monitor", &fail);
    report.run("hs100 with a schedule monitor", &lines, 1, "\"evening\" switches on");
}

fn slow_plugs(report: &mut Report) {
    let made = |delay: u32| json!({"model": "hs100", "responseDelay": delay});
    let mut plugs = Kasa::start("kasa-slow", &json!([made(300), made(3_600_000)]));
    for (action, code, text, relay) in DAY {
        let name = format!("hs100 that takes its time {action}");
        report.run(&name, &plugs.lines(0, action, AMPLE), code, text);
        report.equal(&format!("{name}, relay"), plugs.relays()[0][0], relay);
    }
    for action in ["off", "reboot", "on", "status", "monitor"] {
        let lines = plugs.lines(1, action, SHORT);
        report.run(&format!("hs100 that answers in an hour {action}"), &lines, 1, "time");
    }
}

fn unreliable_plugs(report: &mut Report) {
    let made = |share: f64| json!({"model": "hs110", "unreliablePercent": share, "data": is_on()});
    let mut plugs = Kasa::start("kasa-unreliable", &json!([made(0.5), made(1.0)]));
    let patient = "power_timeout=120\nshell_timeout=1\nretry_on=100\n";
    let changes = [("off", "Success: Powered OFF", 0), ("on", "Success: Powered ON", 1)];
    for (at, (action, text, relay)) in changes.into_iter().cycle().take(10).enumerate() {
        let name = format!("hs110, every second answer is noise, {action} {at}");
        report.run(&name, &plugs.lines(0, action, patient), 0, text);
        report.equal(&format!("{name}, relay"), plugs.relays()[0][0], relay);
    }
    for at in 0..30 {
        let (action, relay) = if at % 2 == 0 { ("off", 0) } else { ("on", 1) };
        let name = format!("hs110, every second answer is noise, little time, {action} {at}");
        let is_done = report.try_run(&name, &plugs.lines(0, action, SHORT));
        let seen = plugs.relays()[0][0];
        report.equal(&format!("{name}, relay"), is_done && seen != relay, false);
    }
    for action in ["off", "reboot", "on", "status", "monitor"] {
        let lines = plugs.lines(1, action, SHORT);
        report.run(&format!("hs110, every answer is noise, {action}"), &lines, 1, "");
    }
    let gone = plugs.lines(0, "off", SHORT);
    drop(plugs);
    report.run("hs110 that is gone off", &gone, 1, "it takes no connection");
}
