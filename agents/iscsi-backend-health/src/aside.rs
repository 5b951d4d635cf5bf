//! What is asked of ZFS, and done to a pool, beside the watch: such a program can wait for a leg's I/O, which goes on only
//! when the watch has mended the leg's path or let the leg go.

use crate::healing::leg_of;
use hasan::aside::Aside;
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
}

/// Looks at a pool's vdevs. `legs` are those that are here, of both nodes.
pub(crate) fn look(machine: &Machine, pool: &str, legs: &BTreeSet<Leg>) -> Result<Seen, Fault> {
    let status = zfs::parse_status(&machine.run("zpool", &["status", "-p", pool])?)?;
    let foreign = foreign(machine, legs, &status)?;
    Ok(Seen { status, foreign })
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
