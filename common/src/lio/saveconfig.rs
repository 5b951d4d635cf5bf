//! The file in which targetcli keeps a configuration for the next boot. Proxmox's ZFS-over-iSCSI plugin reads from it
//! which LUNs there are, so the active node shows its client part in it; and a boot must never bring that part up, so it
//! is taken out again. Everything else in it is other people's and stays.
//!
//! Source of the format: rtslib-fb, `root.py`, `RTSRoot.dump` and `restore`.

use super::{BackstoreName, Tpg, TpgName};
use crate::machine::Machine;
use crate::ocf::Fault;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Debian's place, and everybody else's. Proxmox's plugin looks in this order, too.
const FOLDERS: [&str; 2] = ["/etc/rtslib-fb-target", "/etc/target"];

/// One LUN of the client part.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Saved {
    /// Name of its backstore.
    pub name: String,
    /// Its device.
    pub device: PathBuf,
    /// Its serial.
    pub serial: String,
    /// Whether it is open for reading alone.
    pub read_only: bool,
}

/// Shows a group and its LUNs in the file; without LUNs to show, takes the group out. `is_ours` tells the devices whose
/// backstores are replaced.
///
/// # Errors
/// Where the file is no such file: it is left as it is.
pub fn show(
    machine: &Machine,
    name: &TpgName,
    group: Option<(&Tpg, &BTreeMap<u64, Saved>)>,
    is_ours: impl Fn(&Path) -> bool,
) -> Result<(), Fault> {
    // With a thousand LUNs the file is long, and each sync would read it: what it shows is kept, until the LUNs or the file
    // are others.
    let record = Path::new("/run/hasan").join(format!("shown.{}.{}", name.iqn, name.tag));
    let shown = digest(group);
    let mut stamps = stamps(machine)?;
    if machine.read(&record)? == Some(record_of(shown, &stamps)) {
        return Ok(());
    }
    for (folder, stamp) in FOLDERS.iter().zip(&mut stamps) {
        let written = change(machine, Path::new(folder), |text| merge(text, name, group, &is_ours));
        // Of a file that is not written the stamp from before it was read stays: what somebody changes meanwhile is seen by
        // the next sync.
        *stamp = written?.unwrap_or_else(|| stamp.clone());
    }
    machine.replace_file(&record, &record_of(shown, &stamps))
}

/// The stamp of the file in each folder.
pub fn stamps(machine: &Machine) -> Result<Vec<String>, Fault> {
    let stamp = |folder| Ok(machine.stamp(&file(Path::new(folder)))?.unwrap_or_default());
    FOLDERS.into_iter().map(stamp).collect()
}

fn record_of(shown: u64, stamps: &[String]) -> String {
    format!("{shown:x}; {}", stamps.join("; "))
}

/// Tells what is to be shown from something else.
fn digest(group: Option<(&Tpg, &BTreeMap<u64, Saved>)>) -> u64 {
    let mut hasher = DefaultHasher::new();
    group.hash(&mut hasher);
    hasher.finish()
}

fn file(folder: &Path) -> PathBuf {
    folder.join("saveconfig.json")
}

/// Takes every backstore over such a device out of the file, with the groups that lead to them: for a boot, before
/// anything is restored.
pub fn strip(machine: &Machine, is_ours: impl Fn(&Path) -> bool) -> Result<(), Fault> {
    for folder in FOLDERS {
        change(machine, Path::new(folder), |text| without(text, &is_ours))?;
    }
    Ok(())
}

/// Changes the file in a folder, if there is the folder; returns the stamp of the file that it has written.
fn change(
    machine: &Machine,
    folder: &Path,
    change: impl Fn(&str) -> Result<String, String>,
) -> Result<Option<String>, Fault> {
    if !machine.exists(folder) {
        return Ok(None);
    }
    let path = file(folder);
    let before = machine.read(&path)?.unwrap_or_default();
    let wrong = |why| Fault::generic(format!("cannot read {}: {why}", path.display()));
    let after = change(&before).map_err(wrong)?;
    if after == before {
        return Ok(None);
    }
    machine.replace_stamped(&path, &after).map(Some)
}

fn merge(
    text: &str,
    name: &TpgName,
    group: Option<(&Tpg, &BTreeMap<u64, Saved>)>,
    is_ours: &impl Fn(&Path) -> bool,
) -> Result<String, String> {
    let mut whole = parse(text)?;
    let objects = list(&mut whole, "storage_objects")?;
    // One that is shown was perhaps opened under another name, such as /dev/zd16.
    let shown = |object: &Value| {
        let mut luns = group.into_iter().flat_map(|(_, luns)| luns.values());
        object["plugin"] == "block"
            && luns.any(|lun| object["name"] == *lun.name && object["wwn"] == *lun.serial)
    };
    objects.retain(|object| !is_over(object, is_ours) && !shown(object));
    let mut luns = Vec::new();
    for (number, lun) in group.into_iter().flat_map(|(_, luns)| luns) {
        objects.push(json!({
            "plugin": "block", "name": lun.name, "dev": lun.device.display().to_string(), "wwn": lun.serial,
            "readonly": lun.read_only, "write_back": false, "attributes": {},
        }));
        luns.push(json!({
            "index": number, "storage_object": format!("/backstores/block/{}", lun.name), "alias": "",
        }));
    }
    let targets = list(&mut whole, "targets")?;
    remove_group(targets, name);
    if let Some((tpg, _)) = group {
        let group = shown_group(name, tpg, &luns);
        match targets.iter_mut().find(|target| target["wwn"] == *name.iqn) {
            Some(target) => list(target, "tpgs")?.push(group),
            None => targets.push(json!({ "fabric": "iscsi", "wwn": name.iqn, "tpgs": [group] })),
        }
    }
    write(text, &whole)
}

fn shown_group(name: &TpgName, tpg: &Tpg, luns: &[Value]) -> Value {
    let portals: Vec<Value> = tpg
        .portals
        .iter()
        .filter_map(|portal| portal.parse::<SocketAddr>().ok())
        .map(|portal| {
            let address = match portal {
                SocketAddr::V4(portal) => portal.ip().to_string(),
                SocketAddr::V6(portal) => format!("[{}]", portal.ip()),
            };
            json!({ "ip_address": address, "port": portal.port() })
        })
        .collect();
    // Of the initiators the names alone: their passwords belong to no file of ours.
    let initiators: Vec<Value> = tpg
        .acls
        .iter()
        .map(|(initiator, mapped)| {
            let mapped: Vec<Value> = mapped
                .iter()
                .filter_map(|(index, lun)| Some(json!({ "index": index, "tpg_lun": (*lun)? })))
                .collect();
            json!({ "node_wwn": initiator, "mapped_luns": mapped })
        })
        .collect();
    json!({
        "tag": name.tag, "enable": tpg.enabled, "luns": luns, "portals": portals, "node_acls": initiators,
        "attributes": tpg.attributes, "parameters": {},
    })
}

fn without(text: &str, is_ours: &impl Fn(&Path) -> bool) -> Result<String, String> {
    let mut whole = parse(text)?;
    let objects = list(&mut whole, "storage_objects")?;
    let path = |object: &Value| {
        format!("/backstores/block/{}", object["name"].as_str().unwrap_or_default())
    };
    let gone: Vec<String> =
        objects.iter().filter(|object| is_over(object, is_ours)).map(path).collect();
    objects.retain(|object| !is_over(object, is_ours));
    let leads_there = |group: &Value| {
        let luns = group["luns"].as_array().into_iter().flatten();
        luns.filter_map(|lun| lun["storage_object"].as_str())
            .any(|path| gone.iter().any(|g| g == path))
    };
    let targets = list(&mut whole, "targets")?;
    for target in targets.iter_mut() {
        list(target, "tpgs")?.retain(|group| !leads_there(group));
    }
    targets.retain(|target| target["tpgs"].as_array().is_some_and(|groups| !groups.is_empty()));
    write(text, &whole)
}

/// The target goes with its last group.
fn remove_group(targets: &mut Vec<Value>, name: &TpgName) {
    for target in targets.iter_mut().filter(|target| target["wwn"] == *name.iqn) {
        if let Some(groups) = target["tpgs"].as_array_mut() {
            groups.retain(|group| group["tag"] != name.tag);
        }
    }
    targets.retain(|target| {
        target["wwn"] != *name.iqn
            || target["tpgs"].as_array().is_some_and(|groups| !groups.is_empty())
    });
}

fn is_over(object: &Value, is_ours: &impl Fn(&Path) -> bool) -> bool {
    object["dev"].as_str().is_some_and(|device| is_ours(Path::new(device)))
}

/// An empty file is as good as none.
fn parse(text: &str) -> Result<Value, String> {
    if text.trim().is_empty() {
        return Ok(json!({}));
    }
    let whole: Value = serde_json::from_str(text)
        .map_err(|error| format!("line {}, column {} is no JSON", error.line(), error.column()))?;
    if whole.is_object() { Ok(whole) } else { Err("it is no JSON object".to_string()) }
}

fn list<'a>(whole: &'a mut Value, key: &str) -> Result<&'a mut Vec<Value>, String> {
    let object = whole.as_object_mut().ok_or("a target in it is no JSON object")?;
    let value = object.entry(key).or_insert_with(|| json!([]));
    value.as_array_mut().ok_or(format!("its {key:?} is no list"))
}

/// Whoever wrote it, a file that says the same stays as it is.
fn write(before: &str, whole: &Value) -> Result<String, String> {
    if parse(before)? == *whole { Ok(before.to_string()) } else { Ok(format!("{whole:#}")) }
}

/// The LUNs of a group for [`show`], of the backstores that the kernel has; `named` gives the lasting name of a device where
/// there is one.
pub fn saved(
    tpg: &Tpg,
    backstores: &[super::Backstore],
    named: impl Fn(&super::Backstore) -> Option<PathBuf>,
) -> BTreeMap<u64, Saved> {
    let by_name = super::by_name(backstores);
    let one = |at: &BackstoreName| {
        let backstore = by_name.get(at)?;
        let (name, serial) = (backstore.at.name.clone(), backstore.serial.clone());
        let device = named(backstore).unwrap_or_else(|| backstore.device.clone());
        Some(Saved { name, device, serial, read_only: backstore.read_only })
    };
    tpg.luns.iter().filter_map(|(number, at)| Some((*number, one(at.as_ref()?)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const THEIRS: &str = r#"{"fabric_modules": [], "storage_objects": [{"plugin": "fileio", "name": "x", "dev": "/x"},
        {"plugin": "block", "name": "leg", "dev": "/dev/mapper/leg"}], "targets": [{"fabric": "iscsi",
        "wwn": "iqn.2025-01.lab.home:theirs", "tpgs": [{"tag": 1, "luns": [{"index": 0,
        "storage_object": "/backstores/fileio/x"}]}]}]}"#;

    fn name(tag: u64) -> TpgName {
        TpgName { iqn: "iqn.2025-01.lab.home:ours".to_string(), tag }
    }

    fn is_ours(path: &Path) -> bool {
        path.starts_with("/dev/zvol/p")
    }

    fn with_lun(text: &str, tag: u64, number: u64) -> String {
        let tpg = Tpg { enabled: true, ..Tpg::default() };
        let lun = Saved {
            name: format!("p-vm-{tag}-{number}"),
            device: format!("/dev/zvol/p/{tag}/vm-{number}").into(),
            serial: "s".to_string(),
            read_only: false,
        };
        let luns = BTreeMap::from([(number, lun)]);
        let below = format!("/dev/zvol/p/{tag}");
        merge(text, &name(tag), Some((&tpg, &luns)), &|path: &Path| path.starts_with(&below))
            .unwrap()
    }

    fn value(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn our_part_comes_and_goes_and_theirs_stays() {
        let one = with_lun(THEIRS, 1, 3);
        let both = with_lun(&one, 2, 4);
        let shown = value(&both);
        assert_eq!(shown["targets"][0], value(THEIRS)["targets"][0]);
        let groups = shown["targets"][1]["tpgs"].as_array().unwrap();
        assert_eq!(groups.len(), 2);
        assert_eq!(groups[0]["luns"][0]["index"], 3);
        assert_eq!(groups[0]["luns"][0]["storage_object"], "/backstores/block/p-vm-1-3");
        assert_eq!(shown["storage_objects"].as_array().unwrap().len(), 4);
        assert_eq!(with_lun(&both, 2, 4), both, "shown twice it is the same");

        let down = merge(&both, &name(2), None, &|path: &Path| path.starts_with("/dev/zvol/p/2"));
        assert_eq!(value(&down.unwrap()), value(&one));
        assert_eq!(value(&without(&both, &is_ours).unwrap()), value(THEIRS));
        assert_eq!(without(THEIRS, &is_ours).unwrap(), THEIRS, "byte for byte");
        assert_eq!(value(&with_lun("", 1, 0))["targets"][0]["tpgs"][0]["tag"], 1);
    }

    #[test]
    fn a_lun_that_was_opened_by_another_name_stands_there_once() {
        let theirs = r#"{"storage_objects": [{"plugin": "block", "name": "x", "dev": "/dev/zd16", "wwn": "s"},
            {"plugin": "block", "name": "x", "dev": "/dev/sdb", "wwn": "t"}]}"#;
        let portals = ["10.0.0.1:3260", "[fd00::1]:3260"].map(str::to_string).into();
        let tpg = Tpg { luns: BTreeMap::from([(3, Some(at()))]), portals, ..Tpg::default() };
        let backstore = super::super::Backstore {
            at: at(),
            device: "/dev/zd16".into(),
            block: Some("zd16".to_string()),
            enabled: true,
            read_only: true,
            serial: "s".to_string(),
        };
        let luns = saved(&tpg, &[backstore], |_| Some("/dev/zvol/p/x".into()));
        let shown = merge(theirs, &name(1), Some((&tpg, &luns)), &is_ours).unwrap();
        assert_eq!(merge(&shown, &name(1), Some((&tpg, &luns)), &is_ours).unwrap(), shown);
        let objects = value(&shown)["storage_objects"].clone();
        let devices: Vec<&Value> =
            objects.as_array().unwrap().iter().map(|it| &it["dev"]).collect();
        assert_eq!(devices, ["/dev/sdb", "/dev/zvol/p/x"]);
        assert_eq!(objects[1]["readonly"], true);
        let portals = &value(&shown)["targets"][0]["tpgs"][0]["portals"];
        assert_eq!(
            (&portals[0]["ip_address"], &portals[1]["ip_address"]),
            (&json!("10.0.0.1"), &json!("[fd00::1]"))
        );
        let down = merge(&shown, &name(1), None, &is_ours).unwrap();
        assert_eq!(value(&down)["storage_objects"].as_array().unwrap().len(), 1);
    }

    fn at() -> BackstoreName {
        BackstoreName { hba: "iblock_7".to_string(), name: "x".to_string() }
    }

    #[test]
    fn what_somebody_changes_is_seen_and_what_nobody_changed_is_not_read_again() {
        let root = std::env::temp_dir().join(format!("hasan-saved-{}", std::process::id()));
        let machine = Machine::recorded(&root);
        let path = file(Path::new(FOLDERS[0]));
        machine.replace_file(&path, THEIRS).unwrap();
        let tpg = Tpg { enabled: true, ..Tpg::default() };
        let lun = |number: u64| Saved {
            name: format!("vm-{number}"),
            device: format!("/dev/zvol/p/vm-{number}").into(),
            serial: "s".to_string(),
            read_only: false,
        };
        let show = |numbers: &[u64]| {
            let luns: BTreeMap<u64, Saved> =
                numbers.iter().map(|each| (*each, lun(*each))).collect();
            show(&machine, &name(1), Some((&tpg, &luns)), is_ours).unwrap();
            machine.read(&path).unwrap().unwrap()
        };
        let record = Path::new("/run/hasan/shown.iqn.2025-01.lab.home:ours.1");
        let one = show(&[1]);
        assert!(one.contains("vm-1"));
        let kept = machine.read(record).unwrap();
        assert_eq!(show(&[1]), one);
        assert_eq!(machine.read(record).unwrap(), kept, "nothing has changed");
        assert!(show(&[1, 2]).contains("vm-2"));
        machine.replace_file(&path, THEIRS).unwrap();
        let mended = show(&[1, 2]);
        assert!(mended.contains("vm-2") && mended.contains("fileio"));
        // With a record that says so, even a file that shows nothing is taken as it is.
        machine.replace_file(&path, THEIRS).unwrap();
        let luns = BTreeMap::from([(1, lun(1))]);
        let shown = digest(Some((&tpg, &luns)));
        let as_it_is = record_of(shown, &stamps(&machine).unwrap());
        machine.replace_file(record, &as_it_is).unwrap();
        assert_eq!(show(&[1]), THEIRS);
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_file_of_another_shape_is_refused() {
        for (text, want) in [
            ("{", "line 1, column 1 is no JSON"),
            ("[]", "no JSON object"),
            (r#"{"targets": {}}"#, "\"targets\" is no list"),
            (r#"{"targets": [7]}"#, "no JSON object"),
        ] {
            let wrong = without(text, &is_ours).unwrap_err();
            assert!(wrong.contains(want), "{text}: {wrong}");
        }
    }
}
