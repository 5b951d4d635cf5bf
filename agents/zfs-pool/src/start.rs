//! Takes the pool: decide, write down what is about to happen, import; anew only if legs are lost meanwhile.

use crate::decide::{Decision, Policy, decide, newest};
use crate::import::{Ended, Options};
use crate::{BACKEND, FAILMODE, LOAD_KEYS, MOUNT, MULTIHOST};
use crate::{apply, datasets, import, lock, monitor, observe, policy};
use hasan::config::{self, Backend};
use hasan::machine::Machine;
use hasan::ocf::{Fault, Outcome, Rc, Values};
use hasan::pacemaker::{self, Cluster};
use hasan::zfs::{self, Claim};
use std::fs::File;

/// What can be said without a look at the legs.
pub(crate) fn validate(machine: &Machine, values: &Values) -> Outcome {
    if asked(values)? == Policy::Ignore {
        return Ok(Rc::Success);
    }
    // A node without the module is told so by its start.
    let Some(version) = zfs::version(machine)? else { return Ok(Rc::Success) };
    match version.claim() {
        Claim::None | Claim::Reclaim => Ok(Rc::Success),
        Claim::Broken => Err(Fault::new(
            Rc::Installed,
            format!(
                "ZFS {version} cannot import a multihost pool that lacks a node's legs, so it cannot \
                 take over from a dead node: install ZFS 2.3.9, 2.4.4 or newer"
            ),
        )),
    }
}

pub(crate) fn start(machine: &Machine, pool: &str, values: &Values) -> Outcome {
    let options = Options {
        mount: values.is_set(&MOUNT),
        load_keys: values.is_set(&LOAD_KEYS),
        failmode: values.text(&FAILMODE),
    };
    if zfs::pool_state(machine, pool)?.is_some() {
        return opened(machine, pool, &options);
    }
    let lock = lock::take(machine, pool)?;
    // The import that held the lock may have ended well.
    if zfs::pool_state(machine, pool)?.is_some() {
        return opened(machine, pool, &options);
    }
    let backend = config::load(machine, values.required(&BACKEND)?.as_ref())?;
    // Before all that asks the module something.
    zfs::load_module(machine)?;
    check_hostids(machine)?;
    let ask = || pacemaker::cluster(machine, &backend.peer.node);
    // Asked once for each try: the cluster's tools take their time, and the clients wait.
    let mut cluster = ask()?;
    apply::await_peer_legs(machine, &backend, cluster.peer)?;
    while let Ended::LegsLost(fault) =
        take(machine, &lock, &backend, pool, asked(values)?, cluster, &options)?
    {
        tracing::warn!(
            "{}; it is decided anew what to do with the legs that are left",
            fault.reason
        );
        cluster = ask()?;
    }
    check_multihost(machine, pool, asked(values)?)?;
    opened(machine, pool, &options)
}

/// What an import is followed by: also that of an earlier start, which was cut off behind it.
fn opened(machine: &Machine, pool: &str, options: &Options<'_>) -> Outcome {
    settled(machine, pool)?;
    datasets::open(machine, pool, options);
    settled(machine, pool)
}

/// Decides, writes down what is about to happen, and imports.
fn take(
    machine: &Machine,
    lock: &File,
    backend: &Backend,
    pool: &str,
    policy: Policy,
    cluster: Cluster,
    options: &Options<'_>,
) -> Result<Ended, Fault> {
    let (seen, cib) = observe::observe(machine, pool, backend, policy, cluster)?;
    tracing::info!("{}", seen.sentence(pool));
    let decision = decide(pool, &seen);
    if let Decision::Refuse(reason) = decision {
        return Err(Fault::generic(reason));
    }
    let newest = newest(&seen).ok_or_else(|| Fault::generic("no leg carries the pool"))?;
    apply::write_down(machine, pool, backend, &seen, &cib, newest)?;
    apply::shut_out_peer(machine, backend, &seen)?;
    apply::remove_dead_maps(machine, pool, backend, &seen)?;
    zfs::remove_stale_links(machine, pool)?;
    import::import(machine, lock, backend, &seen, newest, &decision, options)
}

fn asked(values: &Values) -> Result<Policy, Fault> {
    let value = values.required(&MULTIHOST)?;
    policy(value).map_err(|wrong| Fault::new(Rc::Configured, format!("{value:?} {wrong}")))
}

/// A pool that is here and works is started, weak or not.
fn settled(machine: &Machine, pool: &str) -> Outcome {
    match zfs::settled_pool_state(machine, pool, zfs::BETWEEN)? {
        Some(state) if state.is_usable() => Ok(Rc::Success),
        Some(state) => Err(monitor::unusable(pool, &state)),
        None => Err(Fault::generic(format!("the pool {pool} is not there after its import"))),
    }
}

/// ZFS goes by the module's hostid, people and other tools by the file's: they must not differ.
fn check_hostids(machine: &Machine) -> Result<(), Fault> {
    let (module, file) = (zfs::module_hostid(machine)?, zfs::file_hostid(machine)?);
    match module {
        Some(module) if module != file => Err(Fault::generic(format!(
            "the ZFS module has the hostid {module:x}, and /etc/hostid says {file:x}: remove the \
             option spl_hostid, or boot again"
        ))),
        _ => Ok(()),
    }
}

/// The property itself lies in the pool, so it is read after the import; the labels have shown
/// before whether somebody wrote under it.
fn check_multihost(machine: &Machine, pool: &str, policy: Policy) -> Result<(), Fault> {
    if policy == Policy::Ignore {
        return Ok(());
    }
    let value = machine.run("zpool", &["get", "-Hp", "-o", "value", "multihost", pool])?;
    if value.trim() == "on" {
        if zfs::suspends_for_its_sign(machine)? {
            tracing::warn!(
                "zfs_multihost_fail_intervals is not 0: a link that is lost while a leg comes back can suspend the \
                 pool {pool}; boot with the options of modprobe.d/hasan.conf"
            );
        }
        return Ok(());
    }
    let reason = format!("the pool {pool} has multihost={}", value.trim());
    if policy == Policy::Warn {
        tracing::warn!("{reason}: nothing but fencing keeps a second importer away");
        return Ok(());
    }
    machine.run("zpool", &["export", pool])?;
    Err(Fault::generic(format!(
        "{reason}, so it was given back: import it by hand and set multihost=on, or set the parameter \
         multihost=warn"
    )))
}
