//! The fence contract, asked of the program itself: standard input, command line, exit codes.
#![allow(clippy::unwrap_used, reason = "this is a test")]

mod program;

use program::Run;
use std::time::{Duration, Instant};

/// A program that has not ended by then never will.
const PATIENCE: Duration = Duration::from_secs(300);

fn run(input: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Run { code, stdout, stderr } = program::run(arguments, input, PATIENCE);
    (code, stdout, stderr)
}

/// An address of which nobody answers (RFC 5737).
const PLUG: &str = "type=tasmota\nip=192.0.2.1\n";

#[test]
fn metadata_comes_by_both_ways_and_in_both_spellings() {
    let (code, text, errors) = run("action=metadata\n", &[]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert!(text.starts_with("<?xml version=\"1.0\""), "{text}");
    for arguments in [["-o", "metadata"], ["--action", "meta-data"], ["-o", "METADATA"]] {
        assert_eq!(run("", &arguments).1, text);
    }
    let (code, manual, _) = run("action=manpage\n", &[]);
    assert_eq!(code, Some(0));
    assert!(manual.len() > text.len());
}

/// `stonith_admin --validate` of Pacemaker 2.1 gives a node's name for the plug.
#[test]
fn validation_looks_at_the_options_alone() {
    for (lines, code) in [
        ("plug=1", 0),
        ("", 0),
        ("plug=node1\nnodename=node1", 0),
        ("plug=1\ndisable_timeout=1\nstrange=1", 0),
        ("password_file=/nowhere/at/all", 0),
        ("plug=node1", 1),
        ("plug=0", 1),
        ("plug=1,1", 1),
        ("plug=1\nssl=perhaps", 1),
        ("plug=1\nhold=-1", 1),
    ] {
        let (seen, stdout, stderr) = run(&format!("action=validate-all\n{PLUG}{lines}\n"), &[]);
        assert_eq!((seen, stdout.as_str()), (Some(code), ""), "{lines}: {stderr}");
        assert_eq!(stderr.contains("ERROR"), code == 1, "{lines}: {stderr}");
    }
}

#[test]
fn what_cannot_be_asked_is_refused_in_one_line() {
    for (input, want) in [
        ("action=explode\n", "the action \"explode\" is not supported"),
        ("action=off\n", "the option type is required"),
        ("action=off\ntype=tasmota\n", "the option ip is required"),
        ("", "the option type is required"),
        ("action=off\ntype=tasmota\nip=192.0.2.1\n", "the option plug is required"),
        (
            "action=off\ntype=tasmota\nip=192.0.2.1\nplug=storage-a\nnodename=storage-a\n",
            "pcmk_host_map",
        ),
    ] {
        let (code, stdout, stderr) = run(input, &[]);
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{input}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains(want), "{stderr}");
    }
    assert_eq!(run("", &["--nonsense"]).0, Some(1));
    assert_eq!(run("", &["--help"]).0, Some(0));
}

#[test]
fn an_unknown_option_is_a_warning_and_quiet_is_quiet() {
    let input = format!("action=validate-all\n{PLUG}plug=1\nstrange=hush\n");
    let (code, _, stderr) = run(&input, &[]);
    assert_eq!(code, Some(0));
    assert!(stderr.contains("\"strange\"") && !stderr.contains("hush"), "{stderr}");
    assert_eq!(run(&format!("{input}quiet=1\n"), &[]).2, "");
}

#[test]
fn a_delay_comes_before_an_off_and_no_other_action() {
    let plug = "type=kasa\nip=127.0.0.1\nipport=9\npower_timeout=0.1\ndelay=0.7\n";
    let time = |action: &str| {
        let start = Instant::now();
        let (code, _, stderr) = run(&format!("action={action}\n{plug}"), &[]);
        assert_eq!(code, Some(1), "{stderr}");
        start.elapsed()
    };
    for action in ["off", "reboot"] {
        assert!(time(action) >= Duration::from_millis(700), "{action}");
    }
    // What is not delayed ends at once; on a machine that stands still it may not, so the mark is
    // that of a delay which nobody has time for.
    let long = plug.replace("0.7", "3600");
    assert_eq!(run(&format!("action=status\n{long}"), &[]).0, Some(1));
}

#[test]
fn list_tells_the_outlets_that_are_configured() {
    let (code, text, _) = run(&format!("action=list\n{PLUG}plug=1,2\nseparator=;\n"), &[]);
    assert_eq!((code, text.as_str()), (Some(0), "1;\n2;\n"));
}
