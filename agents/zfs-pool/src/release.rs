//! Lets the I/O to legs of the other node fail that are lost. Whoever writes on without them has it on record before.

use hasan::config::Backend;
use hasan::legs::{self, Leg};
use hasan::machine::Machine;
use hasan::ocf::Fault;
use hasan::pacemaker::{self, Change, Condition, mark};
use hasan::zfs;

/// Lets a leg's I/O fail while a pool is started here. The leg may be that of another pool, which is here already and would go
/// on without it.
pub(crate) fn let_go(
    machine: &Machine,
    backend: &Backend,
    pool: &str,
    leg: &Leg,
) -> Result<(), Fault> {
    for other in others_here(machine, backend, pool)? {
        mark_peer(machine, &other, &backend.peer.node)?;
    }
    legs::let_go(machine, leg)
}

/// The other pools of the backend that are imported here.
pub(crate) fn others_here(
    machine: &Machine,
    backend: &Backend,
    pool: &str,
) -> Result<Vec<String>, Fault> {
    let mut here = Vec::new();
    for other in backend.pools.iter().filter(|other| *other != pool) {
        if zfs::pool_state(machine, other)?.is_some() {
            here.push(other.clone());
        }
    }
    Ok(here)
}

/// Has the cluster know that the other node's legs of a pool miss writes from now on.
pub(crate) fn mark_peer(machine: &Machine, pool: &str, peer: &str) -> Result<(), Fault> {
    // The watch may mark for the same reason at the same moment, with a time of its own: the second try goes by that.
    try_mark_peer(machine, pool, peer).or_else(|_| try_mark_peer(machine, pool, peer))
}

fn try_mark_peer(machine: &Machine, pool: &str, peer: &str) -> Result<(), Fault> {
    let (cib, own) = (pacemaker::cib(machine)?, pacemaker::own_name(machine)?);
    let name = pacemaker::dirty_mark(pool);
    if !mark::lets_other_go(cib.attribute(&own, &name)) {
        return Err(Fault::generic(format!(
            "the legs of {own} miss writes of {pool} that those of {peer} have, which are lost"
        )));
    }
    let value = mark::text(cib.attribute(peer, &name), &pacemaker::now(), false);
    let change = Change::Attribute { node: peer, name: &name, value: &value };
    cib.change(machine, &own, Condition::Owner { pool }, &[change])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn no_leg_goes_that_another_pool_may_have_while_the_cluster_gives_no_mark() {
        let root = std::env::temp_dir().join(format!("hasan-release-{}", std::process::id()));
        let machine = Machine::recorded(&root);
        let pools = ["one", "two", "three"].map(String::from).to_vec();
        let backend = Backend { pools, ..Backend::default() };
        let leg = Leg::new("data-b1").unwrap();
        let put = |path: &str, text: &str| machine.replace_file(Path::new(path), text).unwrap();
        put("/proc/spl/kstat/zfs/one/state", "ONLINE");
        // Nothing else is here: the only program that is missing is that which lets the leg go.
        let reason = || let_go(&machine, &backend, "one", &leg).unwrap_err().reason;
        assert!(reason().contains("dmsetup"), "{}", reason());
        put("/proc/spl/kstat/zfs/two/state", "ONLINE");
        assert_eq!(others_here(&machine, &backend, "one"), Ok(vec!["two".to_string()]));
        assert!(reason().contains("cibadmin"), "{}", reason());
        std::fs::remove_dir_all(&root).unwrap();
    }
}
