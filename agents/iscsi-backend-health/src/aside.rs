//! What is asked of ZFS, and done to a pool, beside the watch: such a program can wait for a leg's I/O, which goes on only
//! when the watch has mended the leg's path or let the leg go.

use crate::healing::leg_of;
use hasan::aside::Aside;
use hasan::config::Backend;
use hasan::legs::Leg;
use hasan::machine::Machine;
use hasan::ocf::Fault;
use hasan::zfs::{self, Status, Vdev};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// How long a leg may take to show its label.
const LABEL: Duration = Duration::from_secs(5);

/// What a look at a pool has seen.
pub(crate) struct Seen {
    pub(crate) status: Status,
    /// The legs that are not ONLINE, and whose device carries no label of the pool: another disk, perhaps a new one.
    pub(crate) foreign: BTreeSet<String>,
    /// The legs that no pool here has, and that carry this pool, or may do so: one that was detached while it was away has the
    /// data of that day.
    pub(crate) strays: BTreeSet<Leg>,
}

/// Looks at a pool's vdevs. `legs` are those that are here, of both nodes.
pub(crate) fn look(
    machine: &Machine,
    backend: &Backend,
    pool: &str,
    legs: &BTreeSet<Leg>,
) -> Result<Seen, Fault> {
    let status = status(machine, pool)?;
    let foreign = foreign(machine, legs, &status)?;
    let strays = strays(machine, backend, pool, legs, &status)?;
    Ok(Seen { status, foreign, strays })
}

/// The pool's vdevs, their states and errors.
pub(crate) fn status(machine: &Machine, pool: &str) -> Result<Status, Fault> {
    zfs::parse_status(&machine.run("zpool", &["status", "-p", pool])?)
}

fn strays(
    machine: &Machine,
    backend: &Backend,
    pool: &str,
    here: &BTreeSet<Leg>,
    own: &Status,
) -> Result<BTreeSet<Leg>, Fault> {
    let mut spare = backend.legs.keys().chain(&backend.peer.legs).cloned().collect();
    leave_out(&mut spare, own);
    for other in backend.pools.iter().filter(|other| *other != pool) {
        if !spare.is_empty() && zfs::pool_state(machine, other)?.is_some() {
            leave_out(&mut spare, &status(machine, other)?);
        }
    }
    let online =
        |vdev: &&Vdev| vdev.state == "ONLINE" && here.iter().any(|leg| leg.name() == leg_of(vdev));
    let Some(first) = own.vdevs.iter().find(online).filter(|_| !spare.is_empty()) else {
        return Ok(spare);
    };
    let guid = pool_of(machine, leg_of(first))?;
    // One that is away may carry anything.
    spare.retain(|leg| {
        !here.contains(leg) || pool_of(machine, leg.name()).map_or(true, |other| other == guid)
    });
    Ok(spare)
}

/// Leaves out the legs that are vdevs of a pool.
fn leave_out(legs: &mut BTreeSet<Leg>, status: &Status) {
    legs.retain(|leg| !status.vdevs.iter().any(|vdev| leg_of(vdev) == leg.name()));
}

pub(crate) fn bring_back(machine: &Machine, pool: &str, names: &[String]) -> Result<(), Fault> {
    let mut arguments = vec!["online", pool];
    arguments.extend(names.iter().map(String::as_str));
    machine.run("zpool", &arguments)?;
    for name in names {
        machine.run("zpool", &["clear", pool, name])?;
    }
    Ok(())
}

fn foreign(
    machine: &Machine,
    here: &BTreeSet<Leg>,
    status: &Status,
) -> Result<BTreeSet<String>, Fault> {
    let is_here = |vdev: &&Vdev| here.iter().any(|leg| leg.name() == leg_of(vdev));
    let legs = status.vdevs.iter().filter(is_here);
    let (online, down): (Vec<&Vdev>, Vec<&Vdev>) = legs.partition(|vdev| vdev.state == "ONLINE");
    let Some(first) = online.first().filter(|_| !down.is_empty()) else {
        return Ok(BTreeSet::new());
    };
    let pool = pool_of(machine, leg_of(first))?;
    // One that cannot be read is not brought back either; ZFS would not take it.
    let is_foreign = |leg: &&str| pool_of(machine, leg).ok() != Some(pool);
    Ok(down.into_iter().map(leg_of).filter(is_foreign).map(str::to_string).collect())
}

/// The GUID of the pool in a leg's label; `None` if it carries no label.
fn pool_of(machine: &Machine, leg: &str) -> Result<Option<u64>, Fault> {
    let device = Path::new("/dev/mapper").join(leg);
    let label = Aside::begin(machine, move |machine| zfs::read_label(machine, &device));
    let silent = || Fault::generic(format!("the leg {leg} does not answer"));
    let label = label.result_within(LABEL).ok_or_else(silent)??;
    Ok(label.map(|label| label.pool_guid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hasan::config::Peer;
    use hasan::zfs::Scan;

    #[test]
    fn a_leg_that_no_vdev_is_and_that_is_away_may_hold_old_data() {
        let leg = |name: &str| Leg::new(name).unwrap();
        let vdev = |name: &str| Vdev {
            name: name.to_string(),
            was: None,
            state: "ONLINE".to_string(),
            errors: 0,
            wrong: 0,
            resilvering: false,
        };
        let root = std::env::temp_dir().join(format!("hasan-strays-{}", std::process::id()));
        let machine = Machine::recorded(&root);
        let peer = Peer { legs: ["b1", "b2"].map(leg).into(), ..Peer::default() };
        let backend = Backend {
            legs: [(leg("a1"), "/dev/sda".into())].into(),
            pools: vec!["p".to_string()],
            peer,
            ..Backend::default()
        };
        let strays = |vdevs: &[&str]| {
            let vdevs = vdevs.iter().map(|name| vdev(name)).collect();
            let status = Status { scan: Scan::Other, resilvered: None, vdevs };
            strays(&machine, &backend, "p", &BTreeSet::new(), &status).unwrap()
        };
        assert_eq!(strays(&["p", "mirror-0", "a1", "b1"]), BTreeSet::from([leg("b2")]));
        assert_eq!(strays(&["p", "a1"]), BTreeSet::from([leg("b1"), leg("b2")]));
        assert_eq!(strays(&["p", "a1", "b1", "b2"]), BTreeSet::new());
    }
}
