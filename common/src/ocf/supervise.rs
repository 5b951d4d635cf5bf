//! Start and stop run in a worker process, so that a call that blocks in the kernel (an export, a
//! configfs write) cannot keep this agent from giving its reason before Pacemaker kills it.

use super::{Action, Agent, Fault, Outcome, Rc, WORKER};
use crate::machine::Machine;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

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
    let cannot = |what: &str, error: std::io::Error| {
        Fault::generic(format!("cannot {what} the worker of {}: {error}", action.name()))
    };
    let mut worker = Command::new("/proc/self/exe")
        .args([action.name(), WORKER])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| cannot("start", error))?;
    let last_step = Arc::new(Mutex::new(String::from("none")));
    let steps = worker.stdout.take().expect("stdout is piped");
    let writer = Arc::clone(&last_step);
    std::thread::spawn(move || {
        for line in BufReader::new(steps).lines().map_while(Result::ok) {
            *writer.lock().expect("no holder panics") = line;
        }
    });
    match machine.await_child(&mut worker) {
        Ok(Some(status)) => Ok(rc_of(status.code())),
        Ok(None) => {
            // A worker that hangs in the kernel cannot be killed; it is left behind.
            let _ = worker.kill();
            let step = last_step.lock().expect("no holder panics").clone();
            Err(Fault::generic(format!(
                "{} did not end in time; the step that did not end: {step}",
                action.name()
            )))
        }
        Err(error) => Err(cannot("watch", error)),
    }
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
