use super::*;
use crate::legs::Io;
use crate::lio::BackstoreName;
use std::fs;

#[test]
fn a_target_that_is_made_anew_does_not_let_in_who_is_shut_out() {
    let root = std::env::temp_dir().join(format!("hasan-export-{}", std::process::id()));
    let machine = Machine::recorded(&root);
    let mut backend = Backend::default();
    backend.peer.initiator = "iqn.2025-01.lab.home:b".to_string();
    let lets_in = || {
        let steps = steps_up(&machine, &backend, &nothing(), None).unwrap();
        format!("{steps:?}").contains(&backend.peer.initiator)
    };
    assert!(lets_in());
    machine.replace_file(Path::new(PEER_IS_OUT), "").unwrap();
    assert!(!lets_in());
    machine.remove_file(Path::new(PEER_IS_OUT)).unwrap();
    assert!(lets_in());
    std::fs::remove_dir_all(&root).unwrap();
}

fn leg(name: &str) -> Leg {
    Leg::new(name).unwrap()
}

/// A node with these legs, each over a disk of the same name, and a `dmsetup` that writes down what it is asked.
fn node(name: &str, legs: &[&str], script: &str) -> (Machine, Backend, PathBuf) {
    let root = std::env::temp_dir().join(format!("hasan-{name}-{}", std::process::id()));
    let machine = Machine::recorded(&root);
    let mut backend = Backend::default();
    for name in legs {
        let disk = Path::new("/dev").join(name);
        machine.replace_file(&disk, "").unwrap();
        let size = Path::new("/sys/class/block").join(name).join("size");
        machine.replace_file(&size, "8").unwrap();
        backend.legs.insert(leg(name), disk);
    }
    let script = format!("echo \"$@\" >> {}/asked\n{script}", root.display());
    machine.record_program("dmsetup", &script).unwrap();
    (machine, backend, root)
}

/// What dmsetup was asked.
fn asked(machine: &Machine) -> String {
    machine.read(Path::new("/asked")).unwrap().unwrap_or_default()
}

fn map(name: &str, role: Role) -> Map {
    Map { leg: leg(name), role, slaves: BTreeSet::new(), sectors: 8, io: Io::default() }
}

fn nothing() -> Actual {
    Actual { maps: vec![], tpg: None, backstores: vec![], numbers: BTreeMap::new() }
}

#[test]
fn a_disk_that_does_not_answer_keeps_no_other_leg_from_its_maps() {
    // udev's look at the first one's map waits for the disk.
    let hangs = "case $2 in bad*) exec sleep 60 ;; esac";
    let (machine, backend, root) = node("hangs", &["bad", "good"], hangs);
    let failed = make_all_maps(&machine, &backend, Duration::from_secs(3)).unwrap();
    assert_eq!(failed.keys().collect::<Vec<_>>(), [&leg("bad")], "{failed:?}");
    let asked = asked(&machine);
    for created in ["create good-export ", "create good "] {
        assert!(asked.contains(created), "{asked}");
    }
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn a_map_that_udev_has_not_named_keeps_no_other_leg_from_the_target() {
    let (machine, _, root) = node("unnamed", &[], "");
    machine.replace_file(&leg("good").export_device(), "").unwrap();
    let maps = ["bad", "good"].map(|name| map(name, Role::Export)).to_vec();
    let mut actual = Actual { maps, ..nothing() };
    leave_out_unnamed(&machine, &mut actual);
    assert_eq!(actual.maps, [map("good", Role::Export)]);
    fs::remove_dir_all(root).unwrap();
}

/// A backstore of ours over the map of a leg.
fn backstore(name: &str) -> Backstore {
    Backstore {
        at: BackstoreName { hba: format!("iblock_{name}"), name: name.to_string() },
        device: leg(name).export_device(),
        block: None,
        enabled: true,
        read_only: false,
        serial: leg(name).serial(),
    }
}

#[test]
fn a_leg_that_is_not_configured_any_more_leaves_nothing_in_the_target() {
    let mut backend = Backend::default();
    backend.legs.insert(leg("kept"), "/dev/sda".into());
    let mut foreign = backstore("gone");
    foreign.device = "/dev/sdb".into();
    let maps =
        [map("gone", Role::Export), map("gone", Role::Local), map("kept", Role::Export)].to_vec();
    let backstores = vec![backstore("kept"), backstore("gone"), foreign];
    let actual = Actual { maps, backstores, ..nothing() };
    let remove = |name: &str| lio::Step::RemoveBackstore(backstore(name).at);
    assert_eq!(steps_down(&backend, &actual), [remove("kept"), remove("gone")]);
    let gone = map("gone", Role::Export);
    assert_eq!(left_over(&backend, &actual), [(&gone, vec![remove("gone")])]);
}

/// The kernel's list of maps.
fn show_map(machine: &Machine, at: u64, uuid: &str) {
    let folder = PathBuf::from(format!("/sys/block/dm-{at}"));
    for (name, text) in [("dm/uuid", uuid), ("size", "8"), ("stat", "1 0 8 4 2 0 8 9 0 5 6")] {
        machine.replace_file(&folder.join(name), text).unwrap();
    }
}

#[test]
fn a_map_that_cannot_be_removed_keeps_no_other_one() {
    let (machine, _, root) = node("busy", &[], "case $3 in a1-export) exit 1 ;; esac");
    show_map(&machine, 0, "HASAN-export-a1");
    show_map(&machine, 1, "HASAN-export-a2");
    let conf = "leg.a1 = /dev/sda\niqn = iqn.2025-01.lab.home:a\nportal = 10.10.10.1:3260\n\
        peer.node = b\npeer.iqn = iqn.2025-01.lab.home:b\npeer.portal = 10.10.10.2:3260\n\
        peer.initiator = iqn.2025-01.lab.home:initiator-b\npeer.legs = b1\npool = p\n";
    machine.replace_file(Path::new(config::PATH), conf).unwrap();
    let fault = down(&machine, Path::new(config::PATH)).unwrap_err();
    assert!(fault.reason.contains("a1-export"), "{}", fault.reason);
    assert!(asked(&machine).contains("remove --retry a2-export"), "{}", asked(&machine));
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn a_map_in_use_over_a_disk_that_went_is_refused_with_the_way_out() {
    let (machine, backend, root) = node("exchanged", &["a1"], "exit 1");
    let old = Map { slaves: BTreeSet::from(["old".to_string()]), ..map("a1", Role::Export) };
    let fault = make_maps(&machine, &leg("a1"), &backend.legs[&leg("a1")], &[old]).unwrap_err();
    // systemd runs no ExecStop= of a unit that could not start.
    assert!(fault.reason.contains("iscsi-backend-export down"), "{}", fault.reason);
    assert!(!asked(&machine).contains("create"), "{}", asked(&machine));
    fs::remove_dir_all(root).unwrap();
}
