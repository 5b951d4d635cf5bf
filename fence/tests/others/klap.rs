//! TP-Link plugs by KLAP: the cryptography and the fake devices of python-kasa, with what it has
//! recorded of real ones.

use crate::plugs::Plugs;
use crate::report::{AMPLE, Report};
use crate::server::{command, file, installed};
use serde_json::{Value, json};

const ACCOUNT: &str = "username=me@example.org\npassword=hush-ö\n";
/// For what ends only when the time is over.
const SHORT: &str = "power_timeout=2\n";

/// Plugs and sockets that are asked: a recording, the versions of the handshake, an outlet, its
/// position and how many there are.
const PLUGS: [(&str, &[u8], &str, usize, usize); 20] = [
    ("smart/P100(US)_1.0.0_1.1.3", &[2], "", 1, 1),
    ("smart/P100(US)_1.0.0_1.4.0", &[1, 2], "1", 1, 1),
    ("smart/P105(US)_1.0_1.2.5", &[2], "", 1, 1),
    ("smart/P110(EU)_1.0_1.0.7", &[2], "", 1, 1),
    ("smart/P110(EU)_1.0_1.2.3", &[2], "", 1, 1),
    ("smart/P110M(EU)_1.0_1.2.3", &[2], "", 1, 1),
    ("smart/P115(US)_1.0_1.1.3", &[2], "", 1, 1),
    ("smart/KP125M(US)_1.0_1.2.3", &[2], "", 1, 1),
    ("smart/EP25(US)_2.6_1.0.2", &[2], "", 1, 1),
    ("smart/EP40M(US)_1.0_1.1.0", &[2], "1", 1, 2),
    ("smart/EP40M(US)_1.0_1.1.0", &[2], "2", 2, 2),
    ("smart/P300(EU)_1.0_1.0.15", &[2], "1", 1, 3),
    ("smart/P300(EU)_1.0_1.0.15", &[2], "SCRUBBED_CHILD_DEVICE_ID_1", 3, 3),
    ("smart/P304M(UK)_1.0_1.0.3", &[2], "4", 4, 4),
    ("smart/P316M(US)_1.6_1.0.5", &[2], "Smart Plug 1", 1, 6),
    ("iot/EP10(US)_1.0_1.0.2", &[1, 2], "", 1, 1),
    ("iot/KP115(US)_1.0_1.0.21", &[1, 2], "1", 1, 1),
    ("iot/HS103(US)_2.1_1.1.4", &[2], "", 1, 1),
    ("iot/EP40(US)_1.0_1.0.2", &[1], "2", 2, 2),
    ("iot/HS300(US)_2.0_1.0.12", &[1, 2], "2", 2, 6),
];

/// Plugs of python-kasa.
fn start(name: &str, made: &[Value]) -> Plugs {
    let mut command = command(&installed("python/bin/python"));
    command.arg(file("klap_device.py")).args(made.iter().map(Value::to_string));
    command.env("PYTHONPATH", installed("python-kasa"));
    Plugs::start(name, &mut command)
}

fn made(recording: &str) -> Value {
    json!({"fixture": format!("{recording}.json")})
}

fn family(recording: &str) -> &str {
    if recording.starts_with("iot/") { "klap" } else { "tapo" }
}

#[test]
fn klap_plugs() {
    let mut report = Report::new("python-kasa");
    good_plugs(&mut report);
    other_outlets(&mut report);
    other_accounts(&mut report);
    short_sessions(&mut report);
    evidence_against_an_off(&mut report);
    unsafe_settings(&mut report);
    report.close();
}

/// What is asked of a plug that is on, in order: how the program ends, and the relay then.
const DAY: [(&str, i32, &str, bool); 8] = [
    ("monitor", 0, "", true),
    ("status", 0, "Status: ON", true),
    ("off", 0, "Success: Powered OFF", false),
    ("status", 2, "Status: OFF", false),
    ("monitor", 0, "", false),
    ("off", 0, "Success: Powered OFF", false),
    ("on", 0, "Success: Powered ON", true),
    ("reboot", 0, "Success: Rebooted", true),
];

fn good_plugs(report: &mut Report) {
    let all: Vec<_> = PLUGS
        .into_iter()
        .flat_map(|plug| plug.1.iter().map(move |version| (plug, *version)))
        .collect();
    let versions = all.iter().map(|((recording, ..), version)| {
        let mut plug = made(recording);
        plug["version"] = json!(version);
        plug
    });
    let mut plugs = start("klap-good", &versions.collect::<Vec<_>>());
    for (at, ((recording, _, outlet, position, count), version)) in all.into_iter().enumerate() {
        for (action, code, text, is_on) in DAY {
            let name = format!("{recording} {outlet:?} version {version} {action}");
            let options = format!("{AMPLE}{ACCOUNT}plug={outlet}");
            report.run(&name, &plugs.lines(at, family(recording), action, &options), code, text);
            // The others stay as they are.
            let relays: Vec<bool> = (1..=count).map(|each| each != position || is_on).collect();
            report.equal(
                &format!("{name}, relays"),
                plugs.truth()[at]["relays"].clone(),
                json!(relays),
            );
        }
    }
}

fn other_outlets(report: &mut Report) {
    let all = [
        ("smart/P300(EU)_1.0_1.0.15", "4", "it has no outlet \"4\" among its 3"),
        ("smart/P300(EU)_1.0_1.0.15", "", "no plug is given"),
        // All have the same name in the recording.
        ("smart/P300(EU)_1.0_1.0.15", "#MASKED_NAME#", "it has two outlets that may be"),
        ("smart/P110(EU)_1.0_1.2.3", "2", "it is not named \"2\""),
        ("smart/L530E(EU)_3.0_1.1.6", "", "it is no plug but a \"SMART.TAPOBULB\""),
        ("iot/HS300(US)_2.0_1.0.12", "7", "it has no outlet \"7\" among its 6"),
        ("iot/HS300(US)_2.0_1.0.12", "", "no plug is given"),
        ("iot/EP10(US)_1.0_1.0.2", "2", "none named \"2\""),
    ];
    let mut plugs = start("klap-outlets", &all.map(|(recording, ..)| made(recording)));
    for (at, (recording, outlet, text)) in all.into_iter().enumerate() {
        let before = plugs.truth()[at]["relays"].clone();
        for action in ["off", "reboot", "on", "status"] {
            let name = format!("{recording} {outlet:?} {action}");
            let options = format!("{AMPLE}{ACCOUNT}plug={outlet}");
            report.run(&name, &plugs.lines(at, family(recording), action, &options), 1, text);
            report.equal(
                &format!("{name}, relays"),
                plugs.truth()[at]["relays"].clone(),
                before.clone(),
            );
        }
    }
}

/// Nothing that is made of a wrong password is sent.
fn other_accounts(report: &mut Report) {
    let all = ["smart/P110(EU)_1.0_1.2.3", "iot/KP115(US)_1.0_1.0.21"];
    let mut plugs = start("klap-accounts", &all.map(made));
    for (at, recording) in all.into_iter().enumerate() {
        for action in ["off", "reboot", "on", "status", "monitor"] {
            for account in [
                "username=me@example.org\npassword=hush-o\n",
                "username=Me@example.org\npassword=hush-ö\n",
            ] {
                let name = format!("{recording} of another account {action}");
                let lines =
                    plugs.lines(at, family(recording), action, &format!("{AMPLE}{account}"));
                report.run(&name, &lines, 1, "the user or password is rejected");
            }
        }
        let truth = plugs.truth()[at].clone();
        report.equal(&format!("{recording}, logins"), truth["logins"].clone(), json!(0));
        report.equal(&format!("{recording}, relay"), truth["relays"].clone(), json!([true]));
    }
}

/// Each request but the first finds its session forgotten.
fn short_sessions(report: &mut Report) {
    let all = [("smart/P300(EU)_1.0_1.0.15", "3"), ("iot/HS300(US)_2.0_1.0.12", "3")];
    let short = all.map(|(recording, _)| {
        let mut plug = made(recording);
        plug["lasts"] = json!(1);
        plug
    });
    let mut plugs = start("klap-sessions", &short);
    for (at, (recording, outlet)) in all.into_iter().enumerate() {
        for (action, code, text, is_on) in DAY {
            let name = format!("{recording} that forgets {action}");
            let options = format!("{AMPLE}{ACCOUNT}plug={outlet}");
            report.run(&name, &plugs.lines(at, family(recording), action, &options), code, text);
            let relay = plugs.truth()[at]["relays"][2].clone();
            report.equal(&format!("{name}, relay"), relay, json!(is_on));
        }
    }
}

fn evidence_against_an_off(report: &mut Report) {
    let rule = json!({"enable": true, "remain": 599, "desired_states": {"on": true}});
    let timer = json!({"get_countdown_rules": {"enable": true, "rule_list": [rule]}});
    let child = |change: Value| json!({"child_devices": {"SCRUBBED_CHILD_DEVICE_ID_1": change}});
    let rule = json!({"enable": 1, "act": 1, "remain": 599});
    let kasa_timer = json!({"count_down": {"get_rules": {"rule_list": [rule]}}});
    let load = json!({"get_energy_usage": {"current_power": 85_000}});
    let kasa_load = json!({"emeter": {"get_realtime": {"power_mw": 85_000}}});
    let timer_text = "a timer switches it on in 599 s";
    let all = [
        // As it was recorded: it drew 20.5 W.
        ("smart/P116M(IN)_1.0_1.4.4", json!({}), "", "measures 20.5 W"),
        ("smart/P110(EU)_1.0_1.2.3", load.clone(), "", "measures 85 W"),
        ("smart/P304M(UK)_1.0_1.0.3", child(load), "1", "measures 85 W"),
        ("iot/KP115(US)_1.0_1.0.21", kasa_load, "", "measures 85 W"),
        ("smart/P110(EU)_1.0_1.2.3", timer.clone(), "", timer_text),
        ("smart/P304M(UK)_1.0_1.0.3", child(timer), "1", timer_text),
        ("iot/EP10(US)_1.0_1.0.2", kasa_timer, "", timer_text),
    ];
    let changed = all.each_ref().map(|(recording, changes, ..)| {
        let mut plug = made(recording);
        plug["changes"] = changes.clone();
        plug
    });
    let mut plugs = start("klap-evidence", &changed);
    for (at, (recording, _, outlet, text)) in all.into_iter().enumerate() {
        for action in ["off", "reboot"] {
            let name = format!("{recording} {text:?} {action}");
            let options = format!("{SHORT}{ACCOUNT}plug={outlet}");
            report.run(&name, &plugs.lines(at, family(recording), action, &options), 1, text);
            // And nothing has sent an on.
            let relay = plugs.truth()[at]["relays"][0].clone();
            report.equal(&format!("{name}, relay"), relay, json!(false));
        }
    }
}

fn unsafe_settings(report: &mut Report) {
    let all = [
        ("smart/EP40M(US)_1.0_1.1.0", "1", "the schedule \"S1\" switches on by the clock"),
        ("smart/P110(UK)_1.0_1.3.0", "", "the schedule \"S1\" switches on by the clock"),
        ("smart/P300(EU)_1.0_1.0.15", "1", "default_states switches on"),
        ("smart/P115(US)_1.0_1.1.3", "", "the firmware updates itself"),
        ("smart/P100(US)_1.0.0_1.4.0", "", "it reaches TP-Link's cloud"),
    ];
    let plugs = start("klap-settings", &all.map(|(recording, ..)| made(recording)));
    for (at, (recording, outlet, text)) in all.into_iter().enumerate() {
        let options = format!("{AMPLE}{ACCOUNT}unsafe_settings=fail\nplug={outlet}");
        let lines = plugs.lines(at, family(recording), "monitor", &options);
        report.run(&format!("{recording} monitor {text:?}"), &lines, 1, text);
    }
}
