//! Agents that only report on what systemd runs: their start and stop change nothing but whether
//! they report.

use super::{Action, Fault, Outcome, Rc};
use crate::machine::Machine;
use std::path::PathBuf;

/// Does an action of such an agent. `check` says what is wrong with what it reports on; a start
/// does not wait for it to be right, because it can do nothing about it.
///
/// # Errors
/// Those of `check`, while it reports.
pub fn report_only(
    machine: &Machine,
    agent: &str,
    action: Action,
    check: impl FnOnce() -> Result<(), Fault>,
) -> Outcome {
    let marker = PathBuf::from(format!("/run/hasan/{agent}.reporting"));
    match action {
        Action::Start => {
            match check() {
                // Weakened is no reason not to report: the monitor says it.
                Err(fault) if fault.rc != Rc::Degraded => return Err(fault),
                _ => machine.replace_file(&marker, "")?,
            }
        }
        Action::Stop => machine.remove_file(&marker)?,
        Action::Monitor if !machine.exists(&marker) => return Ok(Rc::NotRunning),
        Action::Monitor => check()?,
        Action::ValidateAll | Action::ReloadAgent => {}
    }
    Ok(Rc::Success)
}
