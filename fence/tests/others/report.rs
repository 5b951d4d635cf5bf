//! Runs of the program, what they should end in, and the list of all that was checked.

use crate::server::PATIENCE;
use std::fmt::Debug;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;

/// All that was checked with one thing that other people wrote.
pub(crate) struct Report {
    with: &'static str,
    count: usize,
    wrong: Vec<String>,
}

/// How a run of the program ended; without a code, it did not.
struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Report {
    pub(crate) fn new(with: &'static str) -> Report {
        Report { with, count: 0, wrong: Vec::new() }
    }

    /// Runs the program with these lines on standard input. It has to end with this code, and to say
    /// this: a success on standard output and nothing else, an error in one line.
    pub(crate) fn run(&mut self, name: &str, input: &str, code: i32, text: &str) {
        let run = fence(input);
        let wrong = run.wrong(input, code, text);
        self.note(name, wrong.map(|wrong| format!("{wrong}: {}", run.shown())));
    }

    /// Runs the program, whether it succeeds or not; returns whether it told a success.
    pub(crate) fn try_run(&mut self, name: &str, input: &str) -> bool {
        let run = fence(input);
        let has_ended_well = run.code == Some(0) || run.wrong(input, 1, "").is_none();
        self.note(name, (!has_ended_well).then(|| run.shown()));
        run.code == Some(0)
    }

    /// Compares what is with what should be.
    pub(crate) fn equal<T: PartialEq + Debug>(&mut self, name: &str, seen: T, want: T) {
        let wrong = (seen != want).then(|| format!("it is {seen:?}, not {want:?}"));
        self.note(name, wrong);
    }

    fn note(&mut self, name: &str, wrong: Option<String>) {
        self.count += 1;
        let mark = if wrong.is_some() { "WRONG" } else { "ok" };
        tell(&format!("{}: {name}: {mark}", self.with));
        self.wrong.extend(wrong.map(|wrong| format!("{name}: {wrong}")));
    }

    /// The last line, and the verdict.
    pub(crate) fn close(self) {
        let (with, count, wrong) = (self.with, self.count, self.wrong);
        tell(&format!("{count} checks with {with}, {} of them wrong", wrong.len()));
        assert!(wrong.is_empty(), "{with}:\n{}", wrong.join("\n"));
    }
}

impl Run {
    fn wrong(&self, input: &str, code: i32, text: &str) -> Option<String> {
        if self.code != Some(code) {
            return Some(format!("it did not end with {code}"));
        }
        let mut secrets = input.lines().filter_map(|line| line.strip_prefix("password="));
        if secrets.any(|secret| self.stderr.contains(secret)) {
            return Some("it tells the password".to_string());
        }
        let is_error = code == 1;
        if is_error && (self.stderr.lines().count() != 1 || !self.stderr.contains("ERROR")) {
            return Some("it does not say why in one line".to_string());
        }
        if is_error && !self.stdout.is_empty() {
            return Some("it tells a success".to_string());
        }
        let said_it = match is_error {
            true => self.stderr.contains(text),
            false => self.stdout.trim_end() == text,
        };
        (!said_it).then(|| format!("it does not say {text:?}"))
    }

    fn shown(&self) -> String {
        format!("exit {:?}, {:?}, {:?}", self.code, self.stdout, self.stderr)
    }
}

/// Not by `println!`, which the test harness swallows.
fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn fence(input: &str) -> Run {
    #[expect(clippy::disallowed_methods, reason = "the program under test is run")]
    let mut child = Command::new(env!("CARGO_BIN_EXE_fence_smartplug"))
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
    let Ok((stdout, stderr)) = both.recv_timeout(PATIENCE) else {
        child.kill().unwrap();
        child.wait().unwrap();
        return Run { code: None, stdout: String::new(), stderr: String::new() };
    };
    Run { code: child.wait().unwrap().code(), stdout, stderr }
}
