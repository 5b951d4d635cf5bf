//! What there is: zvols by one `zfs get`, LUNs by configfs.

use crate::Config;
use crate::identity::{Live, PROPERTIES, SERIAL};
use hasan::lio::{self, Attributes, Backstore, BackstoreName, Tpg, TpgName};
use hasan::machine::Machine;
use hasan::ocf::Fault;
use hasan::zfs::{self, Dataset};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Persistent reservations by serial; `None` where they cannot be read.
pub(crate) type Reserved = BTreeMap<String, Option<String>>;

/// The backstores over zvols of ours that another group shows, and which one.
pub(crate) type Elsewhere = BTreeMap<BackstoreName, String>;

/// What there is.
pub(crate) struct Actual {
    pub(crate) tpg: Option<Tpg>,
    pub(crate) backstores: Vec<Backstore>,
    pub(crate) elsewhere: Elsewhere,
    pub(crate) datasets: Vec<Dataset>,
    /// 0 where nobody needs it.
    pub(crate) pool_guid: u64,
    /// The kernel's name of each zvol's device, where it is there.
    pub(crate) blocks: BTreeMap<String, String>,
    /// The persistent reservations of each serial in the group that has some; `None` where they cannot be read.
    pub(crate) reservations: Reserved,
    /// What is set of the group's backstores that somebody else has made.
    pub(crate) attributes: BTreeMap<BackstoreName, Attributes>,
    /// The zvols that had a LUN after the last start or sync; `None` if that is not known.
    pub(crate) served: Option<BTreeSet<String>>,
}

/// The VLAN's dataset and all below it, as rows. It asks ZFS, which may take its time: nothing is locked meanwhile.
pub(crate) fn rows(machine: &Machine, config: &Config) -> Result<String, Fault> {
    zfs::dataset_rows(machine, &config.dataset, "filesystem,volume", PROPERTIES)
}

/// Reads these rows.
pub(crate) fn datasets(config: &Config, rows: &str) -> Result<Vec<Dataset>, Fault> {
    let datasets = zfs::parse_datasets(rows)?;
    // A list without the dataset itself is no list of what is below it.
    if !datasets.iter().any(|each| each.name == config.dataset) {
        return Err(Fault::generic(format!("\"zfs get\" does not show {}", config.dataset)));
    }
    Ok(datasets)
}

pub(crate) fn observe(
    machine: &Machine,
    config: &Config,
    datasets: Vec<Dataset>,
) -> Result<Actual, Fault> {
    let (tpg, backstores) = lio::observe(machine, &config.tpg)?;
    let mut blocks = blocks(machine, &datasets)?;
    forget_wrong(machine, &backstores, &mut blocks)?;
    let known: BTreeSet<&String> = blocks.values().collect();
    let is_ours = |each: &Backstore| {
        is_leftover(&config.dataset, each)
            || each.block.as_ref().is_some_and(|it| known.contains(it))
    };
    Ok(Actual {
        elsewhere: elsewhere(machine, &config.tpg, tpg.as_ref(), &backstores, is_ours),
        reservations: reservations(machine, tpg.as_ref(), &backstores)?,
        attributes: attributes(machine, tpg.as_ref(), &backstores)?,
        served: served(machine, &config.tpg)?,
        tpg,
        backstores,
        blocks,
        pool_guid: pool_guid(machine, config, &datasets)?,
        datasets,
    })
}

/// The backstores of ours that another group shows: that of another resource, whose dataset lies in this one or around it, or
/// a person's. Their zvols are its LUNs, and stay so. One that cannot be asked for stands in nobody's way: the kernel removes
/// none that is shown.
pub(crate) fn elsewhere(
    machine: &Machine,
    name: &TpgName,
    tpg: Option<&Tpg>,
    backstores: &[Backstore],
    is_ours: impl Fn(&Backstore) -> bool,
) -> Elsewhere {
    let own: BTreeSet<&BackstoreName> =
        tpg.into_iter().flat_map(|tpg| tpg.luns.values()).flatten().collect();
    let mut elsewhere = BTreeMap::new();
    for each in backstores.iter().filter(|each| is_ours(each) && !own.contains(&each.at)) {
        match lio::other_group(machine, &each.at, name) {
            Ok(group) => elsewhere.extend(group.map(|group| (each.at.clone(), group))),
            Err(fault) => tracing::warn!("{}", fault.reason),
        }
    }
    elsewhere
}

/// The same zvols, and the LUNs as they are now.
pub(crate) fn observe_again(
    machine: &Machine,
    config: &Config,
    actual: &mut Actual,
) -> Result<(), Fault> {
    (actual.tpg, actual.backstores) = lio::observe(machine, &config.tpg)?;
    Ok(())
}

/// Serials of new zvols are made of it.
fn pool_guid(machine: &Machine, config: &Config, datasets: &[Dataset]) -> Result<u64, Fault> {
    let is_new = |each: &Dataset| each.is("type", "volume") && !each.own.contains_key(SERIAL);
    if !datasets.iter().any(is_new) {
        return Ok(0);
    }
    zfs::pool_guid(machine, config.pool())
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

fn attributes(
    machine: &Machine,
    tpg: Option<&Tpg>,
    backstores: &[Backstore],
) -> Result<BTreeMap<BackstoreName, Attributes>, Fault> {
    let by_name = lio::by_name(backstores);
    let led_to = tpg.into_iter().flat_map(|tpg| tpg.luns.values()).flatten();
    let theirs = led_to.filter_map(|at| by_name.get(at)).filter(|each| !each.is_of_hasan());
    theirs.map(|each| Ok((each.at.clone(), lio::attributes(machine, each)?))).collect()
}

/// What was last written to the zvols, so that a monitor sees a change without a program. A record of what was done, not
/// of what is.
pub(crate) fn kept_path(name: &TpgName) -> PathBuf {
    Path::new("/run/hasan").join(format!("reservations.{}.{}.json", name.iqn, name.tag))
}

/// Which zvols had a LUN at the end of the last start or sync: a LUN that is missing was taken away by somebody, or was never
/// made. A record of what was done, not of what is.
fn served_path(name: &TpgName) -> PathBuf {
    Path::new("/run/hasan").join(format!("served.{}.{}.json", name.iqn, name.tag))
}

/// Reads that record.
pub(crate) fn served(machine: &Machine, name: &TpgName) -> Result<Option<BTreeSet<String>>, Fault> {
    let text = machine.read(&served_path(name))?;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
}

/// Writes that record.
pub(crate) fn keep_served(
    machine: &Machine,
    config: &Config,
    actual: &Actual,
) -> Result<(), Fault> {
    let zvols: BTreeSet<String> = live(actual).into_keys().collect();
    machine.replace_file(&served_path(&config.tpg), &serde_json::json!(zvols).to_string())
}

/// The persistent reservations that initiators have changed since the last sync, by serial; empty for one that is gone.
/// One that cannot be read is left out: it would be due for ever.
pub(crate) fn changed_reservations(
    machine: &Machine,
    name: &TpgName,
) -> Result<BTreeMap<String, String>, Fault> {
    let text = machine.read(&kept_path(name))?.unwrap_or_default();
    let kept: BTreeMap<String, String> = serde_json::from_str(&text).unwrap_or_default();
    if kept.is_empty() && lio::reservations::serials(machine)?.is_empty() {
        return Ok(BTreeMap::new());
    }
    let (tpg, backstores) = lio::observe(machine, name)?;
    let now = reservations(machine, tpg.as_ref(), &backstores)?;
    let by_name = lio::by_name(&backstores);
    let led_to = tpg.iter().flat_map(|tpg| tpg.luns.values()).flatten();
    let shown = led_to.filter_map(|at| by_name.get(at)).map(|each| each.serial.as_str()).collect();
    Ok(changes(&kept, &now, &shown))
}

/// Only of a serial that is shown it can be said that nobody has reserved it any more: a start that was cut off has LUNs left
/// to make.
fn changes(
    kept: &BTreeMap<String, String>,
    now: &Reserved,
    shown: &BTreeSet<&str>,
) -> BTreeMap<String, String> {
    let is_gone = |serial: &&String| !now.contains_key(*serial) && shown.contains(serial.as_str());
    let gone = kept.keys().filter(is_gone);
    let gone = gone.map(|serial| (serial.clone(), String::new()));
    let read = now.iter().filter_map(|(serial, line)| Some((serial, line.as_ref()?)));
    let new = read.filter(|(serial, line)| kept.get(*serial) != Some(line));
    gone.chain(new.map(|(serial, line)| (serial.clone(), line.clone()))).collect()
}

fn blocks(machine: &Machine, datasets: &[Dataset]) -> Result<BTreeMap<String, String>, Fault> {
    let mut blocks = BTreeMap::new();
    for zvol in datasets.iter().filter(|each| each.is("type", "volume")) {
        let link = machine.link(&zfs::zvol_device(&zvol.name))?;
        let block = link.as_deref().and_then(Path::file_name);
        blocks.extend(block.map(|name| (zvol.name.clone(), name.to_string_lossy().into_owned())));
    }
    Ok(blocks)
}

/// The same the other way round: the zvol of each device.
pub(crate) fn zvols(blocks: &BTreeMap<String, String>) -> BTreeMap<&str, &str> {
    blocks.iter().map(|(zvol, block)| (block.as_str(), zvol.as_str())).collect()
}

/// Leaves out zvols whose links are behind, and lead to the device of another one that is served: they would be taken for it.
/// Only what is served is asked for, since the first one to open a zvol waits for ZFS.
fn forget_wrong(
    machine: &Machine,
    backstores: &[Backstore],
    blocks: &mut BTreeMap<String, String>,
) -> Result<(), Fault> {
    let served: BTreeSet<&String> = backstores
        .iter()
        .filter(|each| each.enabled)
        .filter_map(|each| each.block.as_ref())
        .collect();
    let mut wrong = Vec::new();
    for (zvol, _) in blocks.iter().filter(|(_, block)| served.contains(block)) {
        if !zfs::has_device(machine, zvol)? {
            wrong.push(zvol.clone());
        }
    }
    blocks.retain(|zvol, _| !wrong.contains(zvol));
    Ok(())
}

/// The zvols that the group shows, whoever made their LUNs.
pub(crate) fn live(actual: &Actual) -> BTreeMap<String, Live> {
    let zvols = zvols(&actual.blocks);
    let mut live = BTreeMap::new();
    let by_name = lio::by_name(&actual.backstores);
    for (number, at) in actual.tpg.iter().flat_map(|tpg| &tpg.luns) {
        let backstore = at.as_ref().and_then(|at| by_name.get(at));
        let Some(backstore) = backstore.filter(|each| each.enabled) else { continue };
        let Some(zvol) = backstore.block.as_deref().and_then(|block| zvols.get(block)) else {
            continue;
        };
        // A zvol that takes no writes says so itself.
        let takes_writes =
            || !actual.datasets.iter().any(|it| it.name == *zvol && it.is("readonly", "on"));
        let attributes = actual
            .attributes
            .get(&backstore.at)
            .map(|all| Attributes { read_only: all.read_only && takes_writes(), ..*all });
        let one = Live {
            lun: *number,
            serial: backstore.serial.clone(),
            name: backstore.at.name.clone(),
            reservations: match actual.reservations.get(&backstore.serial) {
                None => Some(String::new()),
                Some(line) => line.clone(),
            },
            attributes,
        };
        live.entry(zvol.to_string()).or_insert(one);
    }
    live
}

/// Whether a backstore is over a zvol of ours, perhaps one that is there no more.
pub(crate) fn is_leftover(dataset: &str, backstore: &Backstore) -> bool {
    backstore.device.starts_with(zfs::zvol_device(dataset))
}

/// Whether it is over such a zvol itself, and not over a snapshot of it (`snapdev`) or a partition on it.
pub(crate) fn is_over_zvol(dataset: &str, backstore: &Backstore) -> bool {
    // The kernel's name of a partition is that of its disk, "p", and a number (`block/genhd.c`, `%pg`).
    let is_partition = |block: &String| block.trim_start_matches("zd").contains('p');
    is_leftover(dataset, backstore)
        && !backstore.device.to_string_lossy().contains('@')
        && !backstore.block.as_ref().is_some_and(is_partition)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_new_other_or_gone_but_never_unreadable() {
        let text = |word: &str| word.to_string();
        let kept =
            [("same", "a"), ("other", "b"), ("gone", "c"), ("unreadable", "d"), ("to come", "e")]
                .map(|(serial, line)| (text(serial), text(line)));
        let now = [
            ("same", Some("a")),
            ("other", Some("x")),
            ("unreadable", None),
            ("new", Some("y")),
            ("new and unreadable", None),
        ]
        .map(|(serial, line)| (text(serial), line.map(text)));
        let want = [("other", "x"), ("gone", ""), ("new", "y")]
            .map(|(serial, line)| (text(serial), text(line)));
        let shown = BTreeSet::from(["same", "other", "gone", "unreadable", "new"]);
        let changes = changes(&BTreeMap::from(kept), &BTreeMap::from(now), &shown);
        assert_eq!(changes, BTreeMap::from(want));
    }
}
