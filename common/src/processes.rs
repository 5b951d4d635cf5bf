//! The processes of this machine, from /proc: who has what open.

use crate::machine::Machine;
use crate::ocf::Fault;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fmt;
use std::path::Path;

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub id: i32,
    /// Its short name (`/proc/PID/comm`).
    pub name: String,
}

impl Process {
    /// Asks it to end (SIGTERM), as [`Process::kill`] does not.
    pub fn end(&self) {
        let _ = kill(Pid::from_raw(self.id), Signal::SIGTERM);
    }

    /// The words of its command line (`/proc/PID/cmdline`, proc_pid_cmdline(5): a zero byte ends each); none if it has ended.
    pub fn words(&self, machine: &Machine) -> Vec<String> {
        let file = Path::new("/proc").join(self.id.to_string()).join("cmdline");
        let bytes = machine.read_bytes(&file).ok().flatten().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        text.split_terminator('\0').map(str::to_string).collect()
    }

    /// Kills it (SIGKILL). One that has ended is as good as killed; one that hangs in the kernel stays,
    /// and what it holds is still held.
    pub fn kill(&self) {
        let _ = kill(Pid::from_raw(self.id), Signal::SIGKILL);
    }
}

impl fmt::Display for Process {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} (process {})", self.name, self.id)
    }
}

/// The processes that have something open, or as their root or working directory, for which
/// `is_meant` holds. This process is not among them. One that ends meanwhile is passed over.
pub fn with_open(
    machine: &Machine,
    is_meant: impl Fn(&Path) -> bool,
) -> Result<Vec<Process>, Fault> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in machine.list(Path::new("/proc"))?.unwrap_or_default() {
        let Ok(id) = entry.parse::<i32>() else { continue };
        if entry == own {
            continue;
        }
        let folder = Path::new("/proc").join(&entry);
        if has_open(machine, &folder, &is_meant) {
            // A process that has ended meanwhile holds nothing. Its name may be cut within a character.
            let Ok(Some(name)) = machine.read_lossy(&folder.join("comm")) else { continue };
            found.push(Process { id, name });
        }
    }
    Ok(found)
}

/// What cannot be read belongs to a process that ends, or to a thread of the kernel.
fn has_open(machine: &Machine, folder: &Path, is_meant: &impl Fn(&Path) -> bool) -> bool {
    let leads_there =
        |link: &Path| machine.link(link).ok().flatten().is_some_and(|target| is_meant(&target));
    let descriptors = machine.list(&folder.join("fd")).ok().flatten().unwrap_or_default();
    descriptors.iter().any(|number| leads_there(&folder.join("fd").join(number)))
        || leads_there(&folder.join("cwd"))
        || leads_there(&folder.join("root"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn the_holder_of_a_file_is_found_and_nobody_else() {
        let folder = std::env::temp_dir().join(format!("hasan-processes-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("held");
        let file = File::create(&path).unwrap();
        let machine =
            Machine::local(std::time::Instant::now() + std::time::Duration::from_secs(10));
        // Its standard input is the file: this process itself does not count.
        #[expect(clippy::disallowed_methods, reason = "a holder for the test")]
        let mut child = std::process::Command::new("sleep").arg("60").stdin(file).spawn().unwrap();
        let id = i32::try_from(child.id()).unwrap();
        let awaited = machine.await_condition(machine.time_left(), || {
            let found = with_open(&machine, |target| target == path)?;
            Ok(found == [Process { id, name: "sleep".to_string() }])
        });
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(awaited, Ok(true));
        assert_eq!(with_open(&machine, |target| target == path), Ok(Vec::new()));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
