//! Whether the pool may be imported here, and how; a pure function. In doubt it refuses.

use hasan::legs::Leg;
use hasan::pacemaker::NodeState;
use hasan::zfs::{Label, LabelState};
use std::collections::BTreeMap;

/// All that the decision rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The label of each leg of this pool that answers.
    pub(crate) labels: BTreeMap<Leg, Label>,
    /// The legs of both nodes that do not answer.
    pub(crate) absent: Vec<Leg>,
    /// Whether every leg of the other node answers.
    pub(crate) peer_legs_answer: bool,
    /// This host's id; 0 if it has none.
    pub(crate) hostid: u64,
    /// The other node's name.
    pub(crate) peer: String,
    /// The other node's state.
    pub(crate) peer_state: NodeState,
    /// The mark on this node: since when its legs have missed writes.
    pub(crate) dirty_since: Option<String>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The pool was given back, or was ours.
    Import,
    /// The pool was the other node's, and that node is proven dead.
    ImportByForce,
    /// The reason, and what the administrator can do.
    Refuse(String),
}

pub(crate) fn decide(pool: &str, seen: &Seen) -> Decision {
    // The newest label tells who had the pool last.
    let Some(newest) = seen.labels.values().max_by_key(|label| label.txg) else {
        let absent: Vec<&str> = seen.absent.iter().map(Leg::name).collect();
        let absent = match absent.as_slice() {
            [] => "every leg answers".to_string(),
            names => format!("no answer from {}", names.join(", ")),
        };
        return Decision::Refuse(format!("no leg carries the pool {pool:?} ({absent})"));
    };
    if seen.hostid == 0 {
        return Decision::Refuse(
            "this host has no hostid, so multihost cannot protect the pool: run zgenhostid, and \
             boot again"
                .to_string(),
        );
    }
    if seen.labels.values().any(|label| label.pool_guid != newest.pool_guid) {
        return Decision::Refuse(format!("the legs carry two pools of the name {pool:?}"));
    }
    if let Some(since) = &seen.dirty_since
        && !seen.peer_legs_answer
    {
        return Decision::Refuse(format!(
            "the legs of this node have missed writes since {since}, and those of {} do not all \
             answer: start {} first",
            seen.peer, seen.peer
        ));
    }
    if newest.state == LabelState::Exported || newest.hostid == seen.hostid {
        return Decision::Import;
    }
    match seen.peer_state {
        NodeState::Fenced => Decision::ImportByForce,
        NodeState::Online | NodeState::Offline | NodeState::Unclean => Decision::Refuse(format!(
            "the pool {pool:?} is in use by {} (hostid {:x}), and {} is {:?}, not fenced: export the \
             pool there, or fence that node",
            newest.hostname, newest.hostid, seen.peer, seen.peer_state
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: u64 = 1;
    const THEIRS: u64 = 2;

    fn label(state: LabelState, hostid: u64, txg: u64) -> Label {
        let hostname = format!("host{hostid}");
        Label { pool: "tank".to_string(), pool_guid: 9, state, txg, hostid, hostname }
    }

    /// Every combination of what small inputs can be.
    fn every_seen() -> Vec<Seen> {
        let mut all = Vec::new();
        let states = [LabelState::InUse, LabelState::Exported];
        let peers = [NodeState::Online, NodeState::Offline, NodeState::Fenced, NodeState::Unclean];
        for own in states {
            for remote in [None, Some(LabelState::InUse), Some(LabelState::Exported)] {
                for (owner, hostid) in [(OURS, OURS), (THEIRS, OURS), (THEIRS, 0)] {
                    for peer_state in peers {
                        for dirty in [None, Some("1".to_string())] {
                            all.push(seen(own, remote, owner, hostid, peer_state, dirty));
                        }
                    }
                }
            }
        }
        all
    }

    fn seen(
        own: LabelState,
        remote: Option<LabelState>,
        owner: u64,
        hostid: u64,
        peer_state: NodeState,
        dirty_since: Option<String>,
    ) -> Seen {
        let (a, b) = (Leg::new("a").unwrap(), Leg::new("b").unwrap());
        let mut labels = BTreeMap::from([(a, label(own, owner, 10))]);
        if let Some(state) = remote {
            labels.insert(b.clone(), label(state, owner, 11));
        }
        Seen {
            labels,
            absent: if remote.is_none() { vec![b] } else { Vec::new() },
            peer_legs_answer: remote.is_some(),
            hostid,
            peer: "storage-b".to_string(),
            peer_state,
            dirty_since,
        }
    }

    #[test]
    fn no_combination_breaks_a_rule() {
        let all = every_seen();
        for seen in &all {
            let decision = decide("tank", seen);
            let newest = seen.labels.values().max_by_key(|label| label.txg).unwrap();
            if decision == Decision::ImportByForce {
                assert_eq!(seen.peer_state, NodeState::Fenced, "{seen:?}");
                assert_ne!(newest.hostid, seen.hostid, "{seen:?}");
            }
            let foreign = newest.state == LabelState::InUse && newest.hostid != seen.hostid;
            if foreign && seen.peer_state != NodeState::Fenced {
                assert!(matches!(decision, Decision::Refuse(_)), "{seen:?}");
            }
            if seen.dirty_since.is_some() && !seen.peer_legs_answer {
                assert!(matches!(decision, Decision::Refuse(_)), "{seen:?}");
            }
            if seen.hostid == 0 {
                assert!(matches!(decision, Decision::Refuse(_)), "{seen:?}");
            }
        }
        assert_eq!(all.len(), 2 * 3 * 3 * 4 * 2);
    }

    #[test]
    fn the_usual_cases() {
        use LabelState::{Exported, InUse};
        let decide = |seen: Seen| decide("tank", &seen);
        let planned = seen(Exported, Some(Exported), THEIRS, OURS, NodeState::Online, None);
        assert_eq!(decide(planned), Decision::Import);
        let crash = seen(InUse, None, THEIRS, OURS, NodeState::Fenced, None);
        assert_eq!(decide(crash), Decision::ImportByForce);
        let own_reboot = seen(InUse, Some(InUse), OURS, OURS, NodeState::Online, None);
        assert_eq!(decide(own_reboot), Decision::Import);
        let healed_by_peer =
            seen(Exported, Some(Exported), THEIRS, OURS, NodeState::Online, Some("1".to_string()));
        assert_eq!(decide(healed_by_peer), Decision::Import);
        let mut nothing = seen(InUse, None, OURS, OURS, NodeState::Online, None);
        nothing.labels.clear();
        let want = "no leg carries the pool \"tank\" (no answer from b)";
        assert_eq!(decide(nothing), Decision::Refuse(want.to_string()));
    }
}
