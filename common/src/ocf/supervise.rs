//! Start, stop and reload run in a worker process, so that a call that blocks in the kernel (an export, a
//! configfs write) cannot keep this agent from giving its reason before Pacemaker kills it.

use super::{Action, Agent, Fault, Outcome, Rc, WORKER};
use crate::machine::Machine;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::time::Instant;

/// More than the text of a step, bytes.
const STEP: u64 = 4096;

/// Runs the worker, and gives up at the machine's deadline with the step that did not end.
pub(super) fn run(agent: &Agent, action: Action, machine: &Machine) -> Outcome {
    let begun = Instant::now();
    tracing::info!("{} begin", action.name());
    let outcome = watch(action, machine);
    if let Ok(rc) = &outcome {
        let seconds = begun.elapsed().as_secs_f64();
        tracing::info!("{} done: exit {} after {seconds:.1} s", action.name(), *rc as u8);
    }
    super::say(agent, action.name(), &outcome);
    outcome
}

#[expect(
    clippy::disallowed_methods,
    reason = "the worker is this program itself, with its streams"
)]
fn watch(action: Action, machine: &Machine) -> Outcome {
    let cannot = |what: &str, error: io::Error| {
        Fault::generic(format!("cannot {what} the worker of {}: {error}", action.name()))
    };
    // A file in memory: a pipe would wake this process for each of thousands of steps.
    let steps = memfd_create("steps", MFdFlags::MFD_CLOEXEC).map(File::from);
    let steps = steps.map_err(|errno| cannot("listen to", errno.into()))?;
    let output = steps.try_clone().map_err(|error| cannot("listen to", error))?;
    let mut worker = Command::new("/proc/self/exe")
        .args([action.name(), WORKER])
        .stdin(Stdio::null())
        .stdout(output)
        .spawn()
        .map_err(|error| cannot("start", error))?;
    match machine.await_child(&mut worker) {
        Ok(Some(status)) => Ok(rc_of(status.code())),
        Ok(None) => {
            // A worker that hangs in the kernel cannot be killed; it is left behind.
            let _ = worker.kill();
            let step = last_line(&steps).unwrap_or_else(|_| "unknown".to_string());
            Err(Fault::generic(format!(
                "{} did not end in time; the step that did not end: {step}",
                action.name()
            )))
        }
        Err(error) => Err(cannot("watch", error)),
    }
}

/// The last line of a file that ends with one; "none" if it is empty.
fn last_line(file: &File) -> io::Result<String> {
    let length = file.metadata()?.len();
    let mut tail = vec![0; usize::try_from(length.min(STEP)).unwrap_or_default()];
    file.read_exact_at(&mut tail, length.saturating_sub(STEP))?;
    let text = String::from_utf8_lossy(&tail);
    Ok(text.lines().next_back().unwrap_or("none").to_string())
}

/// The worker has given its reason itself; only its exit code is passed on.
fn rc_of(code: Option<i32>) -> Rc {
    match code {
        Some(0) => Rc::Success,
        Some(2) => Rc::Arguments,
        Some(4) => Rc::Permission,
        Some(5) => Rc::Installed,
        Some(6) => Rc::Configured,
        Some(7) => Rc::NotRunning,
        Some(190) => Rc::Degraded,
        _ => Rc::Generic,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_last_step_is_found_behind_many() {
        let mut file = memfd_create("steps", MFdFlags::MFD_CLOEXEC).map(File::from).unwrap();
        assert_eq!(last_line(&file).unwrap(), "none");
        for count in [1, 1000] {
            for number in 1..=count {
                writeln!(file, "zfs set hasan:lun={number} p/v").unwrap();
            }
            assert_eq!(last_line(&file).unwrap(), format!("zfs set hasan:lun={count} p/v"));
        }
    }
}
