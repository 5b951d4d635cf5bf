//! What there is: zvols by one `zfs get`, LUNs by configfs.

use crate::Config;
use crate::identity::{Live, PROPERTIES, SERIAL};
use hasan::lio::{self, Backstore, Tpg, TpgName};
use hasan::machine::Machine;
use hasan::ocf::Fault;
use hasan::zfs::{self, Dataset};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Persistent reservations by serial; `None` where they cannot be read.
pub(crate) type Reserved = BTreeMap<String, Option<String>>;

/// What there is.
pub(crate) struct Actual {
    pub(crate) tpg: Option<Tpg>,
    pub(crate) backstores: Vec<Backstore>,
    pub(crate) datasets: Vec<Dataset>,
    /// 0 where nobody needs it.
    pub(crate) pool_guid: u64,
    /// The kernel's name of each zvol's device, where it is there.
    pub(crate) blocks: BTreeMap<String, String>,
    /// The persistent reservations of each serial in the group that has some; `None` where they cannot be read.
    pub(crate) reservations: Reserved,
}

/// The VLAN's dataset and all below it. It asks ZFS, which may take its time: nothing is locked meanwhile.
pub(crate) fn list(machine: &Machine, config: &Config) -> Result<Vec<Dataset>, Fault> {
    let columns = "name,property,value,source";
    let dataset = config.dataset.as_str();
    let kinds = "filesystem,volume";
    let arguments = ["get", "-Hp", "-r", "-t", kinds, "-o", columns, PROPERTIES, dataset];
    let datasets = zfs::parse_datasets(&machine.run("zfs", &arguments)?)?;
    // A list without the dataset itself is no list of what is below it.
    if !datasets.iter().any(|each| each.name == dataset) {
        return Err(Fault::generic(format!("\"zfs get\" does not show {dataset}")));
    }
    Ok(datasets)
}

pub(crate) fn observe(
    machine: &Machine,
    config: &Config,
    datasets: Vec<Dataset>,
) -> Result<Actual, Fault> {
    let tpg = lio::tpg(machine, &config.tpg)?;
    let backstores = lio::backstores(machine)?;
    Ok(Actual {
        reservations: reservations(machine, tpg.as_ref(), &backstores)?,
        tpg,
        backstores,
        blocks: blocks(machine, &datasets)?,
        pool_guid: pool_guid(machine, config, &datasets)?,
        datasets,
    })
}

/// The same zvols, and the LUNs as they are now.
pub(crate) fn observe_again(
    machine: &Machine,
    config: &Config,
    before: Actual,
) -> Result<Actual, Fault> {
    Ok(Actual {
        tpg: lio::tpg(machine, &config.tpg)?,
        backstores: lio::backstores(machine)?,
        ..before
    })
}

/// Serials of new zvols are made of it.
fn pool_guid(machine: &Machine, config: &Config, datasets: &[Dataset]) -> Result<u64, Fault> {
    let is_new = |each: &Dataset| is_zvol(each) && !each.own.contains_key(SERIAL);
    if !datasets.iter().any(is_new) {
        return Ok(0);
    }
    let guid = machine.run("zpool", &["get", "-Hp", "-o", "value", "guid", config.pool()])?;
    let guid = guid.trim();
    guid.parse().map_err(|_| {
        Fault::generic(format!("the pool {:?} has the strange guid {guid:?}", config.pool()))
    })
}

fn is_zvol(dataset: &Dataset) -> bool {
    dataset.values.get("type").is_some_and(|kind| kind == "volume")
}

/// The persistent reservations of the group's LUNs, by serial.
pub(crate) fn reservations(
    machine: &Machine,
    tpg: Option<&Tpg>,
    backstores: &[Backstore],
) -> Result<Reserved, Fault> {
    let mut found = BTreeMap::new();
    let with_file = lio::reservations::serials(machine)?;
    let by_name = lio::by_name(backstores);
    for at in tpg.into_iter().flat_map(|tpg| tpg.luns.values()).flatten() {
        let Some(backstore) = by_name.get(at) else { continue };
        if !with_file.contains(&backstore.serial) {
            continue;
        }
        match lio::reservations::read(machine, &backstore.serial) {
            Ok(line) if line.is_empty() => {}
            Ok(line) => {
                found.insert(backstore.serial.clone(), Some(line));
            }
            Err(fault) => {
                tracing::error!("{}", fault.reason);
                found.insert(backstore.serial.clone(), None);
            }
        }
    }
    Ok(found)
}

/// What was last written to the zvols, so that a monitor sees a change without a program. A record of what was done, not
/// of what is.
pub(crate) fn kept_path(name: &TpgName) -> PathBuf {
    Path::new("/run/hasan").join(format!("reservations.{}.{}.json", name.iqn, name.tag))
}

/// Whether an initiator has changed a persistent reservation since the last sync.
pub(crate) fn have_reservations_changed(machine: &Machine, name: &TpgName) -> Result<bool, Fault> {
    let text = machine.read(&kept_path(name))?.unwrap_or_default();
    let kept: Reserved = serde_json::from_str::<BTreeMap<String, String>>(&text)
        .unwrap_or_default()
        .into_iter()
        .map(|(serial, line)| (serial, Some(line)))
        .collect();
    if kept.is_empty() && lio::reservations::serials(machine)?.is_empty() {
        return Ok(false);
    }
    let tpg = lio::tpg(machine, name)?;
    let mut now = reservations(machine, tpg.as_ref(), &lio::backstores(machine)?)?;
    // What cannot be read would be due for ever.
    now.retain(|_, line| line.is_some());
    Ok(now.iter().any(|(serial, line)| kept.get(serial) != Some(line)) || now.len() < kept.len())
}

pub(crate) fn blocks(
    machine: &Machine,
    datasets: &[Dataset],
) -> Result<BTreeMap<String, String>, Fault> {
    let mut blocks = BTreeMap::new();
    for zvol in datasets.iter().filter(|each| is_zvol(each)) {
        let link = machine.link(&zfs::zvol_device(&zvol.name))?;
        let block = link.as_deref().and_then(Path::file_name);
        blocks.extend(block.map(|name| (zvol.name.clone(), name.to_string_lossy().into_owned())));
    }
    Ok(blocks)
}

/// The kernel's names of the zvols whose links are below a folder.
pub(crate) fn blocks_below(machine: &Machine, folder: &Path) -> Result<BTreeSet<String>, Fault> {
    let mut blocks = BTreeSet::new();
    for name in machine.list(folder)?.unwrap_or_default() {
        let path = folder.join(name);
        match machine.link(&path)? {
            Some(target) => {
                blocks.extend(target.file_name().map(|name| name.to_string_lossy().into_owned()))
            }
            None => blocks.extend(blocks_below(machine, &path)?),
        }
    }
    Ok(blocks)
}

/// The zvols that the group shows, whoever made their LUNs.
pub(crate) fn live(actual: &Actual) -> BTreeMap<String, Live> {
    let zvols: BTreeMap<&str, &str> =
        actual.blocks.iter().map(|(zvol, block)| (block.as_str(), zvol.as_str())).collect();
    let mut live = BTreeMap::new();
    let by_name = lio::by_name(&actual.backstores);
    for (number, at) in actual.tpg.iter().flat_map(|tpg| &tpg.luns) {
        let backstore = at.as_ref().and_then(|at| by_name.get(at));
        let Some(backstore) = backstore.filter(|each| each.enabled) else { continue };
        let Some(zvol) = backstore.block.as_deref().and_then(|block| zvols.get(block)) else {
            continue;
        };
        let one = Live {
            lun: *number,
            serial: backstore.serial.clone(),
            name: backstore.at.name.clone(),
            reservations: match actual.reservations.get(&backstore.serial) {
                None => Some(String::new()),
                Some(line) => line.clone(),
            },
        };
        live.entry(zvol.to_string()).or_insert(one);
    }
    live
}

/// Whether a backstore is over a zvol of ours, perhaps one that is there no more.
pub(crate) fn is_leftover(config: &Config, backstore: &Backstore) -> bool {
    backstore.device.starts_with(zfs::zvol_device(&config.dataset))
}
