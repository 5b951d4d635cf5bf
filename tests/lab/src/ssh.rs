//! Commands in the machines, over the management network.

use crate::machine::{MACHINES, Machine};
use crate::net::NAMESPACE;
use crate::state::Lab;
use crate::{image, timers};
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use support::command::{await_until, checked, timed};

/// Time to open a connection.
const CONNECT: Duration = Duration::from_secs(60);

/// Runs a shell command that must succeed; returns what it printed.
pub(crate) fn run(lab: &Lab, machine: &Machine, command: &str) -> Result<String> {
    within(lab, machine, timers::SSH, command)
}

/// The same with another deadline.
pub(crate) fn within(
    lab: &Lab,
    machine: &Machine,
    deadline: Duration,
    command: &str,
) -> Result<String> {
    connect(lab, machine)?;
    let output = timed(deadline, "ip", &as_str(&arguments(lab, machine, &[command])?)).output()?;
    checked(output, || format!("{}: {command}", machine.name))
}

/// Writes a file in a machine.
pub(crate) fn put(lab: &Lab, machine: &Machine, path: &str, bytes: &[u8]) -> Result<()> {
    feed(lab, machine, &format!("mkdir -p $(dirname {path}) && cat > {path}"), bytes)
}

/// Runs a shell command with bytes on its standard input.
pub(crate) fn feed(lab: &Lab, machine: &Machine, command: &str, bytes: &[u8]) -> Result<()> {
    connect(lab, machine)?;
    let arguments = arguments(lab, machine, &[command])?;
    let mut child = timed(timers::SSH, "ip", &as_str(&arguments))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("stdin is piped")?.write_all(bytes)?;
    checked(child.wait_with_output()?, || format!("{}: {command}", machine.name)).map(|_| ())
}

/// A command in a machine whose streams the caller handles.
pub(crate) fn command(lab: &Lab, machine: &Machine, command: &str) -> Result<Command> {
    connect(lab, machine)?;
    let mut child = Command::new("ip");
    child.args(arguments(lab, machine, &[command])?);
    Ok(child)
}

/// Hands the terminal to a machine; returns the exit code.
pub(crate) fn interactive(lab: &Lab, machine: &Machine, words: &[String]) -> Result<i32> {
    let status = Command::new("ip").args(arguments(lab, machine, &as_str(words))?).status()?;
    Ok(status.code().unwrap_or(1))
}

/// Waits until all machines answer.
pub(crate) fn await_all(lab: &Lab) -> Result<()> {
    for machine in &MACHINES {
        await_one(lab, machine)?;
    }
    Ok(())
}

/// Waits until a machine answers.
pub(crate) fn await_one(lab: &Lab, machine: &Machine) -> Result<()> {
    await_until(&format!("{} answers by ssh", machine.name), timers::BOOT, || {
        within(lab, machine, Duration::from_secs(15), "true").map(|_| ())
    })
}

/// Opens the connection that the commands share. It is made without our streams, because it would hold them open.
fn connect(lab: &Lab, machine: &Machine) -> Result<()> {
    if socket(lab, machine).exists() {
        return Ok(());
    }
    let mut words = arguments(lab, machine, &[])?;
    words.extend(["-M", "-N", "-f"].map(str::to_string));
    // sshd of OpenSSH 9.8 turns an address away for a while after connections that were given up during a boot.
    await_until(&format!("{} takes a connection", machine.name), CONNECT, || {
        let status = timed(CONNECT, "ip", &as_str(&words))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        match status {
            Ok(status) if status.success() => Ok(()),
            other => bail!("{other:?}"),
        }
    })
}

/// Forgets the open connection to a machine that has died.
pub(crate) fn forget(lab: &Lab, machine: &Machine) {
    // There may be none.
    let _ = fs::remove_file(socket(lab, machine));
}

fn socket(lab: &Lab, machine: &Machine) -> PathBuf {
    lab.file(&format!("ssh-{}", machine.name))
}

fn arguments(lab: &Lab, machine: &Machine, words: &[&str]) -> Result<Vec<String>> {
    let key = image::folder(lab)?.join("key").display().to_string();
    let path = format!("ControlPath={}", socket(lab, machine).display());
    let address = format!("root@10.20.20.{}", machine.id);
    let mut arguments = vec!["netns", "exec", NAMESPACE, "ssh", "-q", "-i", &key];
    for option in [
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "ConnectTimeout=10",
        "ServerAliveInterval=10",
        "ServerAliveCountMax=30",
        &path,
    ] {
        arguments.extend(["-o", option]);
    }
    arguments.push(&address);
    arguments.extend(words);
    Ok(arguments.into_iter().map(str::to_string).collect())
}

fn as_str(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}
