//! Other programs, with a deadline; and waiting for a condition.

use anyhow::{Context, Result, bail};
use std::process::{Command, ExitCode, Output, Stdio};
use std::time::{Duration, Instant};

/// Pause between two looks at something that is awaited.
const POLL: Duration = Duration::from_millis(500);

/// A command that is killed at its deadline.
pub fn timed(deadline: Duration, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    let seconds = deadline.as_secs().to_string();
    command.args(["--kill-after=5", &seconds, program]).args(arguments).stdin(Stdio::null());
    command
}

/// Runs a command that must succeed; returns what it printed.
///
/// # Errors
/// It cannot be started, or fails, or its deadline is over; with all that it said.
pub fn run(deadline: Duration, program: &str, arguments: &[&str]) -> Result<String> {
    let output = timed(deadline, program, arguments).output();
    checked(output.with_context(|| format!("cannot run {program}"))?, || {
        format!("{program} {}", arguments.join(" "))
    })
}

/// Standard output of a command that succeeded; otherwise an error with all that it said.
///
/// # Errors
/// It failed.
pub fn checked(output: Output, command: impl Fn() -> String) -> Result<String> {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    bail!("{}: {}\n{}{}", command(), output.status, stdout.trim_end(), stderr.trim_end())
}

/// Waits until the condition holds. What it last found is in the error.
///
/// # Errors
/// It did not hold in time.
pub fn await_until(
    what: &str,
    at_most: Duration,
    mut condition: impl FnMut() -> Result<()>,
) -> Result<()> {
    let end = Instant::now() + at_most;
    loop {
        match condition() {
            Ok(()) => return Ok(()),
            Err(found) if Instant::now() >= end => {
                bail!("{what}: not within {} s; last seen: {found:#}", at_most.as_secs())
            }
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

/// The end of what a program has said.
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Says what begins, does it, and says how long it took.
///
/// # Errors
/// Those of the work, with the name.
pub fn stage<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("== {name}");
    let begun = Instant::now();
    let result = work().with_context(|| name.to_string());
    println!("== {name}: {:.1} s", begun.elapsed().as_secs_f64());
    result
}

/// The end of a program: an error is said on standard error.
pub fn end(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
