//! The plugs: a daemon on the management network whose relays are the machines' power. `fence_lab` speaks to it, a line
//! for each request: `off NAME`, `on NAME`, `status NAME`; the answer is `on`, `off` or `error …`.

use crate::command::{await_until, run};
use crate::machine::{self, Machine};
use crate::net::{HOST, NAMESPACE};
use crate::state::Lab;
use anyhow::{Context, Result, bail};
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const PORT: u16 = 9999;
/// A client that says nothing is let go.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the plugs did: a line for each change, with the time since 1970 in seconds.
pub(crate) fn log(lab: &Lab) -> PathBuf {
    lab.file("plugs.log")
}

fn pid_file(lab: &Lab) -> PathBuf {
    lab.file("plugs.pid")
}

/// What is wrong with a plug.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    /// It never switches on again.
    StaysOff,
    /// It says that it has switched, and does nothing.
    Lies,
}

fn fault_file(lab: &Lab, machine: &Machine, fault: Fault) -> PathBuf {
    let name = match fault {
        Fault::StaysOff => "stays-off",
        Fault::Lies => "lies",
    };
    lab.file(&format!("{}.{name}", machine.name))
}

/// Breaks the plug of a machine.
pub(crate) fn damage(lab: &Lab, machine: &Machine, fault: Fault) -> Result<()> {
    fs::write(fault_file(lab, machine, fault), "on").context("cannot break a plug")
}

/// Mends it.
pub(crate) fn mend(lab: &Lab, machine: &Machine, fault: Fault) -> Result<()> {
    fs::remove_file(fault_file(lab, machine, fault)).context("cannot mend a plug")
}

/// Starts the daemon, in the lab's network namespace.
pub(crate) fn start(lab: &Lab) -> Result<()> {
    stop(lab);
    let errors = OpenOptions::new().create(true).append(true).open(lab.file("plugs.err"))?;
    let this = std::env::current_exe()?;
    let child = Command::new("setsid")
        .args(["ip", "netns", "exec", NAMESPACE])
        .arg(this)
        .args(["plugd", "--release", &lab.release])
        .stdin(Stdio::null())
        .stdout(errors.try_clone()?)
        .stderr(errors)
        .spawn()
        .context("cannot start the plugs")?;
    // `setsid` and `ip` become the daemon without a new process.
    fs::write(pid_file(lab), child.id().to_string())?;
    await_until("the plugs answer", Duration::from_secs(20), || {
        let script =
            format!("exec 3<>/dev/tcp/{HOST}/{PORT} && echo status storage-a >&3 && cat <&3");
        let words = ["netns", "exec", NAMESPACE, "bash", "-c", &script];
        run(Duration::from_secs(5), "ip", &words).map(|_| ()).map_err(|error| error.to_string())
    })
}

/// Stops the daemon.
pub(crate) fn stop(lab: &Lab) {
    machine::kill_by_file(&pid_file(lab));
}

/// The daemon.
pub(crate) fn serve(lab: &Lab) -> Result<()> {
    let listener = TcpListener::bind((HOST, PORT)).context("cannot listen for the plugs")?;
    std::thread::scope(|scope| {
        for stream in listener.incoming().flatten() {
            scope.spawn(move || {
                if let Err(error) = converse(lab, stream) {
                    eprintln!("{error:#}");
                }
            });
        }
    });
    Ok(())
}

fn converse(lab: &Lab, mut stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream.try_clone()?).read_line(&mut line)?;
    let answer = match switch(lab, line.trim()) {
        Ok(has_power) => if has_power { "on" } else { "off" }.to_string(),
        Err(error) => format!("error {error:#}"),
    };
    writeln!(stream, "{answer}")?;
    Ok(())
}

/// Does one request; returns whether the machine has power afterwards.
fn switch(lab: &Lab, request: &str) -> Result<bool> {
    let (verb, name) = request.split_once(' ').context("a request is a verb and a machine")?;
    let machine = Machine::named(name)?;
    let lie = fault_file(lab, machine, Fault::Lies);
    if lie.exists() {
        if verb != "status" {
            fs::write(&lie, verb)?;
        }
        return Ok(fs::read_to_string(&lie)? == "on");
    }
    match verb {
        "status" => return Ok(machine.has_power(lab)),
        "off" => machine::kill(lab, machine)?,
        "on" if fault_file(lab, machine, Fault::StaysOff).exists() => bail!("{name} stays off"),
        "on" => machine::boot(lab, machine)?,
        _ => bail!("the verb {verb:?} is unknown"),
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
    let mut log = OpenOptions::new().create(true).append(true).open(log(lab))?;
    writeln!(log, "{since:.3} {verb} {name}")?;
    Ok(machine.has_power(lab))
}
