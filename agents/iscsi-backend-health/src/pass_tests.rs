use super::*;
use hasan::config::Peer;
use hasan::iscsi::{DiskState, NOOP, RECOVERY_TIMEOUT, Session};
use hasan::legs::Io;
use std::fs;
use std::path::{Path, PathBuf};

fn leg() -> Leg {
    Leg::new("data-b1").unwrap()
}

fn backend() -> Backend {
    let peer = Peer { legs: vec![leg()], ..Peer::default() };
    Backend { peer, ..Backend::default() }
}

fn disk(state: DiskState) -> Disk {
    let (block, numbers) = ("sda".to_string(), "8:16".to_string());
    Disk { block, numbers, serial: leg().serial(), sectors: 8, state }
}

/// The leg's map over its disk, with I/O of which some waits.
fn at(state: DiskState, done: u64, waiting: u64) -> Actual {
    let session = Session {
        name: "session1".to_string(),
        target: String::new(),
        state: SessionState::LoggedIn,
        recovery_timeout: RECOVERY_TIMEOUT.to_string(),
        noop: NOOP.map(String::from),
        disks: vec![disk(state)],
    };
    let io = Io { done, waiting };
    let slaves = BTreeSet::from(["sda".to_string()]);
    let map = Map { leg: leg(), role: Role::Remote, slaves, sectors: 8, io };
    Actual { sessions: vec![session], maps: vec![map], still: BTreeMap::new() }
}

/// What is planned at each look, while the leg's path is known to work.
fn planned(looks: &[(u64, DiskState)]) -> Vec<Vec<Step>> {
    let (start, mut flow) = (Instant::now(), Flow::default());
    let memory = Memory { in_use: BTreeSet::from([leg()]), ..Memory::default() };
    let mut steps = |(second, state): &(u64, DiskState)| {
        let mut actual = at(*state, 5, 1);
        actual.still = still(&mut flow, &actual, start + Duration::from_secs(*second));
        plan(&backend(), &actual, &memory)
    };
    looks.iter().map(&mut steps).collect()
}

#[test]
fn a_cut_of_the_link_uses_up_no_try_of_a_path() {
    use DiskState::{Blocked, Running};
    let retry = || vec![Step::RetryPath(leg(), disk(Running))];
    // The link goes at 0, and no look sees that the disk fails I/O at 9: the path has failed behind the watch's back.
    let looks =
        [(0, Running), (3, Running), (6, Blocked), (8, Blocked), (9, Running), (12, Running)];
    assert_eq!(planned(&looks), [vec![], retry(), vec![], vec![], vec![], retry()]);
}

#[test]
fn a_disk_that_fails_io_or_hangs_is_given_up_though_the_link_was_cut_before() {
    use DiskState::{Blocked, Lost, Running};
    let looks = |begin: u64| [0, 3, 6, 9].map(|second| (begin + second, Running));
    let retry = || vec![Step::RetryPath(leg(), disk(Running))];
    let want = || vec![vec![], retry(), retry(), vec![Step::GiveUp(leg())]];
    assert_eq!(planned(&looks(0)), want());
    let cut = [(0, Running), (3, Running), (6, Blocked), (7, Lost)];
    let steps = planned(&[&cut[..], &looks(8)].concat());
    assert_eq!(steps[cut.len()..], want());
}

/// A machine whose `dmsetup` writes down what it is asked, and answers so.
fn with_dmsetup(name: &str, script: &str) -> (Machine, PathBuf) {
    let root = std::env::temp_dir().join(format!("hasan-{name}-{}", std::process::id()));
    let machine = Machine::recorded(&root);
    let script = format!("echo \"$@\" >> {}/asked\n{script}", root.display());
    machine.record_program("dmsetup", &script).unwrap();
    (machine, root)
}

/// The disk of that number in the machine's sysfs.
fn show_disk(machine: &Machine, serial: &str) {
    let device = Path::new("/sys/class/block/sda/device");
    for (name, text) in [
        ("rescan", ""),
        ("state", "running"),
        ("vpd_pg80", &format!("\0\u{1}\0\u{1}{serial}")),
        ("block/sda/dev", "8:16"),
        ("block/sda/size", "8"),
    ] {
        machine.replace_file(&device.join(name), text).unwrap();
    }
}

/// What dmsetup was asked.
fn asked(machine: &Machine) -> String {
    machine.read(Path::new("/asked")).unwrap().unwrap_or_default()
}

#[test]
fn a_path_is_tried_again_if_it_has_failed_and_carries_the_leg_still() {
    let other = Leg::new("data-b2").unwrap();
    for (state, serial, is_tried) in
        [("F", leg().serial(), true), ("F", other.serial(), false), ("A", leg().serial(), false)]
    {
        let status = format!("echo 0 8 multipath 2 1 0 0 1 1 E 0 1 0 8:16 {state} 3");
        let (machine, root) = with_dmsetup("retry", &status);
        show_disk(&machine, &serial);
        let step = Step::RetryPath(leg(), disk(DiskState::Running));
        Watch::default().apply(&machine, &backend(), &step).map(|_| ()).unwrap();
        let asked = asked(&machine);
        assert_eq!(asked.contains("reinstate_path 8:16"), is_tried, "{state} {serial} {asked}");
        fs::remove_dir_all(root).unwrap();
    }
}

#[test]
fn a_path_whose_exchange_is_cut_off_is_not_known_to_work() {
    // The new table is loaded, and does not come to life.
    let (machine, root) = with_dmsetup("exchange", "[ $1 = load ]");
    show_disk(&machine, &leg().serial());
    let memory = Memory { in_use: BTreeSet::from([leg()]), ..Memory::default() };
    let mut watch = Watch { memory, ..Watch::default() };
    let step = Step::ExchangePath(leg(), disk(DiskState::Running));
    assert!(watch.apply(&machine, &backend(), &step).is_err());
    assert!(asked(&machine).contains("load data-b1"));
    assert_eq!(watch.memory.in_use, BTreeSet::new());
    fs::remove_dir_all(root).unwrap();
}
