//! The parameters of the last start, kept below /run so that a stop still knows what to take down
//! when the configuration has been broken since. It says nothing about what runs: the kernel does.

use super::{Agent, Fault, Values};
use crate::machine::Machine;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const FOLDER: &str = "/run/hasan";

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

/// The instances of an agent that were started on this node since it booted.
pub(super) fn instances(machine: &Machine, agent: &Agent) -> Result<Vec<String>, Fault> {
    let names = machine.list(Path::new(FOLDER))?.unwrap_or_default();
    let instance = |name: &String| {
        let rest = name.strip_prefix(agent.name)?.strip_prefix('.')?;
        Some(rest.strip_suffix(".json")?.to_string())
    };
    Ok(names.iter().filter_map(instance).collect())
}

fn path(agent: &Agent, instance: &str) -> PathBuf {
    let safe: String = instance
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' })
        .collect();
    Path::new(FOLDER).join(format!("{}.{safe}.json", agent.name))
}
