//! The program against devices of every family that misbehave in every way: it never says that a
//! node is off when it may be on, it always ends, and it says why in one line without a secret.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "this is a test")]

mod device;
mod families;
mod klap;
#[path = "../program/mod.rs"]
mod program;

use device::{Carrier, Device, Fault};
use families::{ALL, Family};
use program::Run;
use std::io::Write;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

/// A program that has not ended by then never will.
const PATIENCE: Duration = Duration::from_secs(60);
/// Times for what ends by itself.
const AMPLE: &str = "power_timeout=30\nshell_timeout=20\nlogin_timeout=20\n";
/// Times for what ends only when the time is over.
const SHORT: &str = "power_timeout=0.5\nshell_timeout=0.3\nlogin_timeout=0.3\n";
/// Thirty times that, for what was cut off by the end of the time.
const LONG: &str = "power_timeout=15\nshell_timeout=9\nlogin_timeout=9\n";
/// Times for what is known only after several requests.
const FAIR: &str = "power_timeout=3\nshell_timeout=3\nlogin_timeout=3\n";
/// Runs that are under way at one time. They wait more than they work.
const RUNS: usize = 24;

fn run(family: &Family, device: &Device, action: &str, times: &str) -> Run {
    let (name, port, options) = (family.name, device.address.port(), family.options);
    let input = format!(
        "action={action}\ntype={name}\nip=127.0.0.1\nipport={port}\n{options}\n{times}\
         hold=0.05\nstonith_status_sleep=0.2\nnodename=storage-a\n"
    );
    program::run(&[], &input, PATIENCE)
}

/// A device that is bad, and what is asked of it.
struct Case {
    family: &'static Family<'static>,
    name: String,
    fault: Fault,
    action: &'static str,
    times: &'static str,
}

/// Faults of the way, which every family meets, and whether they end by themselves.
fn of_the_way(carrier: Carrier) -> Vec<(String, Fault, &'static str)> {
    let mut faults: Vec<(String, Fault, &'static str)> = [
        ("connection refused", Fault::Refuses),
        ("silence", Fault::Silent),
        ("slow drip", Fault::Drips),
        ("cut in the middle", Fault::CutsOff),
        ("closed without an answer", Fault::Closes),
        ("no text", Fault::NotText),
        ("megabytes", Fault::Huge),
        ("empty body", Fault::Body("")),
        ("a blank body", Fault::Body("  \r\n")),
        ("HTML", Fault::Body("<html><body>OFF false off</body></html>")),
        ("JSON cut off", Fault::Body(r#"{"POWER2":"OFF""#)),
        ("an error in the body", Fault::Body(r#"{"error":"internal","code":500}"#)),
        ("a JSON text", Fault::Body(r#""off""#)),
        ("a JSON boolean", Fault::Body("false")),
        ("JSON null", Fault::Body("null")),
    ]
    .map(|(name, fault)| (name.to_string(), fault, SHORT))
    .to_vec();
    if carrier == Carrier::Kasa {
        return faults;
    }
    for status in [302, 400, 401, 403, 404, 405, 429, 500, 502, 503] {
        let times = if status >= 429 { SHORT } else { AMPLE };
        faults.push((format!("HTTP {status}"), Fault::Status(status), times));
    }
    faults
}

/// Everything that can be wrong with a family's device.
fn cases(family: &'static Family<'static>) -> Vec<Case> {
    let case = |name: &str, fault, action, times| Case {
        family,
        name: name.to_string(),
        fault,
        action,
        times,
    };
    let mut cases = Vec::new();
    for action in ["off", "monitor", "status"] {
        for (name, fault, times) in of_the_way(family.carrier) {
            cases.push(case(&name, fault, action, times));
        }
    }
    for action in ["off", "reboot", "monitor", "status", "on"] {
        // The relay is stuck, so an "on" cannot be told either.
        for (name, body) in family.strange {
            cases.push(case(name, Fault::State(body), action, SHORT));
        }
    }
    if matches!(family.carrier, Carrier::Klap(_)) {
        for action in ["off", "reboot", "monitor", "status", "on"] {
            for (name, wrong) in klap::ALL {
                cases.push(case(name, Fault::Klap(*wrong), action, FAIR));
            }
        }
        for action in ["off", "reboot", "on"] {
            cases.push(case(
                "403 to every command",
                Fault::Klap(klap::Wrong::ReadOnly),
                action,
                FAIR,
            ));
        }
    }
    for action in ["off", "reboot"] {
        cases.push(case("off that stays on", Fault::StaysOn, action, SHORT));
        cases.push(case("off that comes back on", Fault::ComesBack, action, AMPLE));
        if family.has_timer {
            cases.push(case("a pending timer", Fault::Timer, action, AMPLE));
        }
        if family.has_meter {
            cases.push(case("watts although off", Fault::Load, action, SHORT));
        }
    }
    cases
}

/// What the reason has to speak of where a device was read; otherwise none.
fn found(fault: Fault) -> Option<&'static str> {
    match fault {
        // Any of many words, and of what was read.
        Fault::State(_) => Some(""),
        Fault::StaysOn => Some("it took the command and is still on"),
        Fault::Load => Some("says that it is off and measures 85"),
        _ => None,
    }
}

/// Whether the reason is that the time ran out, which says nothing of a device.
fn is_of_time(reason: &str) -> bool {
    reason.contains(" in time") || reason.contains("no time is left")
}

/// Runs a case; returns what the program told, or what is wrong with it.
fn check(case: &Case) -> Result<String, String> {
    let told = check_with(case, case.times)?;
    let Some(words) = found(case.fault) else { return Ok(told) };
    // A machine that stood still meanwhile has used up a short time; who never gets as far as to read says it again.
    let told = if is_of_time(&told) { check_with(case, LONG)? } else { told };
    if is_of_time(&told) || !told.contains(words) {
        let (family, action, name) = (case.family.name, case.action, &case.name);
        return Err(format!(
            "{family} {action} {name:?}: it does not speak of what was read {words:?}: {told}"
        ));
    }
    Ok(told)
}

/// Runs a case with these times.
fn check_with(case: &Case, times: &str) -> Result<String, String> {
    let family = case.family;
    let device = Device::start(family.carrier, family.answer, case.fault);
    let run = run(family, &device, case.action, times);
    let relay = device.relay.lock().unwrap();
    let fail = |what: &str| {
        Err(format!(
            "{} {} {:?}: {what}: exit {:?}\n{}{}",
            family.name, case.action, case.name, run.code, run.stdout, run.stderr
        ))
    };
    if run.code != Some(1) {
        return fail(if run.code.is_none() { "it did not end" } else { "it did not fail" });
    }
    if run.stdout.contains("Success") || run.stdout.contains("Status") {
        return fail("it tells a success");
    }
    if run.stderr.lines().count() != 1 || !run.stderr.contains("ERROR") || run.stderr.len() < 40 {
        return fail("it does not say why in one line");
    }
    if run.stderr.contains("hush") || run.stderr.contains("panicked") {
        return fail("it says too much");
    }
    if case.action != "on" && relay.commands.contains(&"on") {
        return fail("it sent an on after an off that failed");
    }
    if relay.commands.contains(&"all") {
        return fail("it switched other outlets too");
    }
    if case.fault == Fault::Status(401) && relay.credentials > 1 {
        return fail("it showed a rejected password twice");
    }
    Ok(run.stderr)
}

/// Does all of these, several at a time.
fn for_all<T: Sync>(all: &[T], work: impl Fn(&T) + Sync) {
    let next = Mutex::new(all.iter());
    thread::scope(|scope| {
        for _ in 0..RUNS {
            scope.spawn(|| {
                loop {
                    let Some(one) = next.lock().unwrap().next() else { return };
                    work(one);
                }
            });
        }
    });
}

#[test]
fn a_bad_device_is_never_off() {
    let cases: Vec<Case> = ALL.iter().flat_map(cases).collect();
    let wrong = Mutex::new(Vec::new());
    let told = Mutex::new(Vec::new());
    for_all(&cases, |case| match check(case) {
        Ok(text) => told
            .lock()
            .unwrap()
            .push(format!("{} {} {:?}: {text}", case.family.name, case.action, case.name)),
        Err(text) => wrong.lock().unwrap().push(text),
    });
    let (wrong, mut told) = (wrong.into_inner().unwrap(), told.into_inner().unwrap());
    told.sort();
    print!("{}", told.concat());
    // Not by `println!`, which the test harness swallows.
    let (all, bad) = (cases.len(), wrong.len());
    let _ =
        writeln!(std::io::stderr(), "{all} bad devices, {bad} of them taken for what they are not");
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn every_family_is_among_them() {
    let text = program::run(&["-o", "metadata"], "", PATIENCE).stdout;
    let (_, types) = text.split_once("<content type=\"select\">").unwrap();
    let (types, _) = types.split_once("</content>").unwrap();
    for name in types.split('"').skip(1).step_by(2) {
        assert!(ALL.iter().any(|family| family.name == name), "{name}");
    }
}

/// Without it the other test would prove nothing: a program that always fails would pass.
#[test]
fn a_good_device_is_switched_and_read() {
    for_all(ALL, |family| {
        let device = Device::start(family.carrier, family.answer, Fault::None);
        for (action, code, text, is_on) in [
            ("monitor", 0, "", true),
            ("status", 0, "Status: ON\n", true),
            ("off", 0, "Success: Powered OFF\n", false),
            ("status", 2, "Status: OFF\n", false),
            ("monitor", 0, "", false),
            ("off", 0, "Success: Powered OFF\n", false),
            ("reboot", 0, "Success: Rebooted\n", true),
            ("on", 0, "Success: Powered ON\n", true),
        ] {
            let run = run(family, &device, action, AMPLE);
            let seen = (run.code, run.stdout.as_str(), run.stderr.as_str());
            assert_eq!(seen, (Some(code), text, ""), "{} {action}", family.name);
            assert_eq!(device.relay.lock().unwrap().is_on, is_on, "{} {action}", family.name);
        }
        let commands = device.relay.lock().unwrap().commands.clone();
        assert_eq!(commands, ["off", "off", "off", "on", "on"], "{}", family.name);
    });
}

/// What an off costs beside the hold time: the command and two reads are three round trips. Some devices need more to
/// prove as much: Kasa first tells which socket is meant, Home Assistant has to look at its device, a sensor is asked
/// for itself, and a login is a question and an answer.
#[test]
fn an_off_costs_few_round_trips() {
    let costs = Mutex::new(Vec::new());
    for_all(ALL, |family| {
        let device = Device::start(family.carrier, family.answer, Fault::None);
        let run = run(family, &device, "off", AMPLE);
        assert_eq!(run.code, Some(0), "{}: {}", family.name, run.stderr);
        costs.lock().unwrap().push((family.name, device.relay.lock().unwrap().requests));
    });
    let mut costs = costs.into_inner().unwrap();
    costs.sort_unstable();
    let want = [
        ("esphome", 4),
        ("fritz", 6),
        ("homeassistant", 5),
        ("http", 3),
        ("kasa", 5),
        ("klap", 7),
        ("mystrom", 3),
        ("netio", 3),
        ("shelly1", 3),
        ("shelly2", 6),
        ("tapo", 10),
        ("tapo", 12),
        ("tasmota", 3),
    ];
    assert_eq!(costs, want);
}

#[test]
fn one_lost_request_does_not_cost_the_fence() {
    let mut cases = Vec::new();
    for family in ALL {
        cases.push((family, Fault::SilentOnce, "power_timeout=30\nshell_timeout=2\n"));
        if family.carrier != Carrier::Kasa {
            cases.push((family, Fault::BusyOnce, AMPLE));
        }
    }
    for_all(&cases, |(family, fault, times)| {
        let device = Device::start(family.carrier, family.answer, *fault);
        let run = run(family, &device, "off", times);
        assert_eq!(run.code, Some(0), "{} {fault:?}: {}", family.name, run.stderr);
        assert!(!device.relay.lock().unwrap().is_on, "{} {fault:?}", family.name);
    });
}

#[test]
fn a_wrong_password_is_shown_once_and_switches_nothing() {
    let mut cases = Vec::new();
    for family in ALL.iter().filter(|family| family.carrier != Carrier::Kasa) {
        cases.extend(["off", "reboot", "on", "status", "monitor"].map(|action| (family, action)));
    }
    for_all(&cases, |(family, action)| {
        let device = Device::start(family.carrier, family.answer, Fault::None);
        let run = run(family, &device, action, &format!("{AMPLE}password=wrong\n"));
        let relay = device.relay.lock().unwrap();
        assert_eq!(run.code, Some(1), "{} {action}: {}", family.name, run.stderr);
        assert!(
            run.stderr.contains("password is rejected"),
            "{} {action}: {}",
            family.name,
            run.stderr
        );
        assert_eq!(run.stderr.lines().count(), 1, "{} {action}: {}", family.name, run.stderr);
        // The login of a FRITZ!Box has no header.
        assert!(relay.credentials <= 1, "{} {action}: {}", family.name, relay.credentials);
        assert!(relay.is_on && relay.commands.is_empty(), "{} {action}", family.name);
    });
}

/// A device forgets its sessions, as after a restart.
#[test]
fn a_session_that_has_ended_is_begun_anew_once() {
    for_all(ALL, |family| {
        if !matches!(family.carrier, Carrier::Klap(_)) {
            return;
        }
        let forgets = Fault::Klap(klap::Wrong::ForgetsOnce);
        let device = Device::start(family.carrier, family.answer, forgets);
        let run = run(family, &device, "off", AMPLE);
        assert_eq!(run.code, Some(0), "{}: {}", family.name, run.stderr);
        let relay = device.relay.lock().unwrap();
        assert_eq!((relay.is_on, relay.klap.handshakes), (false, 2), "{}", family.name);
        drop(relay);
        for (wrong, handshakes) in [(klap::Wrong::Status(403), 1), (klap::Wrong::ReadOnly, 2)] {
            let device = Device::start(family.carrier, family.answer, Fault::Klap(wrong));
            let run = self::run(family, &device, "off", AMPLE);
            assert_eq!(run.code, Some(1), "{} {wrong:?}", family.name);
            assert!(run.stderr.contains("TP-Link's cloud"), "{}", run.stderr);
            let seen = device.relay.lock().unwrap().klap.handshakes;
            assert_eq!(seen, handshakes, "{} {wrong:?}: {}", family.name, run.stderr);
        }
    });
}

/// With `pcmk_host_map` a monitor is told no outlet.
#[test]
fn a_monitor_without_an_outlet_proves_the_device() {
    for_all(ALL, |family| {
        let options: Vec<&str> =
            family.options.lines().filter(|line| !line.starts_with("plug=")).collect();
        let family = Family { options: &options.join("\n"), ..*family };
        let device = Device::start(family.carrier, family.answer, Fault::None);
        let good = run(&family, &device, "monitor", AMPLE);
        // Of ESPHome's server nothing but its entities can be asked.
        let want = if family.name == "esphome" { Some(1) } else { Some(0) };
        assert_eq!(good.code, want, "{}: {}", family.name, good.stderr);
        for fault in [Fault::Refuses, Fault::Silent, Fault::Body("{}"), Fault::Status(401)] {
            let device = Device::start(family.carrier, family.answer, fault);
            let bad = run(&family, &device, "monitor", SHORT);
            let is_kasa = family.carrier == Carrier::Kasa && matches!(fault, Fault::Status(_));
            assert!(is_kasa || bad.code == Some(1), "{} {fault:?}: {}", family.name, bad.stderr);
        }
    });
}

#[test]
fn a_monitor_says_what_else_is_at_the_address() {
    let named = |name: &str| ALL.iter().find(|family| family.name == name).unwrap();
    for (asked, found) in [("tasmota", "shelly1"), ("shelly2", "shelly1"), ("shelly1", "shelly2")] {
        let (asked, found) = (named(asked), named(found));
        let device = Device::start(Carrier::Http, found.answer, Fault::None);
        let run = run(asked, &device, "monitor", AMPLE);
        let want = format!("looks like type={}, not type={}", found.name, asked.name);
        assert_eq!(run.code, Some(1));
        assert!(run.stderr.contains(&want), "{}", run.stderr);
    }
    let device = Device::start(named("tapo").carrier, named("tapo").answer, Fault::None);
    let run = run(named("shelly2"), &device, "monitor", AMPLE);
    assert!(
        run.stderr.contains("looks like type=klap or tapo, not type=shelly2"),
        "{}",
        run.stderr
    );
}
