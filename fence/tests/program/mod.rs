//! Runs the program under test.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

/// How a run of the program ended; without a code, it did not.
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs it with these arguments and this on standard input, and kills it when the patience is over.
pub(crate) fn run(arguments: &[&str], input: &str, patience: Duration) -> Run {
    #[expect(clippy::disallowed_methods, reason = "the program under test is run")]
    let mut child = Command::new(env!("CARGO_BIN_EXE_fence_smartplug"))
        .args(arguments)
        // A proxy would see the password.
        .env("http_proxy", "http://127.0.0.1:9")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (sender, both) = channel();
    thread::spawn(move || {
        let (mut stdout, mut stderr) = (String::new(), String::new());
        out.read_to_string(&mut stdout).unwrap();
        err.read_to_string(&mut stderr).unwrap();
        // Nobody listens any more for a program that took too long.
        let _ = sender.send((stdout, stderr));
    });
    let Ok((stdout, stderr)) = both.recv_timeout(patience) else {
        child.kill().unwrap();
        child.wait().unwrap();
        return Run { code: None, stdout: String::new(), stderr: String::new() };
    };
    Run { code: child.wait().unwrap().code(), stdout, stderr }
}
