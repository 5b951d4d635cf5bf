//! The lab: four virtual machines on one host, without KVM, that make a whole hasan cluster with its client; and the
//! scenarios that it goes through. `lab --help` lists what it does.
#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the lab is a program for a terminal and drives many others; the rules of the agents are not its own"
)]

mod access_checks;
mod bench;
mod checks;
mod cluster;
mod cts;
mod disks;
mod faults;
mod fences;
mod guest;
mod image;
mod load;
mod lun_checks;
mod machine;
mod many_luns;
mod net;
mod orders;
mod plug;
mod pool_checks;
mod qmp;
mod scenarios;
mod snapshot;
mod ssh;
mod state;
mod storm;
mod strange_legs;
mod tester;
mod timeline;
mod timers;
mod two_pools;
mod vlans;
mod watch_checks;

use anyhow::{Result, bail};
use checks::Asked;
use clap::{Parser, Subcommand};
use machine::Machine;
use net::NAMESPACE;
use state::Lab;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// A hasan cluster in virtual machines.
#[derive(Parser)]
struct Arguments {
    /// Debian release of the machines
    #[arg(long, global = true, default_value = "bookworm", value_parser = ["bookworm", "trixie"])]
    release: String,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what the host needs, and build the image of the machines if it is not there.
    Image,
    /// Bring the configured cluster up: from its snapshot, or from nothing if there is none.
    Up,
    /// Stop all machines, and remove their networks.
    Down,
    /// Run a command in a machine, or open a shell there.
    Ssh {
        /// storage-a, storage-b, quorum-c or client
        machine: String,
        /// The command
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Pull a machine's plug, or give it power again.
    Power {
        /// on or off
        to: String,
        /// The machine
        machine: String,
    },
    /// Run the plugs' daemon. The lab starts it by itself.
    #[command(hide = true)]
    Plugd,
    /// Show a planned failover and back while a client writes.
    Demo,
    /// Measure what is worth a comparison.
    Bench {
        /// monitor, import, luns, watch
        only: Vec<String>,
    },
    /// Run the checks and scenarios.
    Test {
        /// Only those whose name contains one of these
        only: Vec<String>,
        /// All that fails in the field
        #[arg(long, conflicts_with = "only")]
        faults: bool,
        /// Those that take long, too
        #[arg(long, conflicts_with_all = ["only", "faults"])]
        all: bool,
    },
}

fn main() -> ExitCode {
    support::command::end(run())
}

fn run() -> Result<()> {
    let arguments = Arguments::parse();
    let lab = Lab::open(&arguments.release)?;
    let _lock = match arguments.verb {
        Verb::Image | Verb::Up | Verb::Bench { .. } | Verb::Demo | Verb::Test { .. } => {
            Some(lab.lock()?)
        }
        Verb::Down | Verb::Ssh { .. } | Verb::Power { .. } | Verb::Plugd => None,
    };
    match arguments.verb {
        Verb::Image => image::ensure(&lab).map(|_| ()),
        Verb::Up => scenarios::fresh_cluster(&lab).map(|_| ()),
        Verb::Down => down(&lab),
        Verb::Ssh { machine, command } => {
            let code = ssh::interactive(&lab, Machine::named(&machine)?, &command)?;
            std::process::exit(code)
        }
        Verb::Power { to, machine } => match to.as_str() {
            "on" => machine::boot(&lab, Machine::named(&machine)?),
            "off" => machine::kill(&lab, Machine::named(&machine)?),
            _ => bail!("power {to:?} is neither on nor off"),
        },
        Verb::Plugd => plug::serve(&lab),
        Verb::Bench { only } => bench::run(&lab, &only),
        Verb::Demo => checks::demo(&lab),
        Verb::Test { all: true, .. } => checks::test(&lab, &Asked::All),
        Verb::Test { faults: true, .. } => checks::test(&lab, &Asked::Faults),
        Verb::Test { only, .. } if only.is_empty() => checks::test(&lab, &Asked::Usual),
        Verb::Test { only, .. } => checks::test(&lab, &Asked::Named(only)),
    }
}

/// Stops all machines. The networks are in the namespace, and go with it.
fn down(lab: &Lab) -> Result<()> {
    machine::stop_all(lab)?;
    if Path::new("/run/netns").join(NAMESPACE).exists() {
        support::command::run(Duration::from_secs(20), "ip", &["netns", "delete", NAMESPACE])?;
    }
    Ok(())
}
