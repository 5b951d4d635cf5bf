//! The plugs: a daemon on the management network whose relays are the machines' power. Each node has one, the storage nodes of
//! a family of their own, with a second one behind it, which always obeys. Each has an address of its own.

mod kasa;
mod tasmota;

use crate::machine::{self, MACHINES, Machine};
use crate::net::NAMESPACE;
use crate::ssh;
use crate::state::Lab;
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use support::command::{await_until, run};

/// A plug.
struct Plug {
    /// The machine that it feeds.
    machine: &'static str,
    address: &'static str,
    port: u16,
    converse: fn(&Lab, &Plug, TcpStream) -> Result<()>,
    /// Whether it stands behind another one, and has none of that one's faults.
    is_second: bool,
}

/// All of them; cluster.vars names the first of each machine.
const PLUGS: [Plug; 5] = [
    plug("storage-a", "10.20.20.251", 80, tasmota::converse, false),
    plug("storage-b", "10.20.20.252", 9999, kasa::converse, false),
    plug("quorum-c", "10.20.20.248", 9999, kasa::converse, false),
    plug("storage-a", "10.20.20.249", 9999, kasa::converse, true),
    plug("storage-b", "10.20.20.250", 9999, kasa::converse, true),
];

const fn plug(
    machine: &'static str,
    address: &'static str,
    port: u16,
    converse: fn(&Lab, &Plug, TcpStream) -> Result<()>,
    is_second: bool,
) -> Plug {
    Plug { machine, address, port, converse, is_second }
}
/// The password of those that have one.
pub(crate) const PASSWORD: &str = "lab";
/// A client that says nothing is let go.
const PATIENCE: Duration = Duration::from_secs(10);

/// The addresses of all plugs.
pub(crate) fn addresses() -> impl Iterator<Item = &'static str> {
    PLUGS.iter().map(|plug| plug.address)
}

/// The address of a machine's second plug.
pub(crate) fn second(machine: &Machine) -> Result<&'static str> {
    let found = PLUGS.iter().find(|plug| plug.is_second && plug.machine == machine.name);
    found.map(|plug| plug.address).with_context(|| format!("{} has no second plug", machine.name))
}

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
    /// It takes each command, does nothing, and says so.
    Stuck,
    /// It has no power itself, and answers nobody.
    Dark,
}

fn fault_file(lab: &Lab, machine: &Machine, fault: Fault) -> PathBuf {
    let name = match fault {
        Fault::StaysOff => "stays-off",
        Fault::Lies => "lies",
        Fault::Stuck => "stuck",
        Fault::Dark => "dark",
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
        PLUGS.iter().try_for_each(|Plug { address, port, .. }| {
            let script = format!("exec 3<>/dev/tcp/{address}/{port}");
            let words = ["netns", "exec", NAMESPACE, "bash", "-c", &script];
            run(Duration::from_secs(5), "ip", &words).map(|_| ())
        })
    })
}

/// Stops the daemon.
pub(crate) fn stop(lab: &Lab) {
    machine::kill_by_file(&pid_file(lab));
}

/// The daemon.
pub(crate) fn serve(lab: &Lab) -> Result<()> {
    let mut listeners = Vec::new();
    for plug in &PLUGS {
        let listener = TcpListener::bind((plug.address, plug.port))
            .with_context(|| format!("cannot listen for the plug of {}", plug.machine))?;
        listeners.push((plug, listener));
    }
    std::thread::scope(|scope| {
        for (plug, listener) in &listeners {
            scope.spawn(move || {
                // One after the other, as small devices do.
                for stream in listener.incoming().flatten() {
                    if Machine::named(plug.machine).is_ok_and(|of| has(lab, plug, of, Fault::Dark))
                    {
                        continue;
                    }
                    let is_set = stream.set_read_timeout(Some(PATIENCE)).map_err(Into::into);
                    if let Err(error) = is_set.and_then(|()| (plug.converse)(lab, plug, stream)) {
                        eprintln!("{}: {error:#}", plug.machine);
                    }
                }
            });
        }
    });
    Ok(())
}

fn has(lab: &Lab, plug: &Plug, machine: &Machine, fault: Fault) -> bool {
    !plug.is_second && fault_file(lab, machine, fault).exists()
}

/// A person pulls the cord of a machine, and of its plug.
pub(crate) fn pull_cord(lab: &Lab, machine: &Machine) -> Result<()> {
    damage(lab, machine, Fault::Dark)?;
    machine::kill(lab, machine)?;
    note(lab, &format!("off {}", machine.name))
}

/// Whether the relay says that it is on.
fn is_on(lab: &Lab, plug: &Plug) -> Result<bool> {
    let machine = Machine::named(plug.machine)?;
    let lie = fault_file(lab, machine, Fault::Lies);
    if !plug.is_second && lie.exists() {
        return Ok(fs::read_to_string(&lie)? == "on");
    }
    Ok(machine.has_power(lab))
}

/// Switches the relay, and with it the machine.
fn switch(lab: &Lab, plug: &Plug, on: bool) -> Result<()> {
    let machine = Machine::named(plug.machine)?;
    let verb = if on { "on" } else { "off" };
    let has = |fault| has(lab, plug, machine, fault);
    if has(Fault::Stuck) {
        return Ok(());
    }
    if has(Fault::Lies) {
        fs::write(fault_file(lab, machine, Fault::Lies), verb)?;
        return note(lab, &format!("pretends {verb} {}", machine.name));
    }
    if on && has(Fault::StaysOff) {
        bail!("it stays off");
    }
    if on {
        machine::boot(lab, machine)?
    } else {
        machine::kill(lab, machine)?
    }
    note(lab, &format!("{verb} {}", machine.name))
}

fn note(lab: &Lab, what: &str) -> Result<()> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
    let mut log = OpenOptions::new().create(true).append(true).open(log(lab))?;
    writeln!(log, "{since:.3} {what}")?;
    Ok(())
}

/// Each fencing that Pacemaker takes for done cut the power of its node, whose QEMU has ended when its plug answers. A plug
/// that lies on purpose is no fault of the agent.
pub(crate) fn check_fencings(lab: &Lab) -> Result<()> {
    // stonith_admin --history would show the last one alone.
    let ask = "crm_mon --one-shot --output-as=xml";
    let history = ssh::run(lab, Machine::named("quorum-c")?, ask)?;
    let log = fs::read_to_string(log(lab)).unwrap_or_default();
    for node in &MACHINES[..3] {
        let (done, cut) = compare(node.name, &history, &log)?;
        println!("{}: {done} fencings, its power was cut {cut} times", node.name);
    }
    Ok(())
}

/// Two fencings that are this close together are one: a node that was fenced takes longer to boot.
const SAME: Duration = Duration::from_secs(10);

/// How often a node was fenced, and how often its power was cut, which must be as often at least.
fn compare(node: &str, history: &str, log: &str) -> Result<(usize, usize)> {
    let (target, on) = (format!("target=\"{node}\""), "action=\"on\"");
    let is_done = |line: &&str| {
        line.contains(&target) && line.contains("status=\"success\"") && !line.contains(on)
    };
    let mut times: Vec<SystemTime> =
        history.lines().filter(is_done).map(completed).collect::<Result<_>>()?;
    times.sort_unstable();
    // Two nodes that ask for the same fencing make two events of it.
    times.dedup_by(|later, earlier| *later < *earlier + SAME);
    let done = times.len();
    let off = format!("off {node}");
    let cut = log.lines().filter(|line| line.ends_with(&off)).count();
    ensure!(done <= cut, "{done} fencings of {node}, whose plugs did this:\n{log}\n{history}");
    Ok((done, cut))
}

/// When a fencing was done: crm_mon writes UTC in the lab's machines.
fn completed(event: &str) -> Result<SystemTime> {
    let rest = event.split("completed=\"").nth(1).unwrap_or_default();
    let time = rest.split('"').next().unwrap_or_default();
    humantime::parse_rfc3339_weak(time)
        .with_context(|| format!("a fencing without its time: {event}"))
}

#[cfg(test)]
mod tests {
    use super::compare;

    #[test]
    fn a_fencing_without_a_cut_is_found() {
        let event = |node: &str, action: &str, status: &str, time: &str| {
            format!(
                "<fence_event target=\"{node}\" action=\"{action}\" status=\"{status}\" \
                 completed=\"2026-11-23 {time}.123456Z\"/>\n"
            )
        };
        let history = event("a", "reboot", "success", "09:59:58")
            + &event("a", "reboot", "success", "10:00:01")
            + &event("a", "on", "success", "10:03:00")
            + &event("a", "reboot", "failed", "10:05:00")
            + &event("b", "reboot", "success", "10:06:00");
        let log = "1 off a\n2 on a\n";
        assert_eq!(compare("a", &history, log).unwrap(), (1, 1));
        assert_eq!(compare("c", &history, log).unwrap(), (0, 0));
        assert!(compare("b", &history, log).is_err());
        let again = history + &event("a", "off", "success", "10:10:00");
        assert!(compare("a", &again, log).is_err());
        assert_eq!(compare("a", &again, "1 off a\n2 on a\n3 off a\n").unwrap(), (2, 2));
        assert!(compare("a", &event("a", "off", "success", "now"), log).is_err());
    }
}
