//! Start, sync, stop and state of one VLAN's LUNs.

use crate::Config;
use crate::access::{self, Access};
use crate::identity::{
    self, Identities, Identity, Live, NEXT, Note, PROPERTIES, Patience, RESERVATIONS, Seen,
};
use hasan::lio::{self, Backstore, Lun, Shell, Step, Tpg, TpgName, saveconfig};
use hasan::machine::Machine;
use hasan::ocf::{Fault, Outcome, Rc, Table};
use hasan::parallel::in_parallel;
use hasan::zfs::{self, Dataset};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long the nodes of zvols may take to appear after an import.
const NODES: Duration = Duration::from_secs(30);
/// How many zvols get their properties at once: each change waits for a transaction group, which they can share.
const NOTES_AT_ONCE: usize = 8;
/// How many zvols a reason names.
const NAMED: usize = 2;

/// What there is.
struct Actual {
    tpg: Option<Tpg>,
    backstores: Vec<Backstore>,
    datasets: Vec<Dataset>,
    pool_guid: u64,
    /// The kernel's name of each zvol's device, where it is there.
    blocks: BTreeMap<String, String>,
    /// The persistent reservations of each serial in the group that has some.
    reservations: BTreeMap<String, String>,
}

/// Serves all zvols that can be served.
pub(crate) fn start(machine: &Machine, config: &Config) -> Outcome {
    if zfs::pool_state(machine, config.pool())?.is_none() {
        return Err(Fault::generic(format!("the pool {:?} is not imported here", config.pool())));
    }
    let _lock = lio::lock(machine)?;
    lio::mend(machine)?;
    let access = access::read(machine, &config.access, config.tpg.tag)?;
    let mut actual = observe(machine, config)?;
    await_nodes(machine, config, &mut actual)?;
    let (identities, left) = reconcile(machine, config, &access, &actual, None)?;
    tell(&identities, &access);
    if let Some(step) = left.first() {
        return Err(Fault::generic(format!("the LUNs are not complete: left to do: {step}")));
    }
    if identities.luns.is_empty()
        && let Some((zvol, why)) = identities.skipped.first()
    {
        return Err(Fault::generic(format!("no zvol can be served; {zvol}: {why}")));
    }
    Ok(Rc::Success)
}

/// Brings the LUNs in line with the zvols while they are served. What does not work is reported, and stops nothing.
pub(crate) fn sync(machine: &Machine, config: &Config) -> Outcome {
    let _lock = lio::lock(machine)?;
    lio::mend(machine)?;
    let actual = observe(machine, config)?;
    let Some(tpg) = &actual.tpg else { return Ok(Rc::NotRunning) };
    let access = access::read_or_keep(machine, &config.access, config.tpg.tag, tpg);
    let (identities, left) = reconcile(machine, config, &access, &actual, Some(patience(config)))?;
    tell(&identities, &access);
    let mut troubles = access.troubles;
    troubles.extend(identities.skipped.iter().map(|(zvol, why)| format!("{zvol}: {why}")));
    troubles.extend(left.iter().map(|step| format!("left to do: {step}")));
    match troubles.len() {
        0 => Ok(Rc::Success),
        count => {
            let first = troubles[..count.min(NAMED)].join("; ");
            Err(Fault::new(Rc::Degraded, format!("{count} not as wanted: {first}")))
        }
    }
}

/// What a sync would do now, and why. Others may be at work, so that it can be old as soon as it is read.
pub(crate) fn explain(machine: &Machine, config: &Config) -> Result<Table, Fault> {
    let actual = observe(machine, config)?;
    let live = live(&actual);
    let mut identities = identities(config, &actual, Some(patience(config)));
    skip_without_device(&actual, &mut identities);
    let access = match &actual.tpg {
        Some(tpg) => access::read_or_keep(machine, &config.access, config.tpg.tag, tpg),
        None => access::read(machine, &config.access, config.tpg.tag)?,
    };
    let mut rows: Vec<Vec<String>> = Vec::new();
    for each in &identities.luns {
        let state = if live.contains_key(&each.zvol) { "served" } else { "to be served" };
        let (lun, serial) = (each.lun.to_string(), each.serial.clone());
        rows.push(vec![each.zvol.clone(), lun, serial, each.name.clone(), state.to_string()]);
    }
    for (zvol, why) in identities.skipped.iter().chain(&identities.left) {
        let none = || "-".to_string();
        rows.push(vec![zvol.clone(), none(), none(), none(), format!("not served: {why}")]);
    }
    rows.sort();
    let steps =
        plan(config, &access, &actual, &identities).iter().map(ToString::to_string).collect();
    Ok(Table { head: vec!["ZVOL", "LUN", "SERIAL", "BACKSTORE", "STATE"], rows, steps })
}

fn patience(config: &Config) -> Patience {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Patience { now, settle: config.settle }
}

fn tell(identities: &Identities, access: &Access) {
    for trouble in &access.troubles {
        tracing::warn!("{trouble}");
    }
    for (zvol, why) in &identities.skipped {
        tracing::warn!("{zvol} is not served: {why}");
    }
    for (zvol, why) in &identities.left {
        tracing::info!("{zvol} is not served: {why}");
    }
}

fn observe(machine: &Machine, config: &Config) -> Result<Actual, Fault> {
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
fn reservations(
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
fn kept_path(name: &TpgName) -> PathBuf {
    Path::new("/run/hasan").join(format!("reservations.{}.{}.json", name.iqn, name.tag))
}

/// Whether an initiator has changed a persistent reservation since the last sync.
pub(crate) fn have_reservations_changed(machine: &Machine, name: &TpgName) -> Result<bool, Fault> {
    let tpg = lio::tpg(machine, name)?;
    let now = reservations(machine, tpg.as_ref(), &lio::backstores(machine)?)?;
    let kept = machine.read(&kept_path(name))?.unwrap_or_else(|| "{}".to_string());
    Ok(serde_json::json!(now).to_string() != kept)
}

fn blocks(machine: &Machine, datasets: &[Dataset]) -> Result<BTreeMap<String, String>, Fault> {
    let mut blocks = BTreeMap::new();
    for zvol in
        datasets.iter().filter(|each| each.values.get("type").is_some_and(|t| t == "volume"))
    {
        let block = machine.block(&zfs::zvol_device(&zvol.name))?;
        blocks.extend(block.map(|block| (zvol.name.clone(), block)));
    }
    Ok(blocks)
}

/// After an import udev takes a moment to name the devices.
fn await_nodes(machine: &Machine, config: &Config, actual: &mut Actual) -> Result<(), Fault> {
    let wanted = identities(config, actual, None).luns;
    let is_here = |each: &Identity| machine.exists(&zfs::zvol_device(&each.zvol));
    machine.await_condition(NODES, || Ok(wanted.iter().all(is_here)))?;
    actual.blocks = blocks(machine, &actual.datasets)?;
    Ok(())
}

/// Gives identities, writes them down, makes the LUNs; a zvol that fails is left out. Returns what is left to do.
fn reconcile(
    machine: &Machine,
    config: &Config,
    access: &Access,
    actual: &Actual,
    patience: Option<Patience>,
) -> Result<(Identities, Vec<Step>), Fault> {
    let mut identities = identities(config, actual, patience);
    skip_without_device(actual, &mut identities);
    write_down(machine, config, &identities)?;
    let kept = kept(&identities);
    machine.replace_file(&kept_path(&config.tpg), &serde_json::json!(kept).to_string())?;
    let mut steps = plan(config, access, actual, &identities);
    while let Err(failure) = lio::apply_all(machine, &steps) {
        let Step::MakeBackstore(_, lun) = &failure.step else { return Err(failure.into()) };
        let is_it = |each: &&Identity| zfs::zvol_device(&each.zvol) == lun.device;
        let Some(bad) = identities.luns.iter().find(is_it).cloned() else {
            return Err(failure.into());
        };
        identities.skip(&bad.zvol, failure.fault.reason);
        steps = plan_anew(machine, config, access, actual, &identities)?;
    }
    let left = plan_anew(machine, config, access, actual, &identities)?;
    show_saved(machine, &config.tpg, &zfs::zvol_device(&config.dataset));
    Ok((identities, left))
}

/// The persistent reservations that the zvols now hold, by serial.
fn kept(identities: &Identities) -> BTreeMap<&str, &str> {
    let with_some = identities.luns.iter().filter(|each| !each.reservations.is_empty());
    with_some.map(|each| (each.serial.as_str(), each.reservations.as_str())).collect()
}

/// The file of targetcli shows what the kernel has. It is for others to read, and decides nothing.
fn show_saved(machine: &Machine, name: &TpgName, zvols: &Path) {
    let show = || -> Result<(), Fault> {
        let tpg = lio::tpg(machine, name)?;
        let luns = match &tpg {
            Some(tpg) => saveconfig::saved(tpg, &lio::backstores(machine)?),
            None => BTreeMap::new(),
        };
        let group = tpg.as_ref().map(|tpg| (tpg, &luns));
        saveconfig::show(machine, name, group, |device| device.starts_with(zvols))
    };
    if let Err(fault) = show() {
        tracing::warn!("{}", fault.reason);
    }
}

fn skip_without_device(actual: &Actual, identities: &mut Identities) {
    for each in identities.luns.clone() {
        if !actual.blocks.contains_key(&each.zvol) {
            identities.skip(&each.zvol, "it has no device below /dev/zvol".to_string());
        }
    }
}

fn identities(config: &Config, actual: &Actual, patience: Option<Patience>) -> Identities {
    let live = live(actual);
    let ours: BTreeSet<u64> = live.values().map(|live| live.lun).collect();
    let shown = actual.tpg.iter().flat_map(|tpg| tpg.luns.iter());
    let leads = shown.filter(|(number, at)| at.is_some() && !ours.contains(number));
    identity::identities(&Seen {
        root: &config.dataset,
        datasets: &actual.datasets,
        pool_guid: actual.pool_guid,
        naming: &config.naming,
        live: &live,
        foreign: &leads
            .filter(|(_, at)| !is_leftover(config, actual, at.as_ref()))
            .map(|(number, _)| *number)
            .collect(),
        patience,
    })
}

/// The zvols that the group shows, whoever made their LUNs.
fn live(actual: &Actual) -> BTreeMap<String, Live> {
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
fn is_leftover(config: &Config, actual: &Actual, at: Option<&lio::BackstoreName>) -> bool {
    let below = zfs::zvol_device(&config.dataset);
    let backstore = actual.backstores.iter().find(|each| Some(&each.at) == at);
    backstore.is_some_and(|each| each.device.starts_with(&below))
}

/// What must be on disk before any LUN shows it. The mark goes first: a number that is written is then never free again.
fn write_down(machine: &Machine, config: &Config, identities: &Identities) -> Result<(), Fault> {
    if let Some(next) = identities.next {
        machine.run("zfs", &["set", &format!("{NEXT}={next}"), &config.dataset])?;
    }
    let notes: Vec<_> = identities.notes.iter().collect();
    in_parallel(&notes, NOTES_AT_ONCE, |(zvol, notes)| {
        let sets: Vec<String> = notes
            .iter()
            .filter_map(|note| match note {
                Note::Set(name, value) => Some(format!("{name}={value}")),
                Note::Remove(_) => None,
            })
            .collect();
        if !sets.is_empty() {
            let words: Vec<&str> = sets.iter().map(String::as_str).collect();
            machine.run("zfs", &[&["set"][..], &words, &[zvol.as_str()]].concat())?;
        }
        for note in notes.iter() {
            if let Note::Remove(name) = note {
                machine.run("zfs", &["inherit", name, zvol])?;
            }
        }
        Ok(())
    })
}

fn plan_anew(
    machine: &Machine,
    config: &Config,
    access: &Access,
    actual: &Actual,
    identities: &Identities,
) -> Result<Vec<Step>, Fault> {
    let now = Actual {
        tpg: lio::tpg(machine, &config.tpg)?,
        backstores: lio::backstores(machine)?,
        datasets: actual.datasets.clone(),
        pool_guid: actual.pool_guid,
        blocks: actual.blocks.clone(),
        reservations: actual.reservations.clone(),
    };
    Ok(plan(config, access, &now, identities))
}

/// The steps to the LUNs, and away from those of zvols that are gone or are not to be served; their backstores too.
fn plan(config: &Config, access: &Access, actual: &Actual, identities: &Identities) -> Vec<Step> {
    let shell = shell(config, access, actual, &identities.luns);
    let mut steps = lio::shell_up(&shell, actual.tpg.as_ref(), &actual.backstores);
    let removed: BTreeSet<u64> = steps
        .iter()
        .filter_map(|step| match step {
            Step::RemoveLun(_, number) => Some(*number),
            _ => None,
        })
        .collect();
    let shown = actual.tpg.iter().flat_map(|tpg| &tpg.luns);
    for (_, at) in shown.filter(|(number, _)| removed.contains(number)) {
        let Some(at) = at else { continue };
        let backstore = actual.backstores.iter().find(|each| each.at == *at);
        let serves = |backstore: &Backstore| shell.luns.values().any(|lun| backstore.serves(lun));
        if is_leftover(config, actual, Some(at)) && !backstore.is_some_and(serves) {
            steps.push(Step::RemoveBackstore(at.clone()));
        }
    }
    steps
}

fn shell(config: &Config, access: &Access, actual: &Actual, luns: &[Identity]) -> Shell {
    let everyone = access.everyone;
    let flag = |is_set: bool| if is_set { "1" } else { "0" };
    let mut wanted: BTreeMap<u64, Lun> = foreign(config, actual, luns);
    wanted.extend(luns.iter().map(|each| (each.lun, lun(actual, each))));
    Shell {
        tpg: config.tpg.clone(),
        attributes: BTreeMap::from([
            ("authentication", flag(access.is_authenticated())),
            ("generate_node_acls", flag(everyone)),
            ("cache_dynamic_acls", flag(everyone)),
            ("demo_mode_write_protect", flag(!everyone)),
            ("demo_mode_discovery", flag(everyone)),
            ("prod_mode_write_protect", "0"),
        ]),
        luns: wanted,
        initiators: access.initiators.clone(),
        credentials: access.credentials.clone(),
    }
}

/// LUNs that somebody has put into the group over something else: they stay as they are.
fn foreign(config: &Config, actual: &Actual, luns: &[Identity]) -> BTreeMap<u64, Lun> {
    let mut foreign = BTreeMap::new();
    for (number, at) in actual.tpg.iter().flat_map(|tpg| &tpg.luns) {
        let backstore = actual.backstores.iter().find(|each| Some(&each.at) == at.as_ref());
        let Some(backstore) = backstore else { continue };
        let is_ours = is_leftover(config, actual, Some(&backstore.at))
            || luns.iter().any(|each| actual.blocks.get(&each.zvol) == backstore.block.as_ref());
        if !is_ours {
            let name = backstore.at.name.clone();
            let (device, block) = (backstore.device.clone(), backstore.block.clone());
            let serial = backstore.serial.clone();
            let reservations = String::new();
            foreign.insert(*number, Lun { name, device, block, serial, reservations });
        }
    }
    foreign
}

fn lun(actual: &Actual, identity: &Identity) -> Lun {
    Lun {
        name: identity.name.clone(),
        device: zfs::zvol_device(&identity.zvol),
        block: actual.blocks.get(&identity.zvol).cloned(),
        serial: identity.serial.clone(),
        reservations: identity.reservations.clone(),
    }
}

pub(crate) fn stop(machine: &Machine, name: &TpgName, dataset: &str) -> Outcome {
    let _lock = lio::lock(machine)?;
    lio::mend(machine)?;
    if let Err(fault) = save_reservations(machine, name) {
        tracing::warn!("{}", fault.reason);
    }
    let zvols = zfs::zvol_device(dataset);
    let blocks = blocks_below(machine, &zvols)?;
    // A backstore that was cut off before its device was open has no device to know it by.
    let is_ours = |each: &Backstore| {
        each.device.starts_with(&zvols)
            || each.block.as_ref().is_some_and(|block| blocks.contains(block))
            || each.is_half_made()
    };
    let observe = || -> Result<(Option<Tpg>, Vec<Backstore>), Fault> {
        Ok((lio::tpg(machine, name)?, lio::backstores(machine)?))
    };
    let (tpg, backstores) = observe()?;
    let steps = lio::shell_down(name, tpg.as_ref(), &backstores, is_ours);
    lio::apply_all(machine, &steps)?;
    show_saved(machine, name, &zvols);
    let (tpg, backstores) = observe()?;
    match lio::shell_down(name, tpg.as_ref(), &backstores, is_ours).first() {
        None => Ok(Rc::Success),
        Some(step) => Err(Fault::generic(format!("the LUNs are not gone: left to do: {step}"))),
    }
}

/// What initiators have reserved since the last sync goes with the pool, too.
fn save_reservations(machine: &Machine, name: &TpgName) -> Result<(), Fault> {
    if !have_reservations_changed(machine, name)? {
        return Ok(());
    }
    let (tpg, backstores) = (lio::tpg(machine, name)?, lio::backstores(machine)?);
    for at in tpg.iter().flat_map(|tpg| tpg.luns.values()).flatten() {
        let Some(backstore) = backstores.iter().find(|each| each.at == *at) else { continue };
        let Some(zvol) = zfs::zvol_of(&backstore.device) else { continue };
        match lio::reservations::read(machine, &backstore.serial)?.as_str() {
            "" => machine.run("zfs", &["inherit", RESERVATIONS, &zvol])?,
            line => machine.run("zfs", &["set", &format!("{RESERVATIONS}={line}"), &zvol])?,
        };
    }
    Ok(())
}

/// The kernel's names of the zvols whose links are below a folder.
fn blocks_below(machine: &Machine, folder: &Path) -> Result<BTreeSet<String>, Fault> {
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

pub(crate) fn state(machine: &Machine, name: &TpgName, dataset: &str) -> Outcome {
    let pool = dataset.split('/').next().unwrap_or_default();
    let is_imported = zfs::pool_state(machine, pool)?.is_some();
    let zvols = zfs::zvol_device(dataset);
    let mut ours = lio::backstores(machine)?;
    ours.retain(|each| each.device.starts_with(&zvols));
    decide_state(lio::tpg(machine, name)?.as_ref(), &ours, is_imported)
}

/// A shell without LUNs is not running where the pool is not; anything that is left over from a
/// zvol counts as running badly, so that it is stopped and not forgotten.
fn decide_state(tpg: Option<&Tpg>, ours: &[Backstore], is_imported: bool) -> Outcome {
    let Some(tpg) = tpg.filter(|tpg| is_imported || !tpg.luns.is_empty()) else {
        return match ours.first() {
            None => Ok(Rc::NotRunning),
            Some(left) => {
                let name = &left.at.name;
                Err(Fault::generic(format!("the backstore {name} is there without its LUN")))
            }
        };
    };
    if !is_imported {
        return Err(Fault::generic("there are LUNs of a pool that is not imported here"));
    }
    for (number, at) in &tpg.luns {
        let backstore = ours.iter().find(|each| Some(&each.at) == at.as_ref());
        if !backstore.is_some_and(|each| each.enabled) {
            return Err(Fault::generic(format!("LUN {number} leads to no open zvol")));
        }
    }
    // A backstore without its LUN may be somebody's half-done work: a sync sees to it.
    Ok(Rc::Success)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hasan::lio::BackstoreName;

    fn at() -> BackstoreName {
        BackstoreName { hba: "iblock_100000".to_string(), name: "vm-1".to_string() }
    }

    fn store(enabled: bool) -> Backstore {
        let device = "/dev/zvol/p/v/vm-1".into();
        Backstore { at: at(), device, block: None, enabled, serial: String::new() }
    }

    #[test]
    fn the_state_says_what_the_kernel_holds() {
        let empty = Tpg::default();
        let full = Tpg { luns: BTreeMap::from([(0, Some(at()))]), ..Tpg::default() };
        let broken = Tpg { luns: BTreeMap::from([(0, None)]), ..Tpg::default() };
        for (tpg, ours, is_imported, want) in [
            (None, vec![], true, Rc::NotRunning),
            (None, vec![], false, Rc::NotRunning),
            (None, vec![store(true)], true, Rc::Generic),
            (Some(&empty), vec![], false, Rc::NotRunning),
            (Some(&empty), vec![], true, Rc::Success),
            (Some(&empty), vec![store(true)], false, Rc::Generic),
            (Some(&empty), vec![store(true)], true, Rc::Success),
            (Some(&full), vec![store(true)], true, Rc::Success),
            (Some(&full), vec![store(false)], true, Rc::Generic),
            (Some(&full), vec![store(true)], false, Rc::Generic),
            (Some(&broken), vec![], true, Rc::Generic),
        ] {
            let rc = decide_state(tpg, &ours, is_imported).unwrap_or_else(|fault| fault.rc);
            assert_eq!(rc, want, "{tpg:?} {ours:?} {is_imported}");
        }
    }
}
