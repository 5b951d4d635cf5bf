//! The decision against rules that are written apart from it: every combination of small inputs.

use super::*;
use std::collections::BTreeSet;

const OURS: u64 = 1;
const THEIRS: u64 = 2;
const GUID: u64 = 9;
const OLD: u64 = 10;
const NEW: u64 = 12;

fn label(state: LabelState, hostid: u64, txg: u64, multihost: bool) -> Label {
    let hostname = format!("host{hostid}");
    let pool = "tank".to_string();
    let members = BTreeSet::new();
    Label {
        pool,
        pool_guid: GUID,
        state,
        txg,
        synced: txg,
        multihost,
        hostid,
        hostname,
        top_guid: 1,
        tops: 1,
        members,
    }
}

fn owner(node: &str, pool_guid: u64, hostids: &[u64], txg: u64) -> Owner {
    let (pool_guid, txg) = (Some(pool_guid), Some(txg));
    Owner { node: node.to_string(), pool_guid, hostids: hostids.to_vec(), txg, fenced: None }
}

/// What can lie on a leg: state, host, transaction group; `None` if it does not answer or is blank.
fn every_leg() -> Vec<Option<(LabelState, u64, u64)>> {
    let mut all = vec![None];
    for state in [LabelState::InUse, LabelState::Exported] {
        for hostid in [OURS, THEIRS] {
            for txg in [OLD, NEW] {
                all.push(Some((state, hostid, txg)));
            }
        }
    }
    all
}

fn every_record() -> Vec<Option<Owner>> {
    let by_hand = Owner {
        node: "a".to_string(),
        pool_guid: None,
        hostids: Vec::new(),
        txg: None,
        fenced: None,
    };
    vec![
        None,
        Some(by_hand),
        Some(owner("a", GUID, &[OURS, THEIRS], NEW)),
        Some(owner("a", GUID, &[OURS, THEIRS], OLD)),
        Some(owner("b", GUID, &[THEIRS, OURS], NEW)),
        Some(owner("b", GUID, &[THEIRS], NEW)),
        Some(owner("a", GUID + 1, &[OURS, THEIRS], NEW)),
    ]
}

/// Node a decides; `a` is its leg, `b` the other node's.
fn usual() -> Seen {
    let leg = |name: &str| Leg::new(name).unwrap();
    let exported = label(LabelState::Exported, THEIRS, NEW, true);
    Seen {
        labels: BTreeMap::from([(leg("a"), exported.clone()), (leg("b"), exported)]),
        beside: Vec::new(),
        own_missing: Vec::new(),
        peer_missing: Vec::new(),
        hostid: OURS,
        version: Version(2, 1, 11),
        policy: Policy::Require,
        own: "a".to_string(),
        peer: "b".to_string(),
        cluster: Cluster {
            peer: NodeState::Online,
            fenced: BTreeMap::new(),
            has_quorum: true,
            fencing_enabled: true,
        },
        peer_hostid: Some("2".to_string()),
        peer_fresh: None,
        own_mark: None,
        peer_mark: None,
        record: Some(owner("b", GUID, &[THEIRS, OURS], OLD)),
    }
}

fn place(seen: &mut Seen, name: &str, on_leg: Option<(LabelState, u64, u64)>, multihost: bool) {
    let leg = Leg::new(name).unwrap();
    seen.labels.remove(&leg);
    let missing = if name == "a" { &mut seen.own_missing } else { &mut seen.peer_missing };
    missing.clear();
    match on_leg {
        Some((state, hostid, txg)) => {
            seen.labels.insert(leg, label(state, hostid, txg, multihost));
        }
        None => missing.push(leg),
    }
}

/// Calls `check` for every combination; returns how many there are.
fn for_every_seen(mut check: impl FnMut(&Seen)) -> usize {
    let mut count = 0;
    let bools = [false, true];
    let peers = [NodeState::Online, NodeState::Offline, NodeState::Fenced, NodeState::Unclean];
    let versions = [Version(2, 1, 11), Version(2, 3, 7), Version(2, 3, 9)];
    let mut seen = usual();
    for own in every_leg() {
        for remote in every_leg() {
            for multihost in bools {
                place(&mut seen, "a", own, multihost);
                place(&mut seen, "b", remote, multihost);
                for record in every_record() {
                    seen.record = record;
                    for (peer, version) in peers.iter().flat_map(|p| versions.map(|v| (*p, v))) {
                        seen.version = version;
                        // Hostid, quorum, fencing, own mark, peer's mark, policy: a bit each.
                        for bits in 0..64u32 {
                            let bit = |at: u32| bits & (1 << at) != 0;
                            let mark = |at: u32| bit(at).then(|| "1".to_string());
                            seen.hostid = if bit(0) { 0 } else { OURS };
                            let (has_quorum, fencing_enabled) = (!bit(1), !bit(2));
                            seen.cluster = Cluster {
                                peer,
                                fenced: BTreeMap::new(),
                                has_quorum,
                                fencing_enabled,
                            };
                            (seen.own_mark, seen.peer_mark) = (mark(3), mark(4));
                            seen.policy = if bit(5) { Policy::Ignore } else { Policy::Require };
                            check(&seen);
                            count += 1;
                        }
                    }
                }
            }
        }
    }
    count
}

/// The rules, each as a sentence and what breaks it.
fn broken_rule(seen: &Seen, decision: &Decision) -> Option<&'static str> {
    let newest = seen.labels.values().max_by_key(|label| label.txg)?;
    let record = seen.record.as_ref();
    let takes_over = newest.state == LabelState::InUse && newest.hostid != OURS;
    let fenced = seen.cluster.peer == NodeState::Fenced;
    let began = record.is_some_and(|r| r.node == "a" && r.txg == Some(newest.txg));
    let lacks = !seen.own_missing.is_empty() || !seen.peer_missing.is_empty();
    let claims = newest.multihost && lacks;
    let rules = [
        ("no import without a hostid", seen.hostid == 0),
        ("no import without quorum", !seen.cluster.has_quorum),
        ("no import without fencing", !seen.cluster.fencing_enabled),
        ("no import without a record", record.is_none()),
        ("no import of another pool", record.is_some_and(|r| r.pool_guid == Some(GUID + 1))),
        ("never two owners", takes_over && !fenced && !began),
        (
            "an old fencing is no proof of what came by hand after it",
            takes_over
                && !newest.multihost
                && !began
                && record.is_some_and(|r| r.node == "a" && !r.hostids.is_empty()),
        ),
        (
            "never stale legs alone",
            (seen.own_mark.is_some() && !seen.peer_missing.is_empty())
                || (seen.peer_mark.is_some() && !seen.own_missing.is_empty()),
        ),
        (
            "never legs that are older than the record",
            record.is_some_and(|r| !r.hostids.is_empty() && !r.hostids.contains(&newest.hostid)),
        ),
        ("never what ZFS cannot do", claims && seen.version == Version(2, 3, 7)),
        (
            "require means require",
            takes_over && !newest.multihost && seen.policy == Policy::Require,
        ),
        ("force only to take over", *decision == Decision::ImportByForce && !takes_over),
        ("a takeover needs force", *decision == Decision::Import && takes_over),
        (
            "reclaim if and only if ZFS asks for it",
            (*decision == Decision::Reclaim) != (claims && seen.version == Version(2, 3, 9)),
        ),
    ];
    rules.into_iter().find(|(_, is_broken)| *is_broken).map(|(rule, _)| rule)
}

#[test]
fn no_combination_breaks_a_rule_and_none_is_refused_without_one() {
    let (mut imports, mut refusals) = (0, 0);
    let count = for_every_seen(|seen| {
        let decision = decide("tank", seen);
        if let Decision::Refuse(reason) = decision {
            assert!(!reason.is_empty());
            refusals += 1;
            // Some rule would be broken by each of the three ways, or nothing is there.
            let ways = [Decision::Import, Decision::ImportByForce, Decision::Reclaim];
            let some_way = ways.iter().any(|way| broken_rule(seen, way).is_none());
            assert!(seen.labels.is_empty() || !some_way, "refused: {reason}: {seen:?}");
        } else {
            imports += 1;
            assert_eq!(broken_rule(seen, &decision), None, "{decision:?}: {seen:?}");
        }
    });
    println!("{count} combinations: {imports} imports, {refusals} refusals");
    assert_eq!(count, 9 * 9 * 2 * 7 * 4 * 3 * 64);
    assert!(imports > 1000 && refusals > 1000);
}

#[test]
fn the_usual_cases() {
    use LabelState::{Exported, InUse};
    assert_eq!(decide("tank", &usual()), Decision::Import);
    let mut crash = usual();
    place(&mut crash, "a", Some((InUse, THEIRS, NEW)), true);
    place(&mut crash, "b", None, true);
    crash.cluster.peer = NodeState::Fenced;
    assert_eq!(decide("tank", &crash), Decision::ImportByForce);
    crash.version = Version(2, 3, 9);
    assert_eq!(decide("tank", &crash), Decision::Reclaim);
    // The import was broken off, and the dead node is back before it was tried again.
    crash.cluster.peer = NodeState::Online;
    crash.record = Some(owner("a", GUID, &[OURS, THEIRS], NEW));
    assert_eq!(decide("tank", &crash), Decision::Reclaim);
    let mut own_reboot = usual();
    place(&mut own_reboot, "a", Some((InUse, OURS, NEW)), true);
    place(&mut own_reboot, "b", Some((InUse, OURS, NEW)), true);
    assert_eq!(decide("tank", &own_reboot), Decision::Import);
    place(&mut own_reboot, "b", None, true);
    own_reboot.cluster.peer = NodeState::Fenced;
    assert_eq!(decide("tank", &own_reboot), Decision::Import);
    own_reboot.version = Version(2, 3, 9);
    assert_eq!(decide("tank", &own_reboot), Decision::Reclaim);
    let mut during_resilver = usual();
    during_resilver.own_mark = Some("1".to_string());
    place(&mut during_resilver, "a", Some((Exported, THEIRS, OLD)), true);
    assert_eq!(decide("tank", &during_resilver), Decision::Import);
}

#[test]
fn a_refusal_says_what_was_seen_and_what_to_do() {
    use LabelState::InUse;
    let refusal = |change: &dyn Fn(&mut Seen)| {
        let mut seen = usual();
        change(&mut seen);
        match decide("tank", &seen) {
            Decision::Refuse(reason) => reason,
            other => panic!("{other:?}: {seen:?}"),
        }
    };
    let nothing = refusal(&|seen| {
        place(seen, "a", None, true);
        place(seen, "b", None, true);
    });
    assert_eq!(nothing, "no leg carries the pool \"tank\" (no answer from a, b)");
    let no_record = refusal(&|seen| seen.record = None);
    let command = "crm_attribute -t crm_config -n hasan-owner-tank -v a";
    assert!(no_record.ends_with(command), "{no_record}");
    let in_use = refusal(&|seen| place(seen, "b", Some((InUse, THEIRS, NEW + 1)), true));
    assert!(
        in_use.contains("tank is in use by host2 (hostid 2); b is Online, not fenced"),
        "{in_use}"
    );
    let same = refusal(&|seen| seen.peer_hostid = Some("1".to_string()));
    assert!(same.contains("this host and b have the same hostid 1"), "{same}");
    let stale = refusal(&|seen| {
        seen.own_mark = Some("2026-11-21T16:50:00Z".to_string());
        seen.cluster.peer = NodeState::Offline;
        place(seen, "b", None, true);
    });
    assert!(
        stale.contains(
            "a misses writes since 2026-11-21T16:50:00Z; start b first: no answer from b"
        ),
        "{stale}"
    );
    // Both nodes are here and marked: to start one first is no advice.
    let command = "crm_attribute -N a -n hasan-dirty-tank -D";
    let lost = refusal(&|seen| {
        seen.peer_mark = Some("2026-11-21T17:50:00Z".to_string());
        seen.own_mark = Some("2026-11-21T16:50:00Z".to_string());
        place(seen, "b", None, true);
    });
    assert!(lost.starts_with("a misses writes of b;") && lost.ends_with(command), "{lost}");
    let lost_here = refusal(&|seen| {
        seen.peer_mark = Some("2026-11-21T16:50:00Z".to_string());
        place(seen, "a", None, true);
    });
    assert!(lost_here.starts_with("b misses writes of a;"), "{lost_here}");
    let by_hand = refusal(&|seen| {
        seen.cluster.peer = NodeState::Fenced;
        seen.policy = Policy::Ignore;
        seen.record = Some(owner("a", GUID, &[OURS, THEIRS], OLD));
        for leg in ["a", "b"] {
            place(seen, leg, Some((InUse, THEIRS, NEW)), false);
        }
    });
    let command = "crm_attribute -t crm_config -n hasan-owner-tank -v b";
    assert!(by_hand.starts_with("host2 took tank") && by_hand.ends_with(command), "{by_hand}");
}

/// Pacemaker keeps 128 characters of a reason (`EXIT_REASON_MAX_LEN`), and "zfs-pool: " is before it.
#[test]
fn a_refusal_is_short_enough_to_be_shown_whole() {
    let leg = |name: &str| Leg::new(name).unwrap();
    let (mut longest, mut count, mut at) = (String::new(), BTreeMap::new(), 0);
    for_every_seen(|seen| {
        // Some of the combinations do; each kind of refusal is among them.
        at += 1;
        if at % 7 != 0 {
            return;
        }
        let mut real = seen.clone();
        (real.own, real.peer) = ("storage-a".to_string(), "storage-b".to_string());
        real.own_mark = seen.own_mark.as_ref().map(|_| "2026-11-21T16:50:00Z".to_string());
        real.peer_mark = seen.peer_mark.as_ref().map(|_| "2026-11-21T16:50:00Z".to_string());
        for label in real.labels.values_mut() {
            label.hostname = "storage-b".to_string();
        }
        if !real.peer_missing.is_empty() {
            real.peer_missing = ["data-b1", "data-b2", "data-b3", "data-b4"].map(leg).to_vec();
        }
        if let Decision::Refuse(reason) = decide("san-pool", &real) {
            *count.entry(reason.split(' ').take(3).collect::<String>()).or_insert(0) += 1;
            if reason.len() > longest.len() {
                longest = reason;
            }
        }
    });
    assert!(count.len() >= 8, "{count:?}");
    assert!(longest.len() + "zfs-pool: ".len() <= 128, "{} characters: {longest}", longest.len());
}

#[test]
fn a_leg_is_behind_only_where_another_one_of_its_mirror_is_ahead() {
    let mut seen = usual();
    assert_eq!(behind(&seen), BTreeSet::new());
    let (a, b) = (Leg::new("a").unwrap(), Leg::new("b").unwrap());
    place(&mut seen, "a", Some((LabelState::InUse, OURS, OLD)), true);
    assert_eq!(behind(&seen), BTreeSet::from([&a]));
    // Multihost's sign of life goes to one leg alone.
    place(&mut seen, "a", Some((LabelState::InUse, OURS, NEW)), true);
    seen.labels.get_mut(&b).unwrap().txg += 1;
    assert_eq!(behind(&seen), BTreeSet::new());
    place(&mut seen, "a", Some((LabelState::InUse, OURS, OLD)), true);
    // Each transaction group goes to some mirrors alone.
    seen.labels.get_mut(&b).unwrap().top_guid += 1;
    assert_eq!(behind(&seen), BTreeSet::new());
    place(&mut seen, "b", None, true);
    assert_eq!(behind(&seen), BTreeSet::new());
}
