//! Runs of the program, what they should end in, and the list of all that was checked.

use crate::program::{self, Run};
use crate::server::PATIENCE;
use std::fmt::Debug;
use std::io::Write;

/// Pauses that cost a test less than a person's.
pub(crate) const QUICK: &str = "hold=0.05\nstonith_status_sleep=0.05\n";
/// Times for what ends by itself, on however slow a machine.
pub(crate) const AMPLE: &str = "power_timeout=120\nshell_timeout=60\nlogin_timeout=60\n";

/// All that was checked with one thing that other people wrote.
pub(crate) struct Report {
    with: &'static str,
    count: usize,
    wrong: Vec<String>,
}

impl Report {
    pub(crate) fn new(with: &'static str) -> Report {
        Report { with, count: 0, wrong: Vec::new() }
    }

    /// Runs the program with these lines on standard input. It has to end with this code, and to say
    /// this: a success on standard output and nothing else, an error in one line.
    pub(crate) fn run(&mut self, name: &str, input: &str, code: i32, text: &str) {
        let judge = |input: &str| {
            let run = program::run(&[], input, PATIENCE);
            let wrong = run.wrong(input, code, text)?;
            Some(format!("{wrong}: {}", run.shown()))
        };
        let mut wrong = judge(input);
        // A machine that stood still meanwhile has used up a short time; what else is wrong stays wrong with more of it.
        if let (Some(first), Some(longer)) = (&wrong, with_more_time(input)) {
            tell(&format!("{}: {name}: with more time once more: {first}", self.with));
            wrong = judge(&longer);
        }
        self.note(name, wrong);
    }

    /// Runs the program, whether it succeeds or not; returns whether it told a success.
    pub(crate) fn try_run(&mut self, name: &str, input: &str) -> bool {
        let run = program::run(&[], input, PATIENCE);
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
        let mark = wrong.as_ref().map_or("ok".to_string(), |wrong| format!("WRONG: {wrong}"));
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

/// The same options with thirty times the time; `None` if they have much.
fn with_more_time(input: &str) -> Option<String> {
    let longer = |line: &str| match line.split_once("_timeout=") {
        Some((name, seconds)) => {
            let seconds: f64 = seconds.parse().unwrap();
            format!("{name}_timeout={}", seconds * 30.0)
        }
        None => line.to_string(),
    };
    let is_short = input.contains("_timeout=") && !input.contains(AMPLE);
    is_short.then(|| input.lines().map(|line| longer(line) + "\n").collect())
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
