//! What is asked of ZFS, and done to a pool, beside the watch: such a program can wait for a leg's I/O, which goes on only
//! when the watch has mended the leg's path or let the leg go.

use crate::healing::leg_of;
use hasan::legs::Leg;
use hasan::machine::Machine;
use hasan::ocf::Fault;
use hasan::zfs::{self, Status, Vdev};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::mpsc::{self, TryRecvError};
use std::time::Duration;

/// How long the programs may take: a vdev that changes its state holds up `zpool` for long.
const TIME: Duration = Duration::from_secs(120);
/// How long a leg may take to show its label.
const LABEL: Duration = Duration::from_secs(5);

/// Something that goes on beside the watch. Dropped, it goes on unheard.
pub(crate) struct Aside<T>(mpsc::Receiver<Result<T, Fault>>);

impl<T: Send + 'static> Aside<T> {
    pub(crate) fn begin(
        machine: &Machine,
        work: impl FnOnce(&Machine) -> Result<T, Fault> + Send + 'static,
    ) -> Aside<T> {
        let (sender, receiver) = mpsc::channel();
        let machine = machine.with_time(TIME);
        std::thread::spawn(move || sender.send(work(&machine)));
        Aside(receiver)
    }

    /// What it led to; `None` while it goes on.
    pub(crate) fn result(&self) -> Option<Result<T, Fault>> {
        match self.0.try_recv() {
            Ok(result) => Some(result),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                Some(Err(Fault::generic("a thread of the watch has ended without a word")))
            }
        }
    }
}

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
    let silent = |_| Fault::generic(format!("the leg {leg} does not answer"));
    let label = label.0.recv_timeout(LABEL).map_err(silent)??;
    Ok(label.map(|label| label.pool_guid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn what_goes_on_beside_is_not_waited_for_and_its_end_is_heard_once() {
        let machine = Machine::local(Instant::now() + Duration::from_secs(30));
        let (go, may_go) = mpsc::channel();
        let aside = Aside::begin(&machine, move |_| {
            may_go.recv().map_err(|_| Fault::generic("nobody lets it go"))
        });
        assert!(aside.result().is_none());
        go.send(7).unwrap();
        let mut result = None;
        let is_over = machine.await_condition(TIME, || {
            result = aside.result();
            Ok(result.is_some())
        });
        assert!(is_over.unwrap());
        assert_eq!(result.unwrap().unwrap(), 7);
        assert!(aside.result().unwrap().unwrap_err().reason.contains("without a word"));
    }
}
