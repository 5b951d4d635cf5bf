//! Whether the pool may be imported here, and how; a pure function. In doubt it refuses.

use hasan::legs::Leg;
use hasan::pacemaker::{self, Cluster, NodeState, Owner};
use hasan::zfs::{Claim, Label, LabelState, Version};
use std::collections::{BTreeMap, BTreeSet};

/// How many legs a reason names.
const NAMED: usize = 2;

/// What is asked of ZFS's own protection against two importers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// No import without it.
    Require,
    /// An import without it is logged.
    Warn,
    /// The cluster's fencing has to be enough.
    Ignore,
}

/// All that the decision rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The label of each leg of this pool that answers.
    pub(crate) labels: BTreeMap<Leg, Label>,
    /// The legs that are spares or caches, of whichever pool.
    pub(crate) beside: Vec<Leg>,
    /// The legs of this node that do not answer, or carry no pool at all.
    pub(crate) own_missing: Vec<Leg>,
    /// Those of the other node.
    pub(crate) peer_missing: Vec<Leg>,
    /// This host's id; 0 if it has none.
    pub(crate) hostid: u64,
    /// The ZFS module's version.
    pub(crate) version: Version,
    /// What is asked of multihost.
    pub(crate) policy: Policy,
    /// This node's name in the cluster.
    pub(crate) own: String,
    /// The other node's.
    pub(crate) peer: String,
    /// What the cluster says of itself and of the other node.
    pub(crate) cluster: Cluster,
    /// The other node's host id as it has published it, hexadecimal.
    pub(crate) peer_hostid: Option<String>,
    /// What the other node has published when it last held no pool.
    pub(crate) peer_fresh: Option<String>,
    /// The mark on this node: since when its legs have missed writes.
    pub(crate) own_mark: Option<String>,
    /// The mark on the other node.
    pub(crate) peer_mark: Option<String>,
    /// The record of who had the pool last.
    pub(crate) record: Option<Owner>,
}

impl Seen {
    /// What was seen, for the log.
    pub(crate) fn sentence(&self, pool: &str) -> String {
        let legs: Vec<String> = self
            .labels
            .iter()
            .map(|(leg, label)| {
                format!("{leg} {:?} by {} txg {}", label.state, label.hostname, label.txg)
            })
            .collect();
        let missing = names(self.own_missing.iter().chain(&self.peer_missing));
        let owner = self.record.as_ref().map_or("nobody", |record| &record.node);
        let mark = |mark: &Option<String>| mark.clone().unwrap_or_else(|| "none".to_string());
        format!(
            "{pool}: {}; missing: {missing}; {} is {:?}; last owner: {owner}; marks: own {}, peer {}",
            legs.join(", "),
            self.peer,
            self.cluster.peer,
            mark(&self.own_mark),
            mark(&self.peer_mark)
        )
    }
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The pool was given back, or was ours.
    Import,
    /// The pool was the other node's, and that node is proven dead.
    ImportByForce,
    /// The same, and ZFS must first be told that the missing legs are lost.
    Reclaim,
    /// The reason, and what the administrator can do.
    Refuse(String),
}

pub(crate) fn decide(pool: &str, seen: &Seen) -> Decision {
    judge(pool, seen).unwrap_or_else(Decision::Refuse)
}

/// The newest label: what is on the leg with the newest transaction group is the pool as it is.
pub(crate) fn newest(seen: &Seen) -> Option<&Label> {
    seen.labels.values().max_by_key(|label| label.txg)
}

/// The legs that another leg of their mirror is ahead of: its node's disk failed, and nobody had the time to mark the node. ZFS
/// writes each transaction group to all legs of a mirror that it writes to (`vdev_uberblock_sync`); multihost's sign of life goes
/// to one leg alone, and does not count. A leg whose write a crash has cut off looks the same, and is well.
pub(crate) fn behind(seen: &Seen) -> BTreeSet<&Leg> {
    let is_behind = |one: &Label| {
        let mut mirror = seen.labels.values().filter(|other| other.top_guid == one.top_guid);
        mirror.any(|other| other.synced > one.synced)
    };
    seen.labels.iter().filter(|(_, label)| is_behind(label)).map(|(leg, _)| leg).collect()
}

fn judge(pool: &str, seen: &Seen) -> Result<Decision, String> {
    let newest = newest(seen).ok_or_else(|| {
        let missing = names(seen.own_missing.iter().chain(&seen.peer_missing));
        let missing = match missing.as_str() {
            "" => "every leg answers".to_string(),
            names => format!("no answer from {names}"),
        };
        format!("no leg carries the pool {pool:?} ({missing})")
    })?;
    if seen.labels.values().any(|label| label.pool_guid != newest.pool_guid) {
        return Err(format!("the legs carry two pools of the name {pool:?}"));
    }
    check_host_and_cluster(seen)?;
    check_marks(pool, seen)?;
    check_record(pool, seen, newest)?;
    let in_use_by_other = newest.state == LabelState::InUse && newest.hostid != seen.hostid;
    if in_use_by_other {
        check_last_owner(pool, seen, newest)?;
    }
    let some_missing = !seen.own_missing.is_empty() || !seen.peer_missing.is_empty();
    let way = if in_use_by_other { Decision::ImportByForce } else { Decision::Import };
    // ZFS claims a multihost pool whoever had it last: also its last owner's own, after a crash of both nodes.
    if !(newest.multihost && some_missing) {
        return Ok(way);
    }
    match seen.version.claim() {
        Claim::None => Ok(way),
        Claim::Reclaim => Ok(Decision::Reclaim),
        Claim::Broken => Err(format!(
            "ZFS {} cannot import without {}: start {} first or install ZFS 2.3.9 or \
             2.4.4",
            seen.version,
            names(seen.own_missing.iter().chain(&seen.peer_missing)),
            seen.peer
        )),
    }
}

fn check_host_and_cluster(seen: &Seen) -> Result<(), String> {
    if seen.hostid == 0 {
        return Err(
            "this host has no hostid, so multihost cannot protect the pool: run zgenhostid, \
                    and boot again"
                .to_string(),
        );
    }
    if seen.peer_hostid.as_deref() == Some(&pacemaker::hostid_text(seen.hostid)) {
        return Err(format!(
            "this host and {} have the same hostid {:x}: run zgenhostid -f on one, and boot it again",
            seen.peer, seen.hostid
        ));
    }
    if !seen.cluster.fencing_enabled {
        return Err(
            "fencing is disabled, so no lost node is proven dead: configure stonith, and set \
                    stonith-enabled=true"
                .to_string(),
        );
    }
    if !seen.cluster.has_quorum {
        return Err(
            "no quorum, so another part of the cluster may have the pool: start more nodes"
                .to_string(),
        );
    }
    Ok(())
}

/// A node's legs that have missed writes never serve alone. With the legs of both nodes nothing is missing, also where both
/// are marked: each has a leg of another mirror that is wrong.
fn check_marks(pool: &str, seen: &Seen) -> Result<(), String> {
    let stale_alone = [
        (&seen.own_mark, &seen.own, &seen.peer, &seen.peer_missing),
        (&seen.peer_mark, &seen.peer, &seen.own, &seen.own_missing),
    ];
    for (mark, marked, clean, missing) in stale_alone {
        if let Some(mark) = mark
            && !missing.is_empty()
        {
            return Err(stale(pool, seen, mark, marked, clean, missing));
        }
    }
    Ok(())
}

/// Where the node is here that would have to come first, and cannot start the pool either, only a person can give up what is
/// missing.
fn stale(
    pool: &str,
    seen: &Seen,
    mark: &str,
    marked: &str,
    clean: &str,
    missing: &[Leg],
) -> String {
    let both = seen.own_mark.is_some() && seen.peer_mark.is_some();
    if clean == seen.own || both && seen.cluster.peer == NodeState::Online {
        return format!(
            "{marked} misses writes of {}; if lost for good: crm_attribute -N {marked} -n {} -D",
            some(missing, 1),
            pacemaker::dirty_mark(pool)
        );
    }
    format!(
        "{marked} misses writes since {}; start {clean} first: no answer from {}",
        pacemaker::mark::since(mark),
        names(missing)
    )
}

/// Labels alone never prove who had the pool last.
fn check_record(pool: &str, seen: &Seen, newest: &Label) -> Result<(), String> {
    let Some(record) = &seen.record else {
        return Err(format!(
            "no owner of {pool} recorded; if its data is here: {}",
            Owner::command(pool, &seen.own)
        ));
    };
    if record.pool_guid.is_some_and(|guid| guid != newest.pool_guid) {
        return Err(format!(
            "{pool} is not the recorded pool; if that is right: {}",
            Owner::command(pool, &seen.own)
        ));
    }
    if record.hostids.is_empty() || record.hostids.contains(&newest.hostid) {
        return Ok(());
    }
    Err(format!(
        "the legs here were last written by {} (hostid {:x}), and {} had the pool later: bring its legs \
         back first",
        newest.hostname, newest.hostid, record.node
    ))
}

/// The last owner is dead if it was fenced and has not come back since, or if we were about to take the pool over after it was
/// fenced, and nothing has been written since. A node that was fenced may have been booted since without the cluster, and the
/// pool imported there by hand: then the record names another one. Under multihost ZFS itself finds that out.
fn check_last_owner(pool: &str, seen: &Seen, newest: &Label) -> Result<(), String> {
    let is = |wanted: &dyn Fn(&Owner) -> bool| seen.record.as_ref().is_some_and(wanted);
    if is(&|record| record.node == seen.own && record.txg == Some(newest.txg)) {
        return check_multihost(pool, seen, newest);
    }
    if seen.cluster.peer != NodeState::Fenced {
        return Err(format!(
            "{pool} is in use by {} (hostid {:x}); {} is {:?}, not fenced: export it there or fence it",
            newest.hostname, newest.hostid, seen.peer, seen.cluster.peer
        ));
    }
    if newest.multihost || is(&|record| record.node == seen.peer || record.hostids.is_empty()) {
        return check_multihost(pool, seen, newest);
    }
    Err(format!(
        "{} took {pool} by hand; if it is off: {}",
        newest.hostname,
        Owner::command(pool, &seen.peer)
    ))
}

fn check_multihost(pool: &str, seen: &Seen, newest: &Label) -> Result<(), String> {
    if newest.multihost || seen.policy != Policy::Require {
        return Ok(());
    }
    Err(format!(
        "{pool} was in use by {} without multihost=on, so it may be so still; if not: set multihost=warn",
        newest.hostname
    ))
}

/// Some of them: Pacemaker keeps some 128 characters of a reason, and what to do stands at its end.
fn names<'a>(legs: impl IntoIterator<Item = &'a Leg>) -> String {
    some(legs, NAMED)
}

fn some<'a>(legs: impl IntoIterator<Item = &'a Leg>, named: usize) -> String {
    let names: Vec<&str> = legs.into_iter().map(Leg::name).collect();
    match names.len() {
        count if count <= named => names.join(", "),
        count => format!("{} and {} more", names[..named].join(", "), count - named),
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "model_tests.rs"]
mod model_tests;
