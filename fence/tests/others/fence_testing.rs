//! The scenarios of ClusterLabs' fence-agents, run by their own program (`tests/fence_testing.py`), which gives the options
//! in each of the three ways.

use crate::kasa::{Kasa, all_on};
use crate::report::Report;
use crate::server::{command, installed, scratch};
use serde_json::json;
use std::path::Path;

/// Told to be silent, it puts every agent into the background of a shell that is not bash.
const RUN: &str = "import sys; sys.path.insert(0, sys.argv[1]); import fence_testing; \
                   fence_testing.test_action(*sys.argv[2:5], verbose=True)";
const WAYS: [&str; 3] = ["stdin", "longopt", "getopt"];

#[test]
fn scenarios() {
    let mut report = Report::new("fence_testing.py of fence-agents");
    let made = [json!({"model": "hs110"}), json!({"model": "hs300", "data": all_on()})];
    let mut plugs = Kasa::start("kasa-scenarios", &json!(made));
    for (at, model, outlet) in [(0, "hs110", "1"), (1, "hs300", "storage-a")] {
        let device = describe(model, plugs.0.ports[at], outlet, "60");
        for way in WAYS {
            for scenario in ["power-on-off", "status", "list"] {
                let name = format!("{scenario} of {model} by {way}");
                report.equal(&name, has_passed(&device, scenario, way), true);
                report.equal(&format!("{name}, relay after it"), plugs.relays()[at][0], 0);
            }
        }
    }
    report.equal("the other sockets", plugs.relays()[1][1..].to_vec(), vec![1; 5]);
    // Otherwise anything would pass.
    let nobody = describe("nobody", 9, "1", "0.1");
    for way in WAYS {
        for scenario in ["power-on-off", "status"] {
            let name = format!("{scenario} of nobody by {way} is a failure");
            report.equal(&name, has_passed(&nobody, scenario, way), false);
        }
    }
    report.close();
}

/// Writes the description of a device: each option with its value, its long name, and its short one if it has one.
/// Returns its path.
fn describe(name: &str, port: u16, outlet: &str, seconds: &str) -> String {
    let program = env!("CARGO_BIN_EXE_fence_smartplug");
    let text = format!(
        "name = {name:?}\nagent = {program:?}\n[options]\n\
         type = [\"kasa\", \"--type\"]\nip = [\"127.0.0.1\", \"--ip\", \"-a\"]\n\
         ipport = [\"{port}\", \"--ipport\", \"-u\"]\nplug = [\"{outlet}\", \"--plug\", \"-n\"]\n\
         hold = [\"0.05\", \"--hold\"]\nstonith_status_sleep = [\"0.05\", \"--stonith-status-sleep\"]\n\
         power_timeout = [\"{seconds}\", \"--power-timeout\"]\n"
    );
    let path = scratch().join(format!("{name}.cfg"));
    #[expect(clippy::disallowed_methods, reason = "a file of a test")]
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn has_passed(device: &str, scenario: &str, way: &str) -> bool {
    let tests = installed("fence-agents/tests");
    let scenario = tests.join(format!("actions.d/{scenario}.cfg"));
    let output = command(&installed("python/bin/python"))
        .args(["-I", "-c", RUN])
        .args([&tests, Path::new(device), &scenario, Path::new(way)])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let (passed, failed) = (said.contains("TEST PASSED: "), said.contains("TEST FAILED: "));
    assert!(passed != failed, "no verdict: {output:?}");
    passed
}
