//! Which legs are a pool's, by what its own legs say. A leg that is none of them is not missing: a blank disk that is to be added,
//! another pool's leg, a dead cache.

use hasan::config::Backend;
use hasan::legs::Leg;
use hasan::zfs::Label;
use std::collections::{BTreeMap, BTreeSet};

/// A leg, and the top-level vdev of the pool that it is to be in.
pub(crate) type Member = (Leg, u64);

/// The legs of the pool; `None` if that cannot be told: a mirror shows none of its legs, or one of its devices is no leg of ours,
/// such as one that was exchanged for another while the only leg that is left did not see it.
pub(crate) fn members(
    pool: &str,
    backend: &Backend,
    carried: &BTreeMap<Leg, Label>,
) -> Option<BTreeSet<Member>> {
    let labels: Vec<&Label> = carried.values().filter(|label| label.pool == pool).collect();
    let newest = labels.iter().max_by_key(|label| label.txg)?;
    // A leg that was away does not know what became of its partners: the newest one of each mirror does.
    let is_newest = |label: &&&Label| {
        let others = labels.iter().filter(|other| other.top_guid == label.top_guid);
        others.map(|other| other.txg).max() == Some(label.txg)
    };
    let tops: BTreeSet<u64> = labels.iter().map(|label| label.top_guid).collect();
    if tops.len() as u64 != newest.tops {
        return None;
    }
    let named = |label: &&Label| -> Option<Vec<Member>> {
        label.members.iter().map(|path| Some((leg_at(backend, path)?, label.top_guid))).collect()
    };
    let named: Option<Vec<_>> = labels.iter().filter(is_newest).map(named).collect();
    Some(named?.into_iter().flatten().collect())
}

fn leg_at(backend: &Backend, path: &str) -> Option<Leg> {
    let mut legs = backend.legs.keys().chain(&backend.peer.legs);
    legs.find(|leg| leg.device().as_os_str() == path).cloned()
}

/// Whether the pool lacks this leg. Where its members are not known, each leg without a label may be one.
pub(crate) fn is_missing(
    pool: &str,
    members: Option<&BTreeSet<Member>>,
    carried: &BTreeMap<Leg, Label>,
    leg: &Leg,
) -> bool {
    let is_in = |top: u64| {
        carried.get(leg).is_some_and(|label| label.pool == pool && label.top_guid == top)
    };
    match members {
        Some(members) => members.iter().any(|(member, top)| member == leg && !is_in(*top)),
        None => !carried.contains_key(leg),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hasan::zfs::LabelState;
    use std::path::PathBuf;

    fn leg(name: &str) -> Leg {
        Leg::new(name).unwrap()
    }

    /// This node has the legs a1, a2 and a3, the other one b1, b2 and b3.
    fn backend() -> Backend {
        let legs = ["a1", "a2", "a3"].map(|name| (leg(name), PathBuf::new())).into();
        let mut backend = Backend { legs, ..Backend::default() };
        backend.peer.legs = ["b1", "b2", "b3"].map(leg).into();
        backend
    }

    fn label(txg: u64, top_guid: u64, members: &[&str]) -> Label {
        Label {
            pool: "tank".to_string(),
            pool_guid: 9,
            state: LabelState::InUse,
            txg,
            synced: txg,
            multihost: true,
            hostid: 1,
            hostname: "host1".to_string(),
            top_guid,
            tops: 2,
            members: members.iter().map(|name| format!("/dev/mapper/{name}")).collect(),
        }
    }

    /// What is missing of the pool tank, where these legs carry these labels.
    fn missing(carried: &[(&str, Label)]) -> String {
        let carried = carried.iter().map(|(name, label)| (leg(name), label.clone())).collect();
        let backend = backend();
        let members = members("tank", &backend, &carried);
        let legs = backend.legs.keys().chain(&backend.peer.legs);
        let missing = legs.filter(|leg| is_missing("tank", members.as_ref(), &carried, leg));
        missing.map(Leg::name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn only_what_the_newest_legs_name_is_missing() {
        let one = |txg| label(txg, 1, &["a1", "b1"]);
        let two = |txg| label(txg, 2, &["a2", "b2"]);
        assert_eq!(missing(&[("a1", one(7)), ("b1", one(7)), ("a2", two(7)), ("b2", two(7))]), "");
        assert_eq!(missing(&[("a1", one(7)), ("a2", two(7))]), "b1 b2");
        // Another pool's leg is none of these, and under a member's name it is the wrong disk.
        let other = Label { pool: "other".to_string(), ..label(8, 3, &["a3", "b3"]) };
        assert_eq!(missing(&[("a1", one(7)), ("a2", two(7)), ("a3", other.clone())]), "b1 b2");
        assert_eq!(missing(&[("a1", one(7)), ("a2", two(7)), ("b2", other)]), "b1 b2");
        // b1 was away while a1 was replaced by a3.
        let replaced = label(9, 1, &["a3", "b1"]);
        let legs = [("a3", replaced), ("b1", one(7)), ("a2", two(9)), ("b2", two(9))];
        assert_eq!(missing(&legs), "");
        // And then a1 was put into the other mirror: without a3 the first one has but the old b1.
        let (two, late) = (label(9, 2, &["a1", "b2"]), one(7));
        assert_eq!(missing(&[("b1", late), ("a1", two.clone()), ("b2", two)]), "a1");
    }

    #[test]
    fn where_the_members_are_not_known_each_leg_without_a_label_is_missing() {
        let one = label(7, 1, &["a1", "b1"]);
        // The other mirror shows nothing of itself.
        assert_eq!(missing(&[("a1", one.clone()), ("b1", one.clone())]), "a2 a3 b2 b3");
        // b1 names a leg that is none of ours any more: what came after it, it does not know.
        let old = label(7, 1, &["a9", "b1"]);
        let two = label(7, 2, &["a2", "b2"]);
        let legs = [("b1", old), ("a2", two.clone()), ("b2", two)];
        assert_eq!(missing(&legs), "a1 a3 b3");
        assert_eq!(missing(&[]), "a1 a2 a3 b1 b2 b3");
    }
}
