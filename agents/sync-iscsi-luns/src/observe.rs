//! What there is: zvols by one `zfs get`, LUNs by configfs.

use crate::Config;
use crate::identity::{Live, PROPERTIES};
use hasan::lio::{self, Backstore, Tpg, TpgName};
use hasan::machine::Machine;
use hasan::ocf::Fault;
use hasan::zfs::{self, Dataset};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What there is.
pub(crate) struct Actual {
    pub(crate) tpg: Option<Tpg>,
    pub(crate) backstores: Vec<Backstore>,
    pub(crate) datasets: Vec<Dataset>,
    pub(crate) pool_guid: u64,
    /// The kernel's name of each zvol's device, where it is there.
    pub(crate) blocks: BTreeMap<String, String>,
    /// The persistent reservations of each serial in the group that has some.
    pub(crate) reservations: BTreeMap<String, String>,
}

pub(crate) fn observe(machine: &Machine, config: &Config) -> Result<Actual, Fault> {
    let columns = "name,property,value,source";
    let dataset = config.dataset.as_str();
    let kinds = "filesystem,volume";
    let arguments = ["get", "-Hp", "-r", "-t", kinds, "-o", columns, PROPERTIES, dataset];
    let datasets = zfs::parse_datasets(&machine.run("zfs", &arguments)?)?;
    // A list without the dataset itself is no list of what is below it.
    if !datasets.iter().any(|each| each.name == dataset) {
        return Err(Fault::generic(format!("\"zfs get\" does not show {dataset}")));
    }
    let guid = machine.run("zpool", &["get", "-Hp", "-o", "value", "guid", config.pool()])?;
    let guid = guid.trim();
    let pool_guid = guid.parse().map_err(|_| {
        Fault::generic(format!("the pool {:?} has the strange guid {guid:?}", config.pool()))
    })?;
    let tpg = lio::tpg(machine, &config.tpg)?;
    let backstores = lio::backstores(machine)?;
    Ok(Actual {
        reservations: reservations(machine, tpg.as_ref(), &backstores)?,
        tpg,
        backstores,
        blocks: blocks(machine, &datasets)?,
        datasets,
        pool_guid,
    })
}

/// The persistent reservations of the group's LUNs, by serial.
pub(crate) fn reservations(
    machine: &Machine,
    tpg: Option<&Tpg>,
    backstores: &[Backstore],
) -> Result<BTreeMap<String, String>, Fault> {
    let mut found = BTreeMap::new();
    for at in tpg.into_iter().flat_map(|tpg| tpg.luns.values()).flatten() {
        let Some(backstore) = backstores.iter().find(|each| each.at == *at) else { continue };
        let line = lio::reservations::read(machine, &backstore.serial)?;
        if !line.is_empty() {
            found.insert(backstore.serial.clone(), line);
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
    let tpg = lio::tpg(machine, name)?;
    let now = reservations(machine, tpg.as_ref(), &lio::backstores(machine)?)?;
    let text = machine.read(&kept_path(name))?.unwrap_or_default();
    let kept: BTreeMap<String, String> = serde_json::from_str(&text).unwrap_or_default();
    Ok(now != kept)
}

pub(crate) fn blocks(
    machine: &Machine,
    datasets: &[Dataset],
) -> Result<BTreeMap<String, String>, Fault> {
    let mut blocks = BTreeMap::new();
    for zvol in
        datasets.iter().filter(|each| each.values.get("type").is_some_and(|t| t == "volume"))
    {
        let block = machine.block(&zfs::zvol_device(&zvol.name))?;
        blocks.extend(block.map(|block| (zvol.name.clone(), block)));
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
    for (number, at) in actual.tpg.iter().flat_map(|tpg| &tpg.luns) {
        let backstore = actual.backstores.iter().find(|each| Some(&each.at) == at.as_ref());
        let Some(backstore) = backstore.filter(|each| each.enabled) else { continue };
        let Some(zvol) = backstore.block.as_deref().and_then(|block| zvols.get(block)) else {
            continue;
        };
        let one = Live {
            lun: *number,
            serial: backstore.serial.clone(),
            name: backstore.at.name.clone(),
            reservations: actual.reservations.get(&backstore.serial).cloned().unwrap_or_default(),
        };
        live.entry(zvol.to_string()).or_insert(one);
    }
    live
}

/// Whether a LUN is over a zvol of ours that is there no more.
pub(crate) fn is_leftover(
    config: &Config,
    actual: &Actual,
    at: Option<&lio::BackstoreName>,
) -> bool {
    let below = zfs::zvol_device(&config.dataset);
    let backstore = actual.backstores.iter().find(|each| Some(&each.at) == at);
    backstore.is_some_and(|each| each.device.starts_with(&below))
}
