//! The OCF resource-agent contract, once for all agents: an agent declares its parameters and
//! operations, and gets its command line, checks, metadata, help, logging and deadlines from here.
//!
//! Source: Open Cluster Framework Resource Agent API 1.1 (`resource-agent-api.md`).

mod explain;
mod fault;
mod help;
mod log;
mod metadata;
mod param;
mod record;
mod reporter;
mod supervise;

pub use explain::Table;
pub use fault::{Fault, Outcome, Rc};
pub use log::open as open_log;
pub use metadata::metadata;
pub use param::{Kind, Param, Values};
pub use reporter::report_only;

use crate::machine::Machine;
use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tracing::level_filters::LevelFilter;

/// Explains one resource.
pub type Explain = fn(&Machine, &Values) -> Result<Table, Fault>;

/// One resource agent: all that its metadata, its help and its checks are made of.
pub struct Agent {
    /// File name below `/usr/lib/ocf/resource.d/hasan/`.
    pub name: &'static str,
    /// One line.
    pub short: &'static str,
    /// What it does, for an administrator.
    pub long: &'static str,
    /// All parameters, in the order of the documentation.
    pub params: &'static [&'static Param],
    /// The operations and their advised timeouts.
    pub operations: &'static [Operation],
    /// Does one action.
    pub run: fn(&Machine, Action, &Values) -> Outcome,
    /// Says what it would do and why, and changes nothing; for people, by `AGENT explain`.
    pub explain: Option<Explain>,
}

impl Agent {
    /// Whether the agent has this action. All have those of the OCF API's core.
    fn does(&self, action: Action) -> bool {
        let is_listed = |operation: &Operation| operation.name == action.name();
        action != Action::ReloadAgent || self.operations.iter().any(is_listed)
    }
}

/// An operation as the metadata advertises it. Times in seconds.
pub struct Operation {
    /// `start`, `stop`, `monitor`, …
    pub name: &'static str,
    /// Advised timeout.
    pub timeout: u64,
    /// Advised interval; 0 for an operation that does not recur.
    pub interval: u64,
    /// `OCF_CHECK_LEVEL`; 0 for the ordinary one.
    pub depth: u64,
}

/// The actions that an agent implements itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Bring the resource up; return only when it is fully usable.
    Start,
    /// Take the resource down; success only if it is proven to be down.
    Stop,
    /// Tell the state. A probe is a monitor without an interval.
    Monitor,
    /// Check the parameters alone; no look at the machine.
    ValidateAll,
    /// Take changed parameters, those that are reloadable, while the resource runs.
    ReloadAgent,
}

impl Action {
    fn parse(word: &str) -> Option<Action> {
        match word {
            "start" => Some(Action::Start),
            "stop" => Some(Action::Stop),
            "monitor" | "status" => Some(Action::Monitor),
            "validate-all" => Some(Action::ValidateAll),
            "reload-agent" => Some(Action::ReloadAgent),
            _ => None,
        }
    }

    /// The word on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Action::Start => "start",
            Action::Stop => "stop",
            Action::Monitor => "monitor",
            Action::ValidateAll => "validate-all",
            Action::ReloadAgent => "reload-agent",
        }
    }
}

/// The second argument that marks the process which does the work of a start, stop or reload, below the one
/// that watches the time.
const WORKER: &str = "--worker";

/// The whole of an agent's `main`.
pub fn main(agent: &Agent) -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let word = match help::parse(agent, &arguments) {
        Ok(word) => word,
        Err(exit) => return exit,
    };
    match word.as_str() {
        "meta-data" => return print(&metadata(agent)),
        "usage" | "help" => return print(&help::text(agent)),
        "explain" if agent.explain.is_some() => return explain::main(agent, &arguments),
        _ => {}
    }
    let Some(action) = Action::parse(&word).filter(|action| agent.does(*action)) else {
        return finish(agent, &word, Err(Fault::new(Rc::Unimplemented, unsupported(&word))));
    };
    log::open(agent.name, LevelFilter::DEBUG);
    let started = Instant::now();
    let is_worker = arguments.get(2).is_some_and(|argument| argument == WORKER);
    let machine = Machine::local(started + time_allowed(agent, action, is_worker));
    let environment: BTreeMap<String, String> = std::env::vars().collect();
    if is_worker {
        return exit_code(&report(agent, action, &machine.telling_steps(), &environment));
    }
    let outcome = match action {
        Action::Start | Action::Stop | Action::ReloadAgent => {
            supervise::run(agent, action, &machine)
        }
        Action::Monitor | Action::ValidateAll => report(agent, action, &machine, &environment),
    };
    exit_code(&outcome)
}

/// Runs the action in this process and prints the exit reason, if there is one.
fn report(
    agent: &Agent,
    action: Action,
    machine: &Machine,
    environment: &BTreeMap<String, String>,
) -> Outcome {
    let outcome = perform(agent, action, machine, environment);
    say(agent, action.name(), &outcome);
    outcome
}

fn perform(
    agent: &Agent,
    action: Action,
    machine: &Machine,
    environment: &BTreeMap<String, String>,
) -> Outcome {
    let instance = environment.get("OCF_RESOURCE_INSTANCE").map_or(agent.name, String::as_str);
    match action {
        Action::ValidateAll => (agent.run)(machine, action, &Values::strict(agent, environment)?),
        Action::Start | Action::ReloadAgent => {
            let values = Values::strict(agent, environment)?;
            record::save(machine, agent, instance, &values)?;
            (agent.run)(machine, action, &values)
        }
        Action::Stop | Action::Monitor => {
            let recorded = record::load(machine, agent, instance);
            let values = Values::lenient(agent, environment, &recorded);
            match (agent.run)(machine, action, &values)? {
                // A stop of what does not run is a success, never "not running".
                Rc::NotRunning if action == Action::Stop => Ok(Rc::Success),
                rc => Ok(rc),
            }
        }
    }
}

/// The time that this action may take, seconds: a tenth less than Pacemaker allows
/// (`OCF_RESKEY_CRM_meta_timeout`, milliseconds), so that a reason can still be given before the
/// process group is killed. A worker has less, since it knows better than who watches it what it has waited for.
fn time_allowed(agent: &Agent, action: Action, is_worker: bool) -> Duration {
    let advised = agent.operations.iter().find(|operation| operation.name == action.name());
    let advised = Duration::from_secs(advised.map_or(20, |operation| operation.timeout));
    let allowed = std::env::var("OCF_RESKEY_CRM_meta_timeout")
        .ok()
        .and_then(|text| text.parse().ok())
        .map_or(advised, Duration::from_millis);
    allowed * if is_worker { 17 } else { 18 } / 20
}

/// How deep a monitor looks: `OCF_CHECK_LEVEL`, which Pacemaker sets bare; 0 if it is not set.
pub fn check_level() -> u64 {
    ["OCF_CHECK_LEVEL", "OCF_RESKEY_OCF_CHECK_LEVEL"]
        .iter()
        .find_map(|name| std::env::var(name).ok()?.parse().ok())
        .unwrap_or_default()
}

fn unsupported(word: &str) -> String {
    format!("the action {word:?} is not supported")
}

fn finish(agent: &Agent, word: &str, outcome: Outcome) -> ExitCode {
    say(agent, word, &outcome);
    exit_code(&outcome)
}

fn exit_code(outcome: &Outcome) -> ExitCode {
    ExitCode::from(match outcome {
        Ok(rc) => *rc as u8,
        Err(fault) => fault.rc as u8,
    })
}

/// Pacemaker takes the text behind the last `ocf-exit-reason:` on standard error as the reason.
fn say(agent: &Agent, word: &str, outcome: &Outcome) {
    let Err(fault) = outcome else { return };
    let reason = fault.reason.replace('\n', " ");
    // A pool can be weak for a day, and be looked at every ten seconds: that is no error each time.
    match fault.rc {
        Rc::Degraded => tracing::info!("{word}: {reason}"),
        _ => tracing::error!("{word}: {reason}"),
    }
    // A closed standard error leaves nobody to tell; the exit code still counts.
    let _ = writeln!(std::io::stderr(), "ocf-exit-reason:{}: {reason}", agent.name);
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(Rc::Generic as u8),
    }
}
