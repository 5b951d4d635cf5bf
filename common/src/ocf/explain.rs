//! `AGENT explain [--json]`: what the agent would do on this node and why, for people. It changes nothing.

use super::{Agent, Fault, Rc, Values, print, record};
use crate::machine::Machine;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// A look may take so long.
const TIME: Duration = Duration::from_secs(120);

/// An explanation.
#[derive(Debug, Default)]
pub struct Table {
    /// Names of the columns.
    pub head: Vec<&'static str>,
    /// One row for each thing that is explained.
    pub rows: Vec<Vec<String>>,
    /// What would be done now.
    pub steps: Vec<String>,
}

/// Explains the resource of the environment's parameters or, without any, each that was started on this node.
pub(super) fn main(agent: &Agent, arguments: &[String]) -> ExitCode {
    let machine = Machine::local(Instant::now() + TIME);
    let is_json = arguments.iter().skip(2).any(|argument| argument == "--json");
    let explained = match resources(agent, &machine) {
        Ok(resources) => resources,
        Err(fault) => return refuse(agent, &fault),
    };
    if explained.is_empty() {
        let reason = "it was not started on this node: give its parameters as OCF_RESKEY_<name>";
        return refuse(agent, &Fault::new(Rc::Arguments, reason));
    }
    let mut all = Vec::new();
    let mut refused = None;
    for (name, values) in explained {
        let Some(explain) = agent.explain else { continue };
        match explain(&machine, &values) {
            Ok(table) if is_json => all.push(to_json(&name, &table)),
            Ok(table) => {
                print(&to_text(&name, &table));
            }
            // The others are explained all the same: this one was deleted, perhaps, since the node has booted.
            Err(fault) => {
                let fault_of = Fault::new(fault.rc, format!("{name}: {}", fault.reason));
                refused = Some(refuse(agent, &fault_of));
                all.push(json!({ "resource": name, "error": fault.reason }));
            }
        }
    }
    let printed =
        if is_json { print(&format!("{:#}\n", Value::Array(all))) } else { ExitCode::SUCCESS };
    refused.unwrap_or(printed)
}

fn resources(agent: &Agent, machine: &Machine) -> Result<Vec<(String, Values)>, Fault> {
    let environment: BTreeMap<String, String> = std::env::vars().collect();
    if environment.keys().any(|name| name.starts_with("OCF_RESKEY_")) {
        return Ok(vec![(agent.name.to_string(), Values::strict(agent, &environment)?)]);
    }
    let values = |instance: String| {
        let recorded = record::load(machine, agent, &instance);
        (instance, Values::lenient(agent, &BTreeMap::new(), &recorded))
    };
    Ok(record::instances(machine, agent)?.into_iter().map(values).collect())
}

fn refuse(agent: &Agent, fault: &Fault) -> ExitCode {
    use std::io::Write;
    // Nobody to tell where the stream is closed; the exit code still counts.
    let _ = writeln!(std::io::stderr(), "{}: {}", agent.name, fault.reason);
    ExitCode::from(fault.rc as u8)
}

fn to_text(name: &str, table: &Table) -> String {
    let head: Vec<String> = table.head.iter().map(|word| word.to_string()).collect();
    let width = |at: usize| {
        let cells = std::iter::once(&head).chain(&table.rows);
        cells.filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let mut text = format!("{name}\n");
    for row in std::iter::once(&head).chain(&table.rows) {
        let cells: Vec<String> =
            row.iter().enumerate().map(|(at, cell)| format!("{cell:<0$}", width(at))).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {}", cells.join("  ").trim_end());
    }
    if table.steps.is_empty() {
        text.push_str("  nothing to do\n");
    }
    for step in &table.steps {
        let _ = writeln!(text, "  to do: {step}");
    }
    text
}

fn to_json(name: &str, table: &Table) -> Value {
    let row = |cells: &Vec<String>| {
        let pairs =
            table.head.iter().zip(cells).map(|(head, cell)| (head.to_string(), json!(cell)));
        Value::Object(pairs.collect())
    };
    let rows: Vec<Value> = table.rows.iter().map(row).collect();
    json!({ "resource": name, "rows": rows, "steps": table.steps })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_for_people_and_for_programs() {
        let rows = vec![vec!["p/v/a".to_string(), "0".to_string()]];
        let steps = vec!["make LUN 0".to_string()];
        let table = Table { head: vec!["zvol", "LUN"], rows, steps };
        assert_eq!(
            to_text("luns", &table),
            "luns\n  zvol   LUN\n  p/v/a  0\n  to do: make LUN 0\n"
        );
        let want = json!({"resource": "luns", "rows": [{"zvol": "p/v/a", "LUN": "0"}], "steps": ["make LUN 0"]});
        assert_eq!(to_json("luns", &table), want);
        assert!(to_text("x", &Table::default()).contains("nothing to do"));
    }
}
