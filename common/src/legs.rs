//! Legs: the halves of the mirrors, and the device-mapper maps that stand for them.
//!
//! Both nodes know a leg by one name. On its own node a linear map of that name lies over the local
//! disk for ZFS, and a second one beside it for the backend target, because LIO and ZFS each claim a
//! device for themselves alone. On the peer a multipath map of that name lies over the LUN.

use crate::iscsi::{Disk, DiskState, Session};
use crate::machine::Machine;
use crate::names;
use crate::ocf::Fault;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Has a file for each leg that was let go by another program than the watch.
const LET_GO: &str = "/run/hasan/let-go";
const LOCK: &str = "/run/hasan/let-go.lock";

/// The name of a leg, unique in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leg(String);

impl Leg {
    /// Checks the name.
    ///
    /// # Errors
    /// What is wrong with it: a GPT part label of letters, digits, `-`, `_` and `.` is right.
    pub fn new(name: &str) -> Result<Leg, String> {
        names::plain(name).map_err(|wrong| format!("{name:?} {wrong}"))?;
        Ok(Leg(name.to_string()))
    }

    /// The name itself.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// The device of the leg, the same on both nodes.
    pub fn device(&self) -> PathBuf {
        Path::new("/dev/mapper").join(&self.0)
    }

    /// The map beside it that the backend target exports.
    pub fn export_name(&self) -> String {
        format!("{}-export", self.0)
    }

    /// The device of that map.
    pub fn export_device(&self) -> PathBuf {
        Path::new("/dev/mapper").join(self.export_name())
    }

    /// The serial of the LUN that carries the leg: 32 hexadecimal digits of a digest, of which LIO
    /// makes the NAA from the first 25 (`target_core_spc.c`, `spc_gen_naa_6h_vendor_specific`), so
    /// that legs with like names differ there; then the name, by which the peer tells the leg.
    pub fn serial(&self) -> String {
        let digest = Sha256::digest(format!("hasan leg {}", self.0));
        let digits: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        format!("{digits}-{}", self.0)
    }

    /// The leg that a LUN with this serial carries; `None` if it is not one of ours.
    pub fn of_serial(serial: &str) -> Option<Leg> {
        let leg = Leg::new(serial.get(33..)?).ok()?;
        (leg.serial() == serial).then_some(leg)
    }
}

impl fmt::Display for Leg {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// What a map of ours is for; kept in the map's UUID, which the kernel holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Linear, over the local disk, for ZFS.
    Local,
    /// Linear, over the local disk, for the backend target.
    Export,
    /// Multipath, over the LUN from the peer, for ZFS.
    Remote,
}

impl Role {
    fn prefix(self) -> &'static str {
        match self {
            Role::Local => "HASAN-local-",
            Role::Export => "HASAN-export-",
            Role::Remote => "HASAN-remote-",
        }
    }
}

/// A map of ours, as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// The leg that it stands for.
    pub leg: Leg,
    /// What it is for.
    pub role: Role,
    /// The block devices below it, by kernel name (`vdb`, `sdc`).
    pub slaves: BTreeSet<String>,
    /// Its size in sectors of 512 bytes.
    pub sectors: u64,
    /// Its I/O.
    pub io: Io,
}

/// How far a device is with its I/O.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Io {
    /// Requests that are done, since the device was made.
    pub done: u64,
    /// Requests that are under way, or wait.
    pub waiting: u64,
}

impl Map {
    /// Whether all of the map has room on the disk.
    pub fn fits(&self, disk: &Disk) -> bool {
        self.sectors <= disk.sectors
    }
}

/// All maps of ours on this machine, from /sys/block/dm-*.
pub fn observe(machine: &Machine) -> Result<Vec<Map>, Fault> {
    let mut maps = Vec::new();
    for block in machine.list(Path::new("/sys/block"))?.unwrap_or_default() {
        if !block.starts_with("dm-") {
            continue;
        }
        let folder = Path::new("/sys/block").join(&block);
        // A map that is being removed loses its attributes first: then it is not there.
        let (Some(uuid), Some(sectors), Some(stat)) = (
            machine.read_vanishing(&folder.join("dm/uuid"))?,
            sectors(machine, &folder)?,
            machine.read_vanishing(&folder.join("stat"))?,
        ) else {
            continue;
        };
        let role = [Role::Local, Role::Export, Role::Remote]
            .into_iter()
            .find(|role| uuid.starts_with(role.prefix()));
        let Some(role) = role else { continue };
        let leg = Leg::new(uuid.trim_start_matches(role.prefix()))
            .map_err(|wrong| Fault::generic(format!("cannot read the map {uuid:?}: {wrong}")))?;
        let slaves = machine.list(&folder.join("slaves"))?.unwrap_or_default();
        maps.push(Map { leg, role, slaves, sectors, io: io(&stat)? });
    }
    maps.sort_by(|a, b| (&a.leg, a.role).cmp(&(&b.leg, b.role)));
    Ok(maps)
}

/// Reads, writes, discards and flushes that are done, and all that are in flight (`Documentation/block/stat.rst`).
fn io(stat: &str) -> Result<Io, Fault> {
    let strange = || Fault::generic(format!("{stat:?} is not the statistics of a block device"));
    let numbers: Result<Vec<u64>, _> = stat.split_whitespace().map(str::parse).collect();
    let numbers = numbers.map_err(|_| strange())?;
    let [reads, _, _, _, writes, _, _, _, waiting, _, _, rest @ ..] = numbers.as_slice() else {
        return Err(strange());
    };
    // Each group came with a kernel of its own.
    let [discards, flushes] = [0, 4].map(|at| rest.get(at).copied().unwrap_or_default());
    Ok(Io { done: reads + writes + discards + flushes, waiting: *waiting })
}

/// The maps for ZFS whose I/O goes through now: the local ones, and the remote ones with a path to a
/// disk that takes I/O. The others' I/O waits or fails.
pub fn answering<'a>(maps: &'a [Map], sessions: &[Session]) -> Vec<&'a Map> {
    let disks = || sessions.iter().flat_map(|session| &session.disks);
    let answers = |map: &&Map| match map.role {
        Role::Local => true,
        Role::Remote => disks().any(|disk| {
            disk.state == DiskState::Running && map.fits(disk) && map.slaves.contains(&disk.block)
        }),
        Role::Export => false,
    };
    maps.iter().filter(answers).collect()
}

/// Size of a block device in sectors of 512 bytes, by its folder in sysfs; `None` if it is not there.
///
/// # Errors
/// The kernel tells no number.
pub fn sectors(machine: &Machine, folder: &Path) -> Result<Option<u64>, Fault> {
    let path = folder.join("size");
    let Some(text) = machine.read_vanishing(&path)? else { return Ok(None) };
    text.parse().map(Some).map_err(|_| {
        Fault::generic(format!("cannot read {}: {text:?} is not a size", path.display()))
    })
}

/// Makes a linear map over the whole of a device.
pub fn make_linear(
    machine: &Machine,
    leg: &Leg,
    role: Role,
    device: &Path,
    sectors: u64,
) -> Result<(), Fault> {
    let table = format!("0 {sectors} linear {} 0", device.display());
    let name = match role {
        Role::Export => leg.export_name(),
        Role::Local | Role::Remote => leg.name().to_string(),
    };
    create(machine, &name, &format!("{}{leg}", role.prefix()), &table)
}

/// Makes the map of a remote leg over one path: while the path is lost, its I/O waits.
pub fn make_remote(machine: &Machine, leg: &Leg, block: &str, sectors: u64) -> Result<(), Fault> {
    let uuid = format!("{}{leg}", Role::Remote.prefix());
    let _lock = take_up(machine, leg)?;
    create(machine, leg.name(), &uuid, &remote_table(block, sectors))
}

fn create(machine: &Machine, name: &str, uuid: &str, table: &str) -> Result<(), Fault> {
    machine.run("dmsetup", &["create", name, "--uuid", uuid, "--table", table]).map(|_| ())
}

/// dm-multipath, its three features, no handler, one group of one path (kernel documentation,
/// `admin-guide/device-mapper`; `queue_mode bio` so that it needs no request queue below).
fn remote_table(block: &str, sectors: u64) -> String {
    let features = "3 queue_if_no_path queue_mode bio";
    format!("0 {sectors} multipath {features} 0 1 1 round-robin 0 1 1 /dev/{block} 1")
}

/// Puts another path under the map of a remote leg. I/O that waits in the map goes on there.
pub fn exchange_path(machine: &Machine, leg: &Leg, block: &str, sectors: u64) -> Result<(), Fault> {
    let _lock = take_up(machine, leg)?;
    machine.run("dmsetup", &["load", leg.name(), "--table", &remote_table(block, sectors)])?;
    machine.run("dmsetup", &["suspend", "--noflush", "--nolockfs", leg.name()])?;
    machine.run("dmsetup", &["resume", leg.name()]).map(|_| ())
}

/// Takes a path that came back into use again, and lets I/O wait again when it is lost.
pub fn reinstate_path(machine: &Machine, leg: &Leg, numbers: &str) -> Result<(), Fault> {
    let _lock = take_up(machine, leg)?;
    message(machine, leg, &format!("reinstate_path {numbers}"))?;
    let_wait(machine, leg)
}

/// Sends no I/O by a path any more: it waits.
pub fn fail_path(machine: &Machine, leg: &Leg, numbers: &str) -> Result<(), Fault> {
    message(machine, leg, &format!("fail_path {numbers}"))
}

/// Lets the I/O of a leg fail from now on when it has no path, and tells the watch so: a path that has come back meanwhile would
/// stay in use, and the next time it is lost nothing would wait for the mark.
pub fn let_go(machine: &Machine, leg: &Leg) -> Result<(), Fault> {
    let _lock = lock(machine)?;
    machine.replace_file(&Path::new(LET_GO).join(leg.name()), "")?;
    fail_if_no_path(machine, leg)
}

/// The legs that were let go, and that the watch has not taken into use again since.
pub fn are_let_go(machine: &Machine) -> Result<BTreeSet<Leg>, Fault> {
    let names = machine.list(Path::new(LET_GO))?.unwrap_or_default();
    Ok(names.iter().filter_map(|name| Leg::new(name).ok()).collect())
}

/// From now on the leg is not one that was let go: its I/O waits again when its path is lost. The lock is held until that is so.
fn take_up(machine: &Machine, leg: &Leg) -> Result<File, Fault> {
    let lock = lock(machine)?;
    machine.remove_file(&Path::new(LET_GO).join(leg.name()))?;
    Ok(lock)
}

/// So that of two programs the later one has the last word, in the kernel and in the file.
fn lock(machine: &Machine) -> Result<File, Fault> {
    let lock = machine.await_lock(Path::new(LOCK), machine.time_left())?;
    lock.ok_or_else(|| Fault::generic(format!("another program of hasan holds {LOCK}")))
}

/// Lets the I/O of a leg without a path fail, so that ZFS goes on without the leg. A map takes no message while it is suspended
/// (`dm-mpath.c`, `multipath_message`), as an exchange of its path that was cut off leaves it.
pub fn fail_if_no_path(machine: &Machine, leg: &Leg) -> Result<(), Fault> {
    let text = "fail_if_no_path";
    message(machine, leg, text).or_else(|_| {
        machine.run("dmsetup", &["resume", leg.name()])?;
        message(machine, leg, text)
    })
}

/// Whether dm-multipath has given up the path of a remote leg: each error that comes from the target is one of the path to it.
/// Asked only when its I/O does not go on.
///
/// # Errors
/// `dmsetup status` says what it should not (kernel documentation, `admin-guide/device-mapper/dm-queue-length`: each path is
/// followed by `A` or `F`).
pub fn has_path_failed(machine: &Machine, leg: &Leg) -> Result<bool, Fault> {
    let said = machine.run("dmsetup", &["status", "--target", "multipath", leg.name()])?;
    path_failed(&said).ok_or_else(|| {
        Fault::generic(format!("cannot read the status of the map {leg}: {:?}", said.trim()))
    })
}

fn path_failed(status: &str) -> Option<bool> {
    let words: Vec<&str> = status.split_whitespace().collect();
    let path = words.iter().rposition(|word| word.contains(':'))?;
    match *words.get(path + 1)? {
        "A" => Some(false),
        "F" => Some(true),
        _ => None,
    }
}

fn message(machine: &Machine, leg: &Leg, text: &str) -> Result<(), Fault> {
    machine.run("dmsetup", &["message", leg.name(), "0", text]).map(|_| ())
}

/// Lets the I/O of a leg without a path wait again.
fn let_wait(machine: &Machine, leg: &Leg) -> Result<(), Fault> {
    message(machine, leg, "queue_if_no_path")
}

/// Removes a map. It must not be in use; udev's look at it, which each change of it brings, is waited for.
pub fn remove(machine: &Machine, map: &Map) -> Result<(), Fault> {
    let name = match map.role {
        Role::Export => map.leg.export_name(),
        Role::Local | Role::Remote => map.leg.name().to_string(),
    };
    machine.run("dmsetup", &["remove", "--retry", &name]).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leg_is_known_to_be_let_go_before_it_is_and_until_it_is_to_be_used_again() {
        let root = std::env::temp_dir().join(format!("hasan-let-go-{}", std::process::id()));
        let machine = Machine::recorded(&root);
        let leg = Leg::new("data-b1").unwrap();
        assert_eq!(are_let_go(&machine), Ok(BTreeSet::new()));
        // There is no dmsetup, as if it were cut off before it.
        let_go(&machine, &leg).unwrap_err();
        assert_eq!(are_let_go(&machine), Ok(BTreeSet::from([leg.clone()])));
        reinstate_path(&machine, &leg, "8:16").unwrap_err();
        assert_eq!(are_let_go(&machine), Ok(BTreeSet::new()));
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn like_names_have_unlike_naas() {
        let names = ["data-a-a", "data-a-b", "data-b-a", "data-a1", "data-a2", "data-b1"];
        let naas: BTreeSet<String> = names
            .iter()
            .map(|name| {
                let serial = Leg::new(name).unwrap().serial();
                serial.chars().filter(char::is_ascii_hexdigit).take(25).collect()
            })
            .collect();
        assert_eq!(naas.len(), names.len());
    }

    #[test]
    fn a_serial_tells_its_leg_and_no_other_serial_does() {
        let leg = Leg::new("data-a1").unwrap();
        assert_eq!(leg.serial().len(), 33 + "data-a1".len());
        assert_eq!(Leg::of_serial(&leg.serial()), Some(leg.clone()));
        for foreign in ["", "data-a1", &"0".repeat(40), &leg.serial()[1..]] {
            assert_eq!(Leg::of_serial(foreign), None, "{foreign:?}");
        }
    }

    #[test]
    fn a_leg_answers_if_it_is_local_or_has_a_live_path() {
        use crate::iscsi::SessionState;
        let disk = |block: &str, state| Disk {
            block: block.to_string(),
            numbers: "8:0".to_string(),
            serial: String::new(),
            sectors: 8,
            state,
        };
        let session = Session {
            name: "session1".to_string(),
            target: "iqn.2025-01.lab.home:b".to_string(),
            state: SessionState::LoggedIn,
            recovery_timeout: "5".to_string(),
            noop: crate::iscsi::NOOP.map(String::from),
            disks: vec![
                disk("sda", DiskState::Running),
                disk("sdb", DiskState::Blocked),
                disk("sdc", DiskState::Lost),
            ],
        };
        let map = |leg: &str, role, slave: &str| Map {
            leg: Leg::new(leg).unwrap(),
            role,
            slaves: BTreeSet::from([slave.to_string()]),
            sectors: if leg == "small" { 9 } else { 8 },
            io: Io::default(),
        };
        let maps = [
            map("local", Role::Local, "vdb"),
            map("local", Role::Export, "vdb"),
            map("live", Role::Remote, "sda"),
            map("blocked", Role::Remote, "sdb"),
            map("lost", Role::Remote, "sdc"),
            map("gone", Role::Remote, "sdd"),
            map("small", Role::Remote, "sda"),
        ];
        let names: Vec<&str> =
            answering(&maps, &[session]).iter().map(|map| map.leg.name()).collect();
        assert_eq!(names, ["local", "live"]);
    }

    #[test]
    fn whether_a_path_has_failed() {
        for (status, want) in [
            ("0 2097152 multipath 2 0 1 0 1 1 A 0 1 0 8:16 A 0 \n", Some(false)),
            ("0 2097152 multipath 2 1 0 0 1 1 E 0 1 0 8:16 F 3 \n", Some(true)),
            ("0 2097152 multipath 2 0 1 0 1 1 A 0 1 0 8:16", None),
            ("0 2097152 multipath 2 0 1 0 1 1 A 0 1 0 8:16 X 3", None),
            ("", None),
        ] {
            assert_eq!(path_failed(status), want, "{status}");
        }
    }

    #[test]
    fn what_is_done_and_what_waits() {
        let of = |done, waiting| Some(Io { done, waiting });
        for (stat, want) in [
            ("254 0 14064 4788 1177 0 22760 130712 11 222276 135500 2 0 0 0 3 0", of(1436, 11)),
            ("   1   0 8 4 2 0 8 9 0 5 6", of(3, 0)),
            ("1 0 8 4 2 0 8 9 0 5", None),
            ("1 0 8 4 2 0 8 9 x 5 6", None),
            ("", None),
        ] {
            assert_eq!(io(stat).ok(), want, "{stat}");
        }
    }

    #[test]
    fn the_serial_of_a_leg_never_changes() {
        // It is on the wire and in the initiators' disk names: this value is for ever.
        let leg = Leg::new("data-a1").unwrap();
        assert_eq!(leg.serial(), "853c15aae7cd7183f635924f59c77a7f-data-a1");
    }
}
