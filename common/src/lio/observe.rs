//! Reads the configfs tree; decides nothing.

use super::{Backstore, BackstoreName, Tpg, TpgName, Who};
use crate::chap::{Credentials, Secret};
use crate::machine::Machine;
use crate::ocf::Fault;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub(super) const CORE: &str = "/sys/kernel/config/target/core";
pub(super) const ISCSI: &str = "/sys/kernel/config/target/iscsi";

/// What our links are called.
pub(super) const LINK: &str = "hasan";

/// The attributes that plans set.
const ATTRIBUTES: [&str; 6] = [
    "authentication",
    "cache_dynamic_acls",
    "demo_mode_discovery",
    "demo_mode_write_protect",
    "generate_node_acls",
    "prod_mode_write_protect",
];

/// What stands in the folder of an HBA beside its backstore (`target_core_configfs.c`, `target_core_hba_attrs`).
const HBA_ATTRIBUTES: [&str; 2] = ["hba_info", "hba_mode"];

/// The folder of a group.
pub(super) fn folder(tpg: &TpgName) -> PathBuf {
    Path::new(ISCSI).join(&tpg.iqn).join(format!("tpgt_{}", tpg.tag))
}

/// A group; `None` if there is none.
pub fn tpg(machine: &Machine, name: &TpgName) -> Result<Option<Tpg>, Fault> {
    let Some(mut tpg) = without_luns(machine, name)? else { return Ok(None) };
    let folder = folder(name);
    tpg.luns = luns(machine, &folder.join("lun"))?;
    for (initiator, mapped) in &mut tpg.acls {
        *mapped = mapped_luns(machine, &folder.join("acls").join(initiator))?;
    }
    Ok(Some(tpg))
}

/// A group without its LUNs and mapped LUNs, and what changes whenever one of them is made, removed, or led elsewhere: the
/// kernel notes the time of it at its folder (`fs/configfs/inode.c`, `configfs_create`; `fs/libfs.c`, `simple_unlink`). A look
/// at a file there can change it, too. `None` if there is no such group.
pub fn glance(machine: &Machine, name: &TpgName) -> Result<Option<(Tpg, Vec<Stamp>)>, Fault> {
    let Some(tpg) = without_luns(machine, name)? else { return Ok(None) };
    let folder = folder(name);
    let acls = tpg.acls.keys().map(|initiator| folder.join("acls").join(initiator));
    let mut stamps = vec![(PathBuf::from(CORE), machine.stamp(Path::new(CORE))?)];
    for within in acls.chain([folder.join("lun")]) {
        for path in numbered(machine, &within)?.into_values() {
            let stamp = machine.stamp(&path)?;
            stamps.push((path, stamp));
        }
    }
    Ok(Some((tpg, stamps)))
}

/// The stamp of a folder; `None` if it has just gone.
pub type Stamp = (PathBuf, Option<String>);

fn without_luns(machine: &Machine, name: &TpgName) -> Result<Option<Tpg>, Fault> {
    let folder = folder(name);
    let Some(portals) = machine.list(&folder.join("np"))? else { return Ok(None) };
    let enabled = machine.read_required(&folder.join("enable"))? == "1";
    let mut attributes = BTreeMap::new();
    for attribute in ATTRIBUTES {
        let value = machine.read_required(&folder.join("attrib").join(attribute))?;
        attributes.insert(attribute, value);
    }
    let (mut acls, mut asks, mut found) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    found.extend(credentials(machine, &folder)?.map(|some| (Who::Everyone, some)));
    for initiator in machine.list(&folder.join("acls"))?.unwrap_or_default() {
        let acl = folder.join("acls").join(&initiator);
        let own = credentials(machine, &acl)?;
        found.extend(own.map(|some| (Who::Initiator(initiator.clone()), some)));
        let asked =
            machine.read(&acl.join("attrib/authentication"))?.map(|text| match text.as_str() {
                "0" => Some(false),
                "1" => Some(true),
                _ => None,
            });
        asks.extend(asked.map(|asked| (initiator.clone(), asked)));
        acls.insert(initiator, BTreeMap::new());
    }
    let luns = BTreeMap::new();
    Ok(Some(Tpg { enabled, portals, attributes, luns, acls, credentials: found, asks }))
}

/// The credentials of a group or of an initiator; half of them are as good as none, but not the same, so that a plan
/// sets them anew.
fn credentials(machine: &Machine, folder: &Path) -> Result<Option<Credentials>, Fault> {
    let value = |name: &str| -> Result<Option<String>, Fault> {
        let text = machine.read(&folder.join("auth").join(name))?.unwrap_or_default();
        // The kernel takes every value that begins so for "not set" (`iscsi_target_configfs.c`, `__DEF_NACL_AUTH_STR`).
        Ok(Some(text).filter(|text| !text.is_empty() && !text.starts_with("NULL")))
    };
    let (user, password) = (value("userid")?, value("password")?);
    let (mutual_user, mutual_password) = (value("userid_mutual")?, value("password_mutual")?);
    if [&user, &password, &mutual_user, &mutual_password].iter().all(|value| value.is_none()) {
        return Ok(None);
    }
    let secret = |text: Option<String>| Secret::new(text.unwrap_or_default());
    let mutual = (mutual_user.is_some() || mutual_password.is_some())
        .then(|| (mutual_user.unwrap_or_default(), secret(mutual_password)));
    Ok(Some(Credentials { user: user.unwrap_or_default(), password: secret(password), mutual }))
}

/// Whether the target of a group is there without any group: an action was cut off just before or after the group.
pub fn is_target_empty(machine: &Machine, name: &TpgName) -> Result<bool, Fault> {
    let names = machine.list(&Path::new(ISCSI).join(&name.iqn))?;
    Ok(names.is_some_and(|names| !names.iter().any(|name| name.starts_with("tpgt_"))))
}

/// Whether a group lets an initiator in by a rule of its own; `None` if there is no such group. For
/// a look each second: it reads nothing.
pub fn lets_in(machine: &Machine, name: &TpgName, initiator: &str) -> Option<bool> {
    let acls = folder(name).join("acls");
    machine.exists(&acls).then(|| machine.exists(&acls.join(initiator)))
}

fn luns(machine: &Machine, folder: &Path) -> Result<BTreeMap<u64, Option<BackstoreName>>, Fault> {
    let mut luns = BTreeMap::new();
    for (number, path) in numbered(machine, folder)? {
        let backstore = link_in(machine, &path)?.and_then(|(_, target)| backstore_name(&target));
        luns.insert(number, backstore);
    }
    Ok(luns)
}

fn mapped_luns(machine: &Machine, acl: &Path) -> Result<BTreeMap<u64, Option<u64>>, Fault> {
    let mut mapped = BTreeMap::new();
    for (number, path) in numbered(machine, acl)? {
        let lun = link_in(machine, &path)?.and_then(|(_, target)| {
            target.file_name()?.to_str()?.strip_prefix("lun_")?.parse().ok()
        });
        mapped.insert(number, lun);
    }
    Ok(mapped)
}

/// The folders `lun_N` in a folder.
fn numbered(machine: &Machine, folder: &Path) -> Result<BTreeMap<u64, PathBuf>, Fault> {
    let names = machine.list(folder)?.unwrap_or_default();
    let number = |name: &String| name.strip_prefix("lun_")?.parse().ok();
    Ok(names.iter().filter_map(|name| Some((number(name)?, folder.join(name)))).collect())
}

/// The one symbolic link in a LUN's folder: its path and where it points. Other people call theirs otherwise.
pub(super) fn link_in(
    machine: &Machine,
    folder: &Path,
) -> Result<Option<(PathBuf, PathBuf)>, Fault> {
    let ours = folder.join(LINK);
    if let Some(target) = machine.link(&ours)? {
        return Ok(Some((ours, target)));
    }
    for name in machine.list(folder)?.unwrap_or_default() {
        let path = folder.join(name);
        if let Some(target) = machine.link(&path)? {
            return Ok(Some((path, target)));
        }
    }
    Ok(None)
}

fn backstore_name(target: &Path) -> Option<BackstoreName> {
    let name = target.file_name()?.to_str()?.to_string();
    let hba = target.parent()?.file_name()?.to_str()?.to_string();
    Some(BackstoreName { hba, name })
}

/// A group, `None` if there is none, and all block backstores of the machine.
pub fn observe(machine: &Machine, name: &TpgName) -> Result<(Option<Tpg>, Vec<Backstore>), Fault> {
    let tpg = tpg(machine, name)?;
    let backstores = backstores_beside(machine, tpg.as_ref())?;
    Ok((tpg, backstores))
}

/// All block backstores of the machine, whoever made them.
pub fn backstores(machine: &Machine) -> Result<Vec<Backstore>, Fault> {
    backstores_beside(machine, None)
}

/// To list a folder costs as much as all other looks at a backstore: those that the LUNs of the group lead to are known by
/// name, and it is left out where there is nothing else.
fn backstores_beside(machine: &Machine, tpg: Option<&Tpg>) -> Result<Vec<Backstore>, Fault> {
    let led_to = tpg.into_iter().flat_map(|tpg| tpg.luns.values().flatten());
    let known: BTreeMap<&str, &str> =
        led_to.map(|at| (at.hba.as_str(), at.name.as_str())).collect();
    let mut backstores = Vec::new();
    for hba in machine.list(Path::new(CORE))?.unwrap_or_default() {
        if !hba.starts_with("iblock_") {
            continue;
        }
        let folder = Path::new(CORE).join(&hba);
        let names = match known.get(hba.as_str()) {
            Some(name) if machine.count_folders(&folder)? == Some(1) => vec![name.to_string()],
            _ => machine.list(&folder)?.unwrap_or_default().into_iter().collect(),
        };
        for name in names.into_iter().filter(|name| !HBA_ATTRIBUTES.contains(&name.as_str())) {
            let at = BackstoreName { hba: hba.clone(), name };
            backstores.extend(backstore(machine, at)?);
        }
    }
    Ok(backstores)
}

/// `None` for a backstore that just went away.
fn backstore(machine: &Machine, at: BackstoreName) -> Result<Option<Backstore>, Fault> {
    let folder = Path::new(CORE).join(&at.hba).join(&at.name);
    let Some(info) = machine.read(&folder.join("info"))? else { return Ok(None) };
    let serial = machine.read(&folder.join("wwn/vpd_unit_serial"))?.unwrap_or_default();
    let serial = serial_of(&serial).to_string();
    // It tells of its device while that is open, so that one look at it is enough where all is well.
    let read_only = is_read_only(&info);
    if let Some((block, device)) = open_device(&info) {
        let (block, device) = (Some(block.to_string()), PathBuf::from(device));
        return Ok(Some(Backstore { at, device, block, enabled: true, read_only, serial }));
    }
    let device = machine.read(&folder.join("udev_path"))?.unwrap_or_default().into();
    let enabled = machine.read(&folder.join("enable"))?.as_deref() == Some("1");
    let block = block_of(&info).map(str::to_string);
    let enabled = enabled || block.is_some();
    Ok(Some(Backstore { at, device, enabled, block, read_only, serial }))
}

/// Another group than this one that has a LUN over the backstore, by its name; `None` if there is none. Each target port group
/// of a backstore lists its LUNs as "iSCSI/IQN/tpgt_1/lun_0", and ends each with a line feed and a zero byte
/// (`target_core_configfs.c`, `target_tg_pt_gp_members_show`).
///
/// # Errors
/// A line of the kernel is none of these.
pub fn other_group(
    machine: &Machine,
    at: &BackstoreName,
    name: &TpgName,
) -> Result<Option<String>, Fault> {
    let groups = Path::new(CORE).join(&at.hba).join(&at.name).join("alua");
    let own = format!("{}/tpgt_{}", name.iqn, name.tag);
    for group in machine.list(&groups)?.unwrap_or_default() {
        let members = machine.read(&groups.join(&group).join("members"))?.unwrap_or_default();
        for member in members.split(['\n', '\0']).filter(|member| !member.is_empty()) {
            let shown_by = shown_by(member).ok_or_else(|| {
                Fault::generic(format!("the backstore {} has the strange LUN {member:?}", at.name))
            })?;
            if shown_by != own {
                return Ok(Some(shown_by.to_string()));
            }
        }
    }
    Ok(None)
}

/// "IQN/tpgt_1" of a target port group's member.
fn shown_by(member: &str) -> Option<&str> {
    let (_fabric, rest) = member.split_once('/')?;
    let (group, lun) = rest.rsplit_once('/')?;
    (lun.starts_with("lun_") && group.contains("/tpgt_")).then_some(group)
}

/// The device that is open: "iBlock device: zd16  UDEV PATH: NAME  readonly: 0" (`target_core_iblock.c`,
/// `iblock_show_configfs_dev_params`).
fn block_of(info: &str) -> Option<&str> {
    info.split_once("iBlock device: ")?.1.split_whitespace().next()
}

/// The device that is open, and the name by which it was opened, where the kernel knows that.
fn open_device(info: &str) -> Option<(&str, &str)> {
    let rest = info.split_once("  UDEV PATH: ")?.1;
    Some((block_of(info)?, rest.rsplit_once("  readonly: ")?.0))
}

/// Whether the device is open for reading alone: "readonly: 1" behind its name.
fn is_read_only(info: &str) -> bool {
    let device = info.split_once("iBlock device: ").map(|(_, rest)| rest.lines().next());
    device
        .flatten()
        .and_then(|line| line.rsplit_once("  readonly: "))
        .is_some_and(|(_, flag)| flag == "1")
}

/// The attribute reads back as "T10 VPD Unit Serial Number: SERIAL".
fn serial_of(text: &str) -> &str {
    text.split_once(": ").map_or("", |(_, serial)| serial.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn a_backstore_beside_one_that_is_known_is_found() {
        let root = std::env::temp_dir().join(format!("hasan-stores-{}", std::process::id()));
        let machine = Machine::recorded(&root);
        for name in ["iblock_7/known", "iblock_7/beside", "iblock_8/only"] {
            let folder = Path::new(CORE).join(name);
            machine.replace_file(&folder.join("info"), "iBlock device: zd0").unwrap();
            machine.replace_file(&folder.with_file_name("hba_info"), "").unwrap();
        }
        let at = |hba: &str, name: &str| {
            Some(BackstoreName { hba: hba.to_string(), name: name.to_string() })
        };
        let luns = BTreeMap::from([
            (0, at("iblock_7", "known")),
            (1, at("iblock_8", "only")),
            (2, at("iblock_9", "gone")),
        ]);
        let tpg = Tpg { luns, ..Tpg::default() };
        for tpg in [None, Some(&tpg)] {
            let found = backstores_beside(&machine, tpg).unwrap();
            let names: Vec<&str> = found.iter().map(|each| each.at.name.as_str()).collect();
            assert_eq!(names, ["beside", "known", "only"], "{tpg:?}");
        }
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_backstore_that_another_group_shows_is_known() {
        let root = std::env::temp_dir().join(format!("hasan-groups-{}", std::process::id()));
        let machine = Machine::recorded(&root);
        let at = BackstoreName { hba: "iblock_7".to_string(), name: "x".to_string() };
        let name = TpgName { iqn: "iqn.2025-01.lab.home:a".to_string(), tag: 1 };
        let members = Path::new(CORE).join("iblock_7/x/alua/default_tg_pt_gp/members");
        assert_eq!(other_group(&machine, &at, &name).unwrap(), None);
        let (own, other) = (
            "iSCSI/iqn.2025-01.lab.home:a/tpgt_1/lun_0\n\0",
            "iSCSI/iqn.2025-01.lab.home:a/tpgt_12/lun_0\n\0",
        );
        for (text, want) in [
            (String::new(), None),
            (own.to_string(), None),
            (format!("{own}{other}"), Some("iqn.2025-01.lab.home:a/tpgt_12")),
        ] {
            machine.replace_file(&members, &text).unwrap();
            assert_eq!(other_group(&machine, &at, &name).unwrap().as_deref(), want, "{text}");
        }
        machine.replace_file(&members, &format!("{own}strange\n\0")).unwrap();
        let said = other_group(&machine, &at, &name).unwrap_err().reason;
        assert!(said.contains("x has the strange LUN \"strange\""), "{said}");
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_glance_sees_each_lun_that_comes_goes_or_leads_elsewhere() {
        let root = std::env::temp_dir().join(format!("hasan-glance-{}", std::process::id()));
        let machine = Machine::recorded(&root);
        let name = TpgName { iqn: "iqn.2025-01.lab.home:a".to_string(), tag: 1 };
        assert!(glance(&machine, &name).unwrap().is_none());
        let folder = folder(&name);
        machine.replace_file(&folder.join("enable"), "1").unwrap();
        for attribute in ATTRIBUTES {
            machine.replace_file(&folder.join("attrib").join(attribute), "0").unwrap();
        }
        let acl = folder.join("acls/iqn.2025-01.lab.home:b");
        for path in ["np", "lun/lun_0"] {
            machine.replace_file(&folder.join(path).join("file"), "").unwrap();
        }
        machine.replace_file(&acl.join("lun_0/file"), "").unwrap();
        for path in [folder.join("lun/lun_0"), acl.join("lun_0")] {
            // The clock by which the file system stamps goes in steps.
            let made = std::fs::File::open(root.join(path.strip_prefix("/").unwrap())).unwrap();
            made.set_modified(UNIX_EPOCH).unwrap();
        }
        let mut before = glance(&machine, &name).unwrap();
        assert_eq!(glance(&machine, &name).unwrap(), before);
        let changes: [&dyn Fn(); 5] = [
            &|| machine.make_dir(&folder.join("lun/lun_1")).unwrap(),
            &|| machine.make_link(Path::new("/x"), &folder.join("lun/lun_0/hasan")).unwrap(),
            &|| machine.make_link(Path::new("/x"), &acl.join("lun_0/hasan")).unwrap(),
            &|| machine.make_dir(&acl.join("lun_1")).unwrap(),
            &|| machine.remove_dir(&acl.join("lun_1")).unwrap(),
        ];
        for (at, change) in changes.iter().enumerate() {
            change();
            let after = glance(&machine, &name).unwrap();
            assert_ne!(after, before, "change {at}");
            before = after;
        }
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn the_open_device_and_the_serial_are_read() {
        let info = "Status: ACTIVATED  Max Queue Depth: 128  SectorSize: 512  HwMaxSectors: 16384\n        \
                    iBlock device: zd16  UDEV PATH: /dev/zvol/p/a b  readonly: 0\n        Major: 230 Minor: 16  \
                    CLAIMED: IBLOCK\n";
        assert_eq!(block_of(info), Some("zd16"));
        assert!(!is_read_only(info) && is_read_only(&info.replace("readonly: 0", "readonly: 1")));
        assert_eq!(open_device(info), Some(("zd16", "/dev/zvol/p/a b")));
        for text in ["", "Status: DEACTIVATED", "iBlock device: "] {
            assert_eq!(block_of(text), None, "{text:?}");
            assert_eq!(open_device(text), None, "{text:?}");
        }
        let unnamed = "        iBlock device: zd16  readonly: 0\n";
        assert_eq!((block_of(unnamed), open_device(unnamed)), (Some("zd16"), None));
        assert_eq!(serial_of("T10 VPD Unit Serial Number: abc"), "abc");
        assert_eq!(serial_of(""), "");
    }
}
