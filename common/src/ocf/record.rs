//! The parameters of the last start, kept below /run so that a stop still knows what to take down
//! when the configuration has been broken since. It says nothing about what runs: the kernel does.

use super::{Agent, Fault, Values};
use crate::machine::Machine;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Writes the record.
pub(super) fn save(
    machine: &Machine,
    agent: &Agent,
    instance: &str,
    values: &Values,
) -> Result<(), Fault> {
    let text = serde_json::json!(values.all()).to_string();
    machine.replace_file(&path(agent, instance), &text)
}

/// Reads the record. One that is missing or unreadable knows nothing.
pub(super) fn load(machine: &Machine, agent: &Agent, instance: &str) -> BTreeMap<String, String> {
    let text = machine.read(&path(agent, instance)).ok().flatten().unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

fn path(agent: &Agent, instance: &str) -> PathBuf {
    let safe: String = instance
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' })
        .collect();
    PathBuf::from(format!("/run/hasan/{}.{safe}.json", agent.name))
}
