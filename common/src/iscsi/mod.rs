//! Sessions of the iSCSI initiator. Read from sysfs; changed by `iscsiadm`, one target at a time.

mod record;

use crate::chap::Credentials;
use crate::legs;
use crate::machine::Machine;
use crate::ocf::Fault;
use std::path::{Path, PathBuf};

const SESSIONS: &str = "/sys/class/iscsi_session";
const CONNECTIONS: &str = "/sys/class/iscsi_connection";

/// A session of this node's initiator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Name in sysfs, such as `session3`. Not stable: a login that fails takes a number too.
    pub name: String,
    /// The target's name.
    pub target: String,
    /// What the kernel says of it.
    pub state: SessionState,
    /// Seconds until a lost session's disks fail their I/O.
    pub recovery_timeout: String,
    /// Seconds of silence after which it is asked for a sign of life, and seconds that one may take; empty while it has no
    /// connection.
    pub noop: [String; 2],
    /// The disks that came with it.
    pub disks: Vec<Disk>,
}

/// States of a session (`drivers/scsi/scsi_transport_iscsi.c`, `iscsi_session_state_names`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// It works.
    LoggedIn,
    /// The connection is lost; I/O waits for the recovery timeout.
    Failed,
    /// The recovery timeout has passed; I/O fails. Login goes on being tried.
    Free,
}

/// A disk of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Kernel name, such as `sdb`.
    pub block: String,
    /// Device number, `MAJOR:MINOR`.
    pub numbers: String,
    /// Its serial (VPD page 80).
    pub serial: String,
    /// Its size in sectors of 512 bytes, as the kernel last read it.
    pub sectors: u64,
    /// Whether the kernel sends I/O to it (`running`); otherwise I/O waits or fails.
    pub state: DiskState,
}

/// States of a SCSI device (`drivers/scsi/scsi_sysfs.c`, `sdev_states`) as far as they matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskState {
    /// I/O goes through.
    Running,
    /// I/O waits: the session may come back.
    Blocked,
    /// I/O fails.
    Lost,
}

/// The sessions with a target.
pub fn observe(machine: &Machine, target: &str) -> Result<Vec<Session>, Fault> {
    let mut sessions = Vec::new();
    for name in machine.list(Path::new(SESSIONS))?.unwrap_or_default() {
        let folder = Path::new(SESSIONS).join(&name);
        // A session that is being torn down loses its attributes first: then it is not there.
        let Some(its_target) = machine.read_vanishing(&folder.join("targetname"))? else {
            continue;
        };
        if its_target != target {
            continue;
        }
        let Some(state) = machine.read_vanishing(&folder.join("state"))? else { continue };
        let state = session_state(&state)
            .ok_or_else(|| Fault::generic(format!("{name} has the unknown state {state:?}")))?;
        let recovery_timeout =
            machine.read_vanishing(&folder.join("recovery_tmo"))?.unwrap_or_default();
        let noop = noop(machine, &name)?;
        let disks = disks(machine, &folder.join("device"))?;
        sessions.push(Session { name, target: its_target, state, recovery_timeout, noop, disks });
    }
    Ok(sessions)
}

/// Of its first connection, the only one that open-iscsi makes.
fn noop(machine: &Machine, session: &str) -> Result<[String; 2], Fault> {
    let connection = session.replace("session", "connection");
    let folder = Path::new(CONNECTIONS).join(format!("{connection}:0"));
    let read =
        |name: &str| machine.read_vanishing(&folder.join(name)).map(Option::unwrap_or_default);
    Ok([read("recv_tmo")?, read("ping_tmo")?])
}

fn session_state(text: &str) -> Option<SessionState> {
    match text {
        "LOGGED_IN" => Some(SessionState::LoggedIn),
        "FAILED" => Some(SessionState::Failed),
        "FREE" => Some(SessionState::Free),
        _ => None,
    }
}

/// Disks lie at targetH:C:T/H:C:T:L/block/sdX below the session's device.
fn disks(machine: &Machine, session: &Path) -> Result<Vec<Disk>, Fault> {
    let mut disks = Vec::new();
    for target in machine.list(session)?.unwrap_or_default() {
        if !target.starts_with("target") {
            continue;
        }
        for lun in machine.list(&session.join(&target))?.unwrap_or_default() {
            let device = session.join(&target).join(&lun);
            disks.extend(disk(machine, &device)?);
        }
    }
    Ok(disks)
}

/// `None` while the disk comes or goes: then its attributes are not all there.
fn disk(machine: &Machine, device: &Path) -> Result<Option<Disk>, Fault> {
    let Some(blocks) = machine.list(&device.join("block"))? else { return Ok(None) };
    let Some(block) = blocks.into_iter().next() else { return Ok(None) };
    let folder: PathBuf = device.join("block").join(&block);
    let (Some(numbers), Some(sectors), Some(page), Some(state)) = (
        machine.read_vanishing(&folder.join("dev"))?,
        legs::sectors(machine, &folder)?,
        machine.read_vanishing_bytes(&device.join("vpd_pg80"))?,
        machine.read_vanishing(&device.join("state"))?,
    ) else {
        return Ok(None);
    };
    let state = match state.as_str() {
        "running" => DiskState::Running,
        "blocked" | "created-blocked" | "quiesce" => DiskState::Blocked,
        _ => DiskState::Lost,
    };
    Ok(Some(Disk { block, numbers, serial: serial(&page), sectors, state }))
}

/// The disk as it is now: the kernel reads size and serial anew. By itself it does so only for a disk that it does not know
/// yet, and one whose session came back may be another one behind the same number. `None` if it has gone.
pub fn reread(machine: &Machine, known: &Disk) -> Result<Option<Disk>, Fault> {
    let device = Path::new("/sys/class/block").join(&known.block).join("device");
    machine.write_attribute(&device.join("rescan"), "1")?;
    disk(machine, &device)
}

/// Has the kernel ask the target for LUNs that it does not know yet. By itself it does so at a login only.
pub fn scan(machine: &Machine, session: &str) -> Result<(), Fault> {
    let number = session.trim_start_matches("session");
    machine.run("iscsiadm", &["-m", "session", "-r", number, "--rescan"]).map(|_| ())
}

/// The text of a VPD page 80: four bytes of header, then the serial (SPC-4 section 7.8.19).
fn serial(page: &[u8]) -> String {
    let text = page.get(4..).unwrap_or_default();
    String::from_utf8_lossy(text).trim_matches(['\0', ' ']).to_string()
}

/// Timeouts of a backend session, seconds: a leg that is lost is known to be lost after about 4 s
/// (ping 2 s, answer 2 s), and its disk fails 5 s later.
pub const RECOVERY_TIMEOUT: &str = "5";
/// The same of a sign of life: after so much silence, and within so much.
pub const NOOP: [&str; 2] = ["2", "2"];
const SETTINGS: [(&str, &str); 6] = [
    // The watch logs in itself; the distribution's own login at boot would race with it.
    ("node.startup", "manual"),
    ("node.session.timeo.replacement_timeout", RECOVERY_TIMEOUT),
    ("node.conn[0].timeo.noop_out_interval", NOOP[0]),
    ("node.conn[0].timeo.noop_out_timeout", NOOP[1]),
    ("node.conn[0].timeo.login_timeout", "10"),
    ("node.session.initial_login_retry_max", "1"),
];
/// iscsiadm(8): ISCSI_ERR_SESS_EXISTS, "session is logged in".
const SESSION_EXISTS: i32 = 15;

/// Logs in to one target: its record first, so that no discovery is needed.
pub fn login(
    machine: &Machine,
    target: &str,
    portal: &str,
    credentials: Option<&Credentials>,
) -> Result<(), Fault> {
    let node = ["-m", "node", "-T", target, "-p", portal];
    let with = |more: &[&'static str]| [&node[..], more].concat();
    machine.run("iscsiadm", &with(&["-o", "new"]))?;
    for (name, value) in SETTINGS {
        machine.run("iscsiadm", &with(&["-o", "update", "-n", name, "-v", value]))?;
    }
    record::set_credentials(machine, target, portal, credentials)?;
    let arguments = with(&["--login"]);
    let answer = machine.ask("iscsiadm", &arguments)?;
    match answer.code {
        Some(0 | SESSION_EXISTS) => Ok(()),
        _ => {
            let said = why_refused(&answer.stderr);
            Err(Fault::generic(format!("cannot log in to {target} at {portal}: {said}")))
        }
    }
}

/// Why iscsiadm could not log in. Its first line says only that; the one with the initiator's error (iscsiadm(8), EXIT STATUS) why.
fn why_refused(stderr: &str) -> String {
    let reported = stderr.lines().find(|line| line.contains("initiator reported error"));
    let said = reported.or(stderr.lines().next()).unwrap_or_default();
    if said.contains("(24 ") {
        let hint = "the name in /etc/iscsi/initiatorname.iscsi or the passwords are not what it expects, or it shuts this node out";
        return format!("{said}: {hint}");
    }
    said.to_string()
}

/// Sets the effective recovery timeout of a session; the record alone changes nothing that runs.
pub fn set_recovery_timeout(machine: &Machine, session: &str) -> Result<(), Fault> {
    let path = Path::new(SESSIONS).join(session).join("recovery_tmo");
    machine.write_attribute(&path, RECOVERY_TIMEOUT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_login_says_why() {
        let two = "iscsiadm: Could not login to [iface: default, target: x, portal: 10.0.0.1,3260].\n\
                   iscsiadm: initiator reported error (24 - iSCSI login failed due to authorization failure)\n\
                   iscsiadm: Could not log into all portals\n";
        let said = why_refused(two);
        assert!(said.starts_with("iscsiadm: initiator reported error (24 - "), "{said}");
        assert!(said.contains("initiatorname.iscsi"), "{said}");
        let other = two.replace("(24 -", "(8 -");
        assert!(
            why_refused(&other).contains("(8 -") && !why_refused(&other).contains("initiatorname")
        );
        assert_eq!(why_refused("iscsiadm: no such thing\n"), "iscsiadm: no such thing");
        assert_eq!(why_refused(""), "");
    }

    #[test]
    fn the_serial_is_behind_the_header_without_padding() {
        for (page, want) in [
            (&b"\0\x80\0\x07data-a1"[..], "data-a1"),
            (&b"\0\x80\0\x09data-a1 \0"[..], "data-a1"),
            (&b"\0\x80"[..], ""),
        ] {
            assert_eq!(serial(page), want);
        }
    }
}
