//! Other programs: each has a deadline, an empty environment, and nothing on its standard input.

use super::Machine;
use crate::ocf::{Fault, Rc};
use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, TryRecvError};
use std::time::Duration;

/// What a program answered.
pub struct Answer {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Where programs are looked for. The search path of the caller plays no part.
const PROGRAM_DIRS: [&str; 4] = ["usr/sbin", "usr/bin", "sbin", "bin"];
/// How much of a command line an error carries, characters.
const COMMAND_IN_ERROR: usize = 48;
/// How much of a program's output an error carries, bytes.
const OUTPUT_IN_ERROR: usize = 1024;
/// A program that goes on and says a line now and then. It ends with this value.
pub struct Follow {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Follow {
    /// The lines since the last call; `None` when the program has ended and all that it said was taken.
    pub fn lines(&mut self) -> Option<Vec<String>> {
        let mut lines = Vec::new();
        loop {
            match self.lines.try_recv() {
                Ok(line) => lines.push(line),
                Err(TryRecvError::Disconnected) if lines.is_empty() => return None,
                Err(_) => return Some(lines),
            }
        }
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        // One that has ended is as good as killed; and killed by this it ends at once.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Machine {
    /// Starts a program that goes on beside this one.
    ///
    /// # Errors
    /// `Installed` (5) if there is no such program.
    pub fn follow(&self, program: &str, arguments: &[&str]) -> Result<Follow, Fault> {
        let cannot = |error: io::Error| Fault::generic(format!("cannot run {program}: {error}"));
        let mut command = self.command(program)?;
        let mut child = command.args(arguments).stderr(Stdio::null()).spawn().map_err(cannot)?;
        let (sender, lines) = mpsc::channel();
        let stdout = child.stdout.take();
        std::thread::spawn(move || {
            let lines = stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines());
            // Ends when the program does, or when nobody listens any more.
            lines.map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Ok(Follow { child, lines })
    }

    /// Waits for a child until the deadline; `None` if it has not ended by then.
    pub fn await_child(&self, child: &mut Child) -> io::Result<Option<ExitStatus>> {
        let pid = Pid::from_raw(child.id().cast_signed());
        let (sender, ended) = mpsc::channel();
        // To look at it again and again would hold it up, where there is one processor. The thread leaves it to be reaped.
        std::thread::spawn(move || {
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
            while waitid(Id::Pid(pid), flags) == Err(Errno::EINTR) {}
            // The receiver may have given up.
            let _ = sender.send(());
        });
        // What the wait says does not matter: the child is asked.
        let _ = ended.recv_timeout(self.time_left());
        child.try_wait()
    }

    /// Runs a program that must succeed; returns its standard output.
    ///
    /// # Errors
    /// `Installed` (5) if there is no such program; `Generic` (1), with the command and what it
    /// said, if it fails or does not end by the deadline.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String, Fault> {
        let answer = self.ask(program, arguments)?;
        succeeded(program, arguments, answer)
    }

    /// As [`Machine::run`], for a program that may end well although it has left something out, and says so: whatever it says on
    /// its standard error is an error.
    pub fn run_silent(&self, program: &str, arguments: &[&str]) -> Result<String, Fault> {
        let answer = self.ask(program, arguments)?;
        if !answer.stderr.trim().is_empty() {
            return Err(Fault::generic(describe(program, arguments, &answer)));
        }
        succeeded(program, arguments, answer)
    }

    /// As [`Machine::run`]; the program inherits the lock, which is held until the program and all
    /// its children are gone, even if this process ends before.
    pub fn run_holding(
        &self,
        lock: &File,
        program: &str,
        arguments: &[&str],
    ) -> Result<String, Fault> {
        // As its standard input, so that it is this program's alone: others that run meanwhile, or later, have no part in it.
        let lock = lock
            .try_clone()
            .map_err(|error| Fault::generic(format!("cannot hand on a lock: {error}")))?;
        let answer = self.ask_with(lock.into(), program, arguments)?;
        succeeded(program, arguments, answer)
    }

    /// Runs a program whose exit code is part of its answer.
    ///
    /// # Errors
    /// As [`Machine::run`], but an exit code is no error.
    pub fn ask(&self, program: &str, arguments: &[&str]) -> Result<Answer, Fault> {
        self.ask_with(Stdio::null(), program, arguments)
    }

    fn ask_with(&self, stdin: Stdio, program: &str, arguments: &[&str]) -> Result<Answer, Fault> {
        self.step(&format!("{program} {}", arguments.join(" ")));
        let cannot = |error: io::Error| Fault::generic(format!("cannot run {program}: {error}"));
        let mut command = self.command(program)?;
        let mut child = command.args(arguments).stdin(stdin).spawn().map_err(cannot)?;
        let stdout = collect(child.stdout.take());
        let stderr = collect(child.stderr.take());
        let Some(status) = self.await_child(&mut child).map_err(cannot)? else {
            // A child that hangs in the kernel survives this; only a thread waits for it, so that a daemon keeps no zombies.
            let _ = child.kill();
            std::thread::spawn(move || child.wait());
            let command = format!("{program} {}", arguments.join(" "));
            return Err(Fault::generic(format!("{command:?} did not end in time")));
        };
        let grace = self.time_left().max(Duration::from_secs(1));
        let text = |stream: mpsc::Receiver<String>| stream.recv_timeout(grace).unwrap_or_default();
        Ok(Answer { code: status.code(), stdout: text(stdout), stderr: text(stderr) })
    }

    /// A program with an empty environment, English messages and nothing on standard input.
    #[expect(clippy::disallowed_methods, reason = "this is the seam")]
    fn command(&self, program: &str) -> Result<Command, Fault> {
        let path = PROGRAM_DIRS
            .iter()
            .map(|folder| self.root.join(folder).join(program))
            .find(|path| path.is_file())
            .ok_or_else(|| {
                Fault::new(Rc::Installed, format!("the program {program:?} is not installed"))
            })?;
        let mut command = Command::new(path);
        command
            .env_clear()
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(command)
    }
}

/// Reads a stream to its end in a thread of its own, so that a full pipe never stops the child.
fn collect(stream: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    if let Some(mut stream) = stream {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            // What was read before an error is still worth having.
            let _ = stream.read_to_end(&mut bytes);
            // The receiver may have given up.
            let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
        });
    }
    receiver
}

/// A command line as far as there is room for what it led to: Pacemaker keeps some 128 characters of a reason. The journal has
/// all of it.
fn shortened(program: &str, arguments: &[&str]) -> String {
    let mut line = program.to_string();
    for argument in arguments {
        if line.chars().count() + argument.chars().count() >= COMMAND_IN_ERROR {
            return line + " …";
        }
        line = line + " " + argument;
    }
    line
}

fn succeeded(program: &str, arguments: &[&str], answer: Answer) -> Result<String, Fault> {
    if answer.code == Some(0) {
        return Ok(answer.stdout);
    }
    Err(Fault::generic(describe(program, arguments, &answer)))
}

fn describe(program: &str, arguments: &[&str], answer: &Answer) -> String {
    let end = answer.code.map_or("a signal".to_string(), |code| format!("exit {code}"));
    let said = if answer.stderr.trim().is_empty() { &answer.stdout } else { &answer.stderr };
    let said = said.trim();
    let mut start = said.len().saturating_sub(OUTPUT_IN_ERROR);
    while !said.is_char_boundary(start) {
        start += 1;
    }
    format!("\"{}\" ended with {end}: {}", shortened(program, arguments), &said[start..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_program_that_does_not_end_in_time_is_an_error() {
        let machine = |seconds| Machine::local(Instant::now() + Duration::from_secs(seconds));
        assert_eq!(machine(30).ask("sh", &["-c", "echo said; exit 3"]).unwrap().code, Some(3));
        assert_eq!(machine(30).run("echo", &["said"]).unwrap(), "said\n");
        let fault = machine(0).run("sleep", &["3600"]).unwrap_err();
        assert_eq!(fault.reason, "\"sleep 3600\" did not end in time");
    }

    #[test]
    fn a_lock_is_held_by_the_program_that_has_it_and_by_none_that_comes_later() {
        let path = std::env::temp_dir().join(format!("hasan-holding-{}", std::process::id()));
        let machine = Machine::local(Instant::now() + Duration::from_secs(30));
        let is_free = || machine.try_lock(&path).unwrap().is_some();
        let lock = machine.try_lock(&path).unwrap().unwrap();
        let brief = machine.with_time(Duration::from_millis(300));
        // It does not end in time, and what it has begun lives on.
        let begun = "exec 3<&0; sleep 2 <&3 >&- 2>&- & exec sleep 3600";
        assert!(brief.run_holding(&lock, "sh", &["-c", begun]).is_err());
        let later = machine.follow("sleep", &["3600"]).unwrap();
        drop(lock);
        assert!(!is_free(), "the program's child does not hold it");
        assert!(machine.await_condition(Duration::from_secs(20), || Ok(is_free())).unwrap());
        drop(later);
        machine.remove_file(&path).unwrap();
    }

    #[test]
    fn an_error_has_room_for_the_cause() {
        assert_eq!(
            shortened("dmsetup", &["remove", "--retry", "data-a1"]),
            "dmsetup remove --retry data-a1"
        );
        let import = [
            "import",
            "-o",
            "cachefile=none",
            "-f",
            "-d",
            "/dev/mapper/data-a1",
            "-d",
            "/dev/mapper/data-b1",
            "9",
        ];
        assert_eq!(shortened("zpool", &import), "zpool import -o cachefile=none -f -d …");
        let answer =
            Answer { code: Some(1), stdout: String::new(), stderr: "no such pool".to_string() };
        let said = describe("zpool", &import, &answer);
        assert_eq!(
            said,
            "\"zpool import -o cachefile=none -f -d …\" ended with exit 1: no such pool"
        );
    }

    #[test]
    fn a_followed_program_is_heard_to_its_end_and_ends_with_its_follower() {
        let machine = Machine::local(Instant::now() + Duration::from_secs(30));
        let mut follow = machine.follow("printf", &["one\\ntwo\\n"]).unwrap();
        let mut heard = Vec::new();
        while let Some(lines) = follow.lines() {
            heard.extend(lines);
            assert!(!machine.time_left().is_zero(), "it has not ended");
        }
        assert_eq!(heard, ["one", "two"]);
        let follow = machine.follow("sleep", &["3600"]).unwrap();
        let process = std::path::PathBuf::from(format!("/proc/{}", follow.child.id()));
        assert!(process.exists());
        drop(follow);
        assert!(!process.exists());
        assert_eq!(machine.follow("no-such-program", &[]).err().unwrap().rc, Rc::Installed);
    }
}
