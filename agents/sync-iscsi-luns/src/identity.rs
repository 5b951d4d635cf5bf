//! Number and serial of each zvol's LUN: kept in properties of the zvol, given once, never again.
//! Pure functions.

use hasan::zfs::Dataset;
use std::collections::{BTreeMap, BTreeSet};

/// Property of a zvol: its LUN number.
pub(crate) const LUN: &str = "hasan:lun";
/// Property of a zvol: the serial of its LUN.
pub(crate) const SERIAL: &str = "hasan:serial";
/// Property of the VLAN's dataset: the lowest LUN number that was never given.
pub(crate) const NEXT: &str = "hasan:next-lun";

/// A zvol with the identity of its LUN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) zvol: String,
    pub(crate) lun: u64,
    pub(crate) serial: String,
}

/// The identities of all zvols that can be served, and what must be written before they are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Identities {
    pub(crate) luns: Vec<Identity>,
    /// Zvols whose identity is new.
    pub(crate) new: Vec<Identity>,
    /// The new value of [`NEXT`], if it changes.
    pub(crate) next: Option<u64>,
    /// Zvols that are not served, and why.
    pub(crate) skipped: Vec<String>,
}

/// Gives each zvol below `root` its identity. The datasets come sorted by name.
pub(crate) fn identities(root: &str, datasets: &[Dataset], pool_guid: u64) -> Identities {
    let mut result = Identities::default();
    let zvols: Vec<&Dataset> = datasets.iter().filter(|each| is(each, "type", "volume")).collect();
    let taken: BTreeSet<u64> = zvols.iter().filter_map(|zvol| own_number(zvol)).collect();
    let mark = datasets.iter().find(|each| each.name == root).and_then(|each| each.own.get(NEXT));
    let recorded: u64 = mark.and_then(|text| text.parse().ok()).unwrap_or(0);
    let first_free = taken.last().map_or(0, |highest| highest + 1).max(recorded);
    let mut next = first_free;
    let mut used = BTreeMap::new();
    for zvol in zvols {
        if is(zvol, "volmode", "none") {
            result.skipped.push(format!("{}: volmode is none", zvol.name));
            continue;
        }
        let Some(guid) = zvol.native.get("guid").and_then(|guid| guid.parse::<u64>().ok()) else {
            result.skipped.push(format!("{}: it has no guid", zvol.name));
            continue;
        };
        let lun = own_number(zvol).unwrap_or(next);
        if let Some(other) = used.insert(lun, zvol.name.clone()) {
            result.skipped.push(format!("{}: {other} has its LUN number {lun}", zvol.name));
            used.insert(lun, other);
            continue;
        }
        next = next.max(lun + 1);
        let own_serial = zvol.own.get(SERIAL);
        let serial = own_serial.cloned().unwrap_or_else(|| serial(guid, pool_guid));
        let identity = Identity { zvol: zvol.name.clone(), lun, serial };
        if own_number(zvol).is_none() || own_serial.is_none() {
            result.new.push(identity.clone());
        }
        result.luns.push(identity);
    }
    result.next = (next != recorded).then_some(next);
    result
}

fn is(dataset: &Dataset, property: &str, value: &str) -> bool {
    dataset.native.get(property).map(String::as_str) == Some(value)
}

fn own_number(zvol: &Dataset) -> Option<u64> {
    zvol.own.get(LUN)?.parse().ok()
}

/// 32 hexadecimal digits, of which LIO takes the first 25 for the NAA: all of the zvol's GUID, which
/// is unique in the pool, and 9 digits of the pool's.
fn serial(zvol_guid: u64, pool_guid: u64) -> String {
    format!("{zvol_guid:016x}{pool_guid:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zvol(name: &str, guid: u64, own: &[(&str, &str)]) -> Dataset {
        let native = [("type", "volume"), ("volmode", "default"), ("guid", &guid.to_string())];
        dataset(name, &native, own)
    }

    fn dataset(name: &str, native: &[(&str, &str)], own: &[(&str, &str)]) -> Dataset {
        let map = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
        };
        Dataset { name: name.to_string(), native: map(native), own: map(own) }
    }

    fn root(own: &[(&str, &str)]) -> Dataset {
        dataset("p/v", &[("type", "filesystem"), ("guid", "1")], own)
    }

    #[test]
    fn new_zvols_get_the_next_numbers_and_keep_them() {
        let first =
            identities("p/v", &[root(&[]), zvol("p/v/a", 10, &[]), zvol("p/v/b", 11, &[])], 7);
        let numbers: Vec<u64> = first.luns.iter().map(|each| each.lun).collect();
        assert_eq!(numbers, [0, 1]);
        assert_eq!(first.new, first.luns);
        assert_eq!(first.next, Some(2));
        assert_eq!(first.luns[0].serial, "000000000000000a0000000000000007");
        let own = |at: usize| {
            let identity = &first.luns[at];
            [
                (LUN.to_string(), identity.lun.to_string()),
                (SERIAL.to_string(), identity.serial.clone()),
            ]
        };
        let again = [
            root(&[(NEXT, "2")]),
            Dataset { own: own(0).into(), ..zvol("p/v/a", 10, &[]) },
            Dataset { own: own(1).into(), ..zvol("p/v/b", 11, &[]) },
        ];
        let second = identities("p/v", &again, 7);
        assert_eq!(second.luns, first.luns);
        assert!(second.new.is_empty() && second.next.is_none());
    }

    #[test]
    fn a_number_is_never_given_twice() {
        let kept = zvol("p/v/a", 10, &[(LUN, "0"), (SERIAL, "s")]);
        let fresh = zvol("p/v/c", 12, &[]);
        // Number 1 was given once; its zvol is gone, and the mark on the dataset remembers it.
        let result = identities("p/v", &[root(&[(NEXT, "2")]), kept, fresh], 7);
        assert_eq!(result.luns[1].lun, 2);
        assert_eq!(result.next, Some(3));
    }

    #[test]
    fn one_bad_zvol_does_not_stop_the_others() {
        let datasets = [
            root(&[(NEXT, "9")]),
            zvol("p/v/a", 10, &[(LUN, "3"), (SERIAL, "s")]),
            zvol("p/v/b", 11, &[(LUN, "3"), (SERIAL, "t")]),
            dataset("p/v/n", &[("type", "volume"), ("volmode", "none"), ("guid", "5")], &[]),
            dataset("p/v/x", &[("type", "volume"), ("volmode", "dev")], &[]),
            zvol("p/v/z", 12, &[(LUN, "4"), (SERIAL, "u")]),
        ];
        let result = identities("p/v", &datasets, 7);
        let names: Vec<&str> = result.luns.iter().map(|each| each.zvol.as_str()).collect();
        assert_eq!(names, ["p/v/a", "p/v/z"]);
        let want = [
            "p/v/b: p/v/a has its LUN number 3",
            "p/v/n: volmode is none",
            "p/v/x: it has no guid",
        ];
        assert_eq!(result.skipped, want);
    }
}
