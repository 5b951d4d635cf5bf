//! The marks of a pool that the watch writes: which node's legs miss writes, or may hold what is wrong.

use crate::healing::Doubt;
use hasan::machine::Machine;
use hasan::ocf::Fault;
use hasan::pacemaker::{self, Change, Cib, Condition, mark};
use std::collections::BTreeMap;

/// The nodes whose mark is known to be written, and how bad it is.
#[derive(Default)]
pub(crate) struct Marks(BTreeMap<String, Doubt>);

impl Marks {
    /// Marks the other node before its legs are let go. A mark that is there is written all the same: only the cluster
    /// knows whether this node still has the pool, and its own copy may be old.
    pub(crate) fn mark_for_release(
        &mut self,
        machine: &Machine,
        pool: &str,
        other: &str,
    ) -> Result<(), Fault> {
        let cib = pacemaker::cib(machine)?;
        let own = pacemaker::own_name(machine)?;
        if !mark::lets_other_go(cib.attribute(&own, &pacemaker::dirty_mark(pool))) {
            return Err(Fault::generic(format!(
                "the legs of {own} miss writes that those of {other} have, which are lost: the I/O of {pool} goes on \
                 waiting for {other}"
            )));
        }
        self.write(machine, &cib, &own, pool, other, Doubt::Misses)
    }

    /// Marks a node, unless that is known to be done.
    pub(crate) fn mark(
        &mut self,
        machine: &Machine,
        pool: &str,
        node: &str,
        doubt: Doubt,
    ) -> Result<(), Fault> {
        if self.0.get(node).is_some_and(|known| *known >= doubt) {
            return Ok(());
        }
        let cib = pacemaker::cib(machine)?;
        let before = cib.attribute(node, &pacemaker::dirty_mark(pool));
        if before.is_some() && before == Some(&mark::text(before, "", doubt == Doubt::Wrong)) {
            return Ok(());
        }
        let own = pacemaker::own_name(machine)?;
        self.write(machine, &cib, &own, pool, node, doubt)
    }

    fn write(
        &mut self,
        machine: &Machine,
        cib: &Cib,
        own: &str,
        pool: &str,
        node: &str,
        doubt: Doubt,
    ) -> Result<(), Fault> {
        check_ownership(cib, own, pool)?;
        let mark = pacemaker::dirty_mark(pool);
        let value =
            mark::text(cib.attribute(node, &mark), &pacemaker::now(), doubt == Doubt::Wrong);
        let change = Change::Attribute { node, name: &mark, value: &value };
        cib.change(machine, own, Condition::Owner { pool }, &[change])?;
        tracing::warn!("{node} is marked: its legs of {pool} miss writes, or may");
        self.0.insert(node.to_string(), doubt);
        Ok(())
    }
}

/// A node that was taken for dead and wakes up must not go on alone: by then the pool is another's.
fn check_ownership(cib: &Cib, own: &str, pool: &str) -> Result<(), Fault> {
    match cib.owner(pool)? {
        Some(record) if record.node == own => Ok(()),
        Some(record) => Err(Fault::generic(format!(
            "the pool {pool} is imported here, but by the cluster's record {} has it: its I/O goes on \
             waiting",
            record.node
        ))),
        None => Err(Fault::generic(format!(
            "the cluster has no record of who has the pool {pool}, so its I/O goes on waiting; if this \
             node has it: {}",
            pacemaker::Owner::command(pool, own)
        ))),
    }
}
