//! `fence_smartplug`: STONITH by smart plugs. A node is off when its plug has been read to be off,
//! and stays off.
//!
//! Source of the contract: FenceAgentAPI.md of ClusterLabs/fence-agents.
#![forbid(unsafe_code)]

mod action;
mod address;
mod family;
mod fencing;
mod http;
mod json;
mod klap;
mod log;
mod metadata;
mod options;
mod plug;
mod port9999;
mod secret;
mod settings;
mod table;
mod tls;

use action::Action;
use options::Options;
use std::io::{Read, Write};
use std::process::ExitCode;

/// Standard input may be so long, bytes.
const LONGEST_INPUT: u64 = 1024 * 1024;

fn main() -> ExitCode {
    let options = match given() {
        Ok(options) => options,
        Err(exit) => return exit,
    };
    if let Err(wrong) = log::open(&options) {
        return fail(&wrong);
    }
    for name in &options.unknown {
        tracing::warn!("the option {name:?} is unknown and ignored");
    }
    let word = options.text("action").unwrap_or_default();
    let Some(action) = Action::named(word) else {
        return fail(&format!("the action {word:?} is not supported"));
    };
    match action::run(action, &options) {
        Ok(done) => {
            let said = say(&done.text);
            // Who reads the text may have gone; what was done counts.
            if done.code == 0 && done.must_be_heard { said } else { ExitCode::from(done.code) }
        }
        Err(reason) => {
            tracing::error!("{}", reason.replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}

/// The options: from the command line or, where that is empty, from standard input.
fn given() -> Result<Options, ExitCode> {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.len() > 1 {
        return Options::from_arguments(&arguments).map_err(|text| {
            // Nobody to tell where the stream is closed; the exit code still counts.
            let _ = text.print();
            if text.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        });
    }
    let mut text = String::new();
    match std::io::stdin().take(LONGEST_INPUT).read_to_string(&mut text) {
        Ok(_) => Ok(Options::from_lines(&text)),
        Err(error) => Err(fail(&format!("cannot read the options from standard input: {error}"))),
    }
}

/// A message before there is a log.
fn fail(reason: &str) -> ExitCode {
    // Nobody to tell where the stream is closed; the exit code still counts.
    let _ = writeln!(std::io::stderr(), "ERROR {reason}");
    ExitCode::FAILURE
}

fn say(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
