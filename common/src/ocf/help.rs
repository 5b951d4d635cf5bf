//! The command line and its help, made of the agent's declaration.

use super::{Agent, Kind, Param, Rc};
use clap::{Arg, Command};
use std::fmt::Write;
use std::process::ExitCode;

/// The action on the command line. All further arguments are ignored, as the OCF API asks.
///
/// # Errors
/// The exit code, where the command line asks for nothing but a text, or names no action.
pub(super) fn parse(agent: &Agent, arguments: &[String]) -> Result<String, ExitCode> {
    let first_two = arguments.iter().take(2);
    match command(agent).try_get_matches_from(first_two) {
        Ok(matches) => {
            let word = matches.get_one::<String>("ACTION").expect("clap requires ACTION");
            Ok(word.clone())
        }
        Err(text) => {
            // Nobody to tell where the stream is closed; the exit code still counts.
            let _ = text.print();
            Err(if text.use_stderr() {
                ExitCode::from(Rc::Arguments as u8)
            } else {
                ExitCode::SUCCESS
            })
        }
    }
}

/// The text of `--help`.
pub(super) fn text(agent: &Agent) -> String {
    command(agent).render_long_help().to_string()
}

fn command(agent: &Agent) -> Command {
    let actions = match agent.explain {
        None => "start, stop, monitor, validate-all, meta-data",
        Some(_) => "start, stop, monitor, validate-all, meta-data; for people: explain [--json]",
    };
    Command::new(agent.name)
        .version(env!("CARGO_PKG_VERSION"))
        .about(agent.short)
        .long_about(format!("{}\n\n{}", agent.short, agent.long))
        .arg(Arg::new("ACTION").required(true).help(actions))
        .after_long_help(parameters(agent))
}

fn parameters(agent: &Agent) -> String {
    let mut text = String::from("Parameters, each from the environment as OCF_RESKEY_<name>:\n");
    for param in agent.params {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n  {} ({}", param.name, kind(param));
        if param.required {
            text.push_str(", required");
        }
        if let Some(default) = param.default {
            let _ = write!(text, ", default {default}");
        }
        let _ = write!(text, ")\n      {}\n", param.long.replace('\n', "\n      "));
    }
    text
}

fn kind(param: &Param) -> &'static str {
    match param.kind {
        Kind::Text(_) => "text",
        Kind::Boolean => "boolean",
        Kind::Integer(..) => "integer",
    }
}
