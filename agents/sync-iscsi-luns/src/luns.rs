//! Start and sync of one VLAN's LUNs, and their explanation.

use crate::Config;
use crate::access::{self, Access};
use crate::identity::{Identities, Identity, Patience};
use crate::notes::write_down;
use crate::observe::{
    self, Actual, datasets, keep_served, kept_path, live, observe, observe_again, rows,
};
use crate::plan::{identities, plan, skip_without_device};
use crate::saved;
use crate::settled::Look;
use crate::state::{decide_state, state};
use hasan::lio::{self, Step};
use hasan::machine::Machine;
use hasan::ocf::{Fault, Outcome, Rc, Table};
use hasan::zfs::{self, Dataset};
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long the nodes of zvols may take to appear after an import, and to be what they say.
const NODES: Duration = Duration::from_secs(30);

/// Pause between two tries to make what could not be made at a start.
const PAUSE: Duration = Duration::from_secs(1);

/// How many zvols a reason names.
const NAMED: usize = 2;

/// Serves all zvols that can be served.
pub(crate) fn start(machine: &Machine, config: &Config) -> Outcome {
    if zfs::pool_state(machine, config.pool())?.is_none() {
        return Err(Fault::generic(format!("the pool {:?} is not imported here", config.pool())));
    }
    let access = access::read(machine, &config.access, config.tpg.tag)?;
    let datasets = datasets(config, &rows(machine, config)?)?;
    let begun = Instant::now();
    await_nodes(machine, config, &datasets)?;
    let serve = || -> Result<Reconciled, Fault> {
        let _lock = lio::lock(machine)?;
        lio::mend(machine)?;
        let actual = observe(machine, config, datasets.clone())?;
        reconcile(machine, config, &access, actual, None)
    };
    let mut done = serve()?;
    // The door opens next: what may still come in a moment is waited for, while other VLANs go on.
    while done.has_failed && begun.elapsed() < NODES {
        std::thread::sleep(PAUSE);
        done = serve()?;
    }
    let Reconciled { identities, left, .. } = done;
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

/// Brings the LUNs in line with the zvols while they are served. What does not work is reported and stops nothing, not even
/// where nothing works: the LUNs that are there go on. Where nothing is served, or badly, it says so and changes nothing.
pub(crate) fn sync(machine: &Machine, config: &Config) -> Outcome {
    let rows = match rows(machine, config) {
        Ok(rows) => rows,
        Err(fault) => return unlisted(machine, config, fault),
    };
    let _lock = match lio::lock(machine) {
        Ok(lock) => lock,
        Err(fault) => return report(&[fault.reason]),
    };
    lio::mend(machine)?;
    let Some((tpg, stamps)) = lio::glance(machine, &config.tpg)? else {
        return state(machine, &config.tpg, &config.dataset, true);
    };
    let access = access::read_or_keep(machine, &config.access, config.tpg.tag, &tpg);
    let look = Look::new(machine, config, &rows, (&tpg, &stamps), &access)?;
    if look.is_settled(machine)? {
        return Ok(Rc::Success);
    }
    let datasets = match datasets(config, &rows) {
        Ok(datasets) => datasets,
        Err(fault) => return unlisted(machine, config, fault),
    };
    let mut actual = match observe(machine, config, datasets) {
        Ok(actual) => actual,
        Err(fault) => return unlisted(machine, config, fault),
    };
    if removes_luns(config, &access, &actual) {
        // The list was made before anybody was kept from making LUNs.
        let again = observe::rows(machine, config)
            .and_then(|rows| observe::datasets(config, &rows))
            .and_then(|datasets| observe(machine, config, datasets));
        match again {
            Ok(again) => actual = again,
            Err(fault) => return unlisted(machine, config, fault),
        }
    }
    let rc = decide_state(actual.tpg.as_ref(), &actual.backstores, &config.dataset, true)?;
    if rc != Rc::Success {
        return Ok(rc);
    }
    let mut troubles = access.troubles.clone();
    match reconcile(machine, config, &access, actual, Some(patience(config))) {
        Ok(Reconciled { identities, left, was_settled, .. }) => {
            tell(&identities, &access);
            troubles.extend(identities.skipped.iter().map(|(zvol, why)| format!("{zvol}: {why}")));
            troubles.extend(left.iter().map(|step| format!("left to do: {step}")));
            if was_settled {
                look.settle(machine);
            }
        }
        Err(fault) => troubles.push(fault.reason),
    }
    report(&troubles)
}

/// Whether a sync with this list of zvols would take a LUN away.
fn removes_luns(config: &Config, access: &Access, actual: &Actual) -> bool {
    let mut identities = identities(config, actual, Some(patience(config)));
    skip_without_device(actual, &mut identities);
    let steps = plan(config, access, actual, &identities);
    steps.iter().any(|step| matches!(step, Step::RemoveLun(..)))
}

/// Without a list of zvols, or of what there is, the LUNs stay as they are.
fn unlisted(machine: &Machine, config: &Config, fault: Fault) -> Outcome {
    match state(machine, &config.tpg, &config.dataset, true)? {
        Rc::Success => report(&[fault.reason]),
        rc => Ok(rc),
    }
}

fn report(troubles: &[String]) -> Outcome {
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
    let actual = observe(machine, config, datasets(config, &rows(machine, config)?)?)?;
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
        // One that is to go is held up while another zvol lacks its device.
        let state = if live.contains_key(zvol) { "still served" } else { "not served" };
        rows.push(vec![zvol.clone(), none(), none(), none(), format!("{state}: {why}")]);
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

/// After an import udev takes a moment to name the devices. Nothing is locked meanwhile.
fn await_nodes(machine: &Machine, config: &Config, datasets: &[Dataset]) -> Result<(), Fault> {
    let actual = observe(machine, config, datasets.to_vec())?;
    let wanted = identities(config, &actual, None).luns;
    let is_here = |each: &Identity| machine.exists(&zfs::zvol_device(&each.zvol));
    machine.await_condition(NODES, || Ok(wanted.iter().all(is_here)))?;
    Ok(())
}

/// What came of it.
struct Reconciled {
    identities: Identities,
    /// What is left to do.
    left: Vec<Step>,
    /// Whether there was nothing to do, and nothing that waits for its time.
    was_settled: bool,
    /// Whether a zvol could not be opened, or its link led elsewhere.
    has_failed: bool,
}

/// Gives identities, writes them down, makes the LUNs; a zvol that fails is left out.
fn reconcile(
    machine: &Machine,
    config: &Config,
    access: &Access,
    mut actual: Actual,
    patience: Option<Patience>,
) -> Result<Reconciled, Fault> {
    let mut identities = identities(config, &actual, patience);
    skip_without_device(&actual, &mut identities);
    let failed = write_down(machine, &config.dataset, &identities)?;
    let live = live(&actual);
    for (zvol, why) in &failed {
        match live.contains_key(zvol) {
            // Its initiators go on.
            true => identities.skipped.push((zvol.clone(), why.clone())),
            false => identities.skip(zvol, why.clone()),
        }
    }
    let kept = kept(&identities, &failed);
    machine.replace_file(&kept_path(&config.tpg), &serde_json::json!(kept).to_string())?;
    let was_skipped = identities.skipped.len();
    let steps = plan(config, access, &actual, &identities);
    let mut was_settled = steps.is_empty() && identities.are_settled();
    let left = make(machine, config, access, steps, &mut actual, &mut identities);
    // Also of what was made before something failed.
    keep_served(machine, config, &actual)?;
    let left = left?;
    let zvols = zfs::zvol_device(&config.dataset);
    let Actual { tpg, backstores, blocks, .. } = &actual;
    was_settled &= saved::show(machine, &config.tpg, &zvols, tpg.as_ref(), backstores, blocks);
    let has_failed = identities.skipped.len() > was_skipped;
    Ok(Reconciled { identities, left, was_settled, has_failed })
}

/// Makes the LUNs, without the zvols that cannot be opened; what is left to do then.
fn make(
    machine: &Machine,
    config: &Config,
    access: &Access,
    mut steps: Vec<Step>,
    actual: &mut Actual,
    identities: &mut Identities,
) -> Result<Vec<Step>, Fault> {
    while !steps.is_empty() {
        let result = lio::apply_all(machine, &steps);
        observe_again(machine, config, actual)?;
        steps = plan(config, access, actual, identities);
        let Err(failure) = result else { break };
        let Step::MakeBackstore(_, lun) = &failure.step else { return Err(failure.into()) };
        let is_it = |each: &&Identity| zfs::zvol_device(&each.zvol) == lun.device;
        let Some(bad) = identities.luns.iter().find(is_it).cloned() else {
            return Err(failure.into());
        };
        identities.skip(&bad.zvol, failure.fault.reason);
        steps = plan(config, access, actual, identities);
    }
    Ok(steps)
}

/// The persistent reservations that the zvols now hold, by serial.
fn kept<'a>(
    identities: &'a Identities,
    failed: &BTreeMap<String, String>,
) -> BTreeMap<&'a str, &'a str> {
    let with_some = identities.luns.iter().filter(|each| !each.reservations.is_empty());
    with_some
        .filter(|each| !failed.contains_key(&each.zvol))
        .map(|each| (each.serial.as_str(), each.reservations.as_str()))
        .collect()
}
