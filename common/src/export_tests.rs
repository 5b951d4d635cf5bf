use super::*;
use crate::legs::Io;
use std::fs;
use std::os::unix::fs::PermissionsExt;

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
    let dmsetup = Path::new("/usr/sbin/dmsetup");
    let here = root.display();
    let text = format!("#!/bin/sh\nPATH=/usr/bin:/bin\necho \"$@\" >> {here}/asked\n{script}\n");
    machine.replace_file(dmsetup, &text).unwrap();
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(root.join("usr/sbin/dmsetup"), mode).unwrap();
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
