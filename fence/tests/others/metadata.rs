//! The schema of metadata in ClusterLabs' fence-agents.

use crate::program;
use crate::report::Report;
use crate::server::{PATIENCE, command, installed};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

const SCHEMA: &str = "fence-agents/usr/share/cluster/relaxng/metadata.rng";

#[test]
fn metadata() {
    let mut report = Report::new("the schema of fence-agents");
    for action in ["metadata", "manpage"] {
        let text = described(action);
        report.equal(action, is_valid(&text), true);
        // Otherwise all would be valid.
        for (spoilt, from, to) in [
            ("without a vendor", "vendor-url>", "vendor>"),
            ("with a strange type", "type=\"select\"", "type=\"choice\""),
            ("without a description", "longdesc>", "long>"),
            ("cut off", "</resource-agent>", ""),
        ] {
            assert!(text.contains(from), "{from}");
            let name = format!("{action} {spoilt} is refused");
            report.equal(&name, is_valid(&text.replace(from, to)), false);
        }
    }
    report.close();
}

fn described(action: &str) -> String {
    let run = program::run(&["-o", action], "", PATIENCE);
    assert_eq!(run.code, Some(0), "{action}: {}", run.stderr);
    run.stdout
}

/// Exit 1 and 3 of xmllint are a document that is not well-formed and one that is not valid; any
/// other is no verdict.
fn is_valid(text: &str) -> bool {
    let mut child = command(Path::new("xmllint"))
        .args(["--noout", "--nonet", "--relaxng"])
        .arg(installed(SCHEMA))
        .arg("-")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    match output.status.code() {
        Some(0) => true,
        Some(1 | 3) => false,
        _ => panic!("xmllint gives no verdict: {output:?}"),
    }
}
