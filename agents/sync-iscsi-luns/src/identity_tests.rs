//! Identities by tables, and by all orders of what people and programs do to zvols and LUNs.

use super::*;

const PATIENCE: Option<Patience> = Some(Patience { now: 1000, settle: 60 });

fn dataset(name: &str, values: &[(&str, &str)], own: &[(&str, &str)]) -> Dataset {
    let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    };
    let values = [values, own].concat();
    Dataset { name: name.to_string(), values: map(&values), own: map(own) }
}

fn zvol(name: &str, guid: u64, own: &[(&str, &str)]) -> Dataset {
    let values = [("type", "volume"), ("guid", &guid.to_string()), ("creation", "100")];
    dataset(name, &values, own)
}

fn with(mut zvol: Dataset, property: &str, value: &str) -> Dataset {
    zvol.values.insert(property.to_string(), value.to_string());
    zvol
}

fn root(own: &[(&str, &str)]) -> Dataset {
    dataset("p/v", &[("type", "filesystem"), ("guid", "1")], own)
}

fn live(pairs: &[(&str, u64, &str)]) -> BTreeMap<String, Live> {
    let one = |(zvol, lun, serial): &(&str, u64, &str)| {
        let name = zvol.replace('/', "-");
        let reservations = Some(String::new());
        let serial = serial.to_string();
        (zvol.to_string(), Live { lun: *lun, serial, name, reservations, attributes: None })
    };
    pairs.iter().map(one).collect()
}

/// What there is at a start where nobody shows anything.
fn seen(datasets: &[Dataset]) -> Seen<'_> {
    static NAMING: Naming = Naming::Zvol { vlan: None };
    static LIVE: BTreeMap<String, Live> = BTreeMap::new();
    static ELSEWHERE: BTreeMap<String, String> = BTreeMap::new();
    static FOREIGN: BTreeSet<u64> = BTreeSet::new();
    Seen {
        root: "p/v",
        datasets,
        pool_guid: 7,
        naming: &NAMING,
        live: &LIVE,
        elsewhere: &ELSEWHERE,
        foreign: &FOREIGN,
        patience: None,
        served: None,
    }
}

fn judged(
    datasets: &[Dataset],
    live: &BTreeMap<String, Live>,
    patience: Option<Patience>,
) -> Identities {
    identities(&Seen { live, patience, ..seen(datasets) })
}

fn at_start(datasets: &[Dataset]) -> Identities {
    judged(datasets, &BTreeMap::new(), None)
}

fn why<'a>(pairs: &'a [(String, String)], zvol: &str) -> Option<&'a str> {
    pairs.iter().find(|(name, _)| name == zvol).map(|(_, why)| why.as_str())
}

/// The datasets after what must be written was written.
fn written(datasets: &[Dataset], result: &Identities) -> Vec<Dataset> {
    let mut datasets = datasets.to_vec();
    for dataset in &mut datasets {
        for note in result.notes.get(&dataset.name).into_iter().flatten() {
            match note {
                Note::Set(name, value) => {
                    dataset.own.insert(name.to_string(), value.clone());
                }
                Note::Remove(name) => {
                    dataset.own.remove(*name);
                }
            }
        }
        if dataset.name == "p/v" {
            let next = result.next.map(|next| (NEXT.to_string(), next.to_string()));
            dataset.own.extend(next);
        }
    }
    datasets
}

#[test]
fn new_zvols_get_the_next_numbers_and_keep_them() {
    let datasets = [root(&[]), zvol("p/v/a", 10, &[]), zvol("p/v/deep/b c", 11, &[])];
    let first = at_start(&datasets);
    let numbers: Vec<u64> = first.luns.iter().map(|each| each.lun).collect();
    assert_eq!(numbers, [0, 1]);
    assert_eq!(first.next, Some(2));
    assert_eq!(first.luns[0].serial, "000000000000000a0000000000000007");
    assert_eq!(first.luns[1].name, "deep-b-c");
    let second = at_start(&written(&datasets, &first));
    assert_eq!(second.luns, first.luns);
    assert!(second.notes.is_empty() && second.next.is_none());
}

#[test]
fn names_follow_the_rule_or_what_was_adopted() {
    for (naming, want) in [
        (Naming::Zvol { vlan: None }, "a"),
        (Naming::Zvol { vlan: Some("dmz".to_string()) }, "dmz-a"),
        (Naming::Proxmox, "p-v-a"),
    ] {
        let of = |datasets: &[Dataset]| {
            let seen = Seen { naming: &naming, ..seen(datasets) };
            identities(&seen).luns[0].name.clone()
        };
        assert_eq!(of(&[root(&[]), zvol("p/v/a", 10, &[])]), want);
        assert_eq!(of(&[root(&[]), zvol("p/v/a", 10, &[(NAME, "theirs")])]), "theirs");
    }
}

#[test]
fn a_number_is_never_given_twice() {
    let kept = zvol("p/v/a", 10, &[(LUN, "0"), (SERIAL, "s")]);
    // Number 1 was given once; its zvol is gone, and the mark on the dataset remembers it.
    let result = at_start(&[root(&[(NEXT, "2")]), kept, zvol("p/v/c", 12, &[])]);
    assert_eq!(result.luns[1].lun, 2);
    assert_eq!(result.next, Some(3));
}

#[test]
fn one_bad_zvol_does_not_stop_the_others() {
    let good = |name: &str, guid, lun: &str| zvol(name, guid, &[(LUN, lun)]);
    let datasets = [
        root(&[(NEXT, "9")]),
        good("p/v/a", 10, "3"),
        good("p/v/b", 11, "3"),
        with(zvol("p/v/e", 5, &[]), "keystatus", "unavailable"),
        with(zvol("p/v/n", 5, &[]), "volmode", "none"),
        with(zvol("p/v/o", 5, &[]), EXPORT, "off"),
        with(zvol("p/v/r", 5, &[]), "receive_resume_token", "1-abc"),
        zvol("p/v/s", 6, &[(LUN, "7"), (SERIAL, "000000000000000a0000000000000008")]),
        dataset("p/v/x", &[("type", "volume")], &[]),
        good("p/v/z", 12, "4"),
    ];
    let result = at_start(&datasets);
    let names: Vec<&str> = result.luns.iter().map(|each| each.zvol.as_str()).collect();
    assert_eq!(names, ["p/v/a", "p/v/z"]);
    for (zvol, want) in [
        ("p/v/b", "p/v/a has its LUN number 3"),
        ("p/v/e", "its key is not loaded"),
        ("p/v/r", "a receive into it has not ended"),
        ("p/v/x", "it has no guid"),
    ] {
        assert_eq!(why(&result.skipped, zvol), Some(want));
    }
    assert!(why(&result.skipped, "p/v/s").is_some_and(|why| why.contains("that of p/v/a")));
    assert_eq!(why(&result.left, "p/v/n"), Some("volmode is none"));
    assert_eq!(why(&result.left, "p/v/o"), Some("hasan:export is off"));
    assert_eq!(result.skipped.len() + result.left.len() + names.len(), datasets.len() - 1);
}

#[test]
fn what_is_served_stays_as_it_is_and_is_written_down() {
    // Somebody rolled a zvol back: its LUN has another number, another serial and a name of its own.
    let datasets = [
        root(&[(NEXT, "4")]),
        with(zvol("p/v/a", 10, &[(LUN, "0"), (SERIAL, "s")]), "keystatus", "unavailable"),
        zvol("p/v/b", 11, &[(LUN, "5"), (SERIAL, "ff")]),
    ];
    let live = live(&[("p/v/a", 5, "abc")]);
    let result = judged(&datasets, &live, PATIENCE);
    assert_eq!(result.luns.len(), 1);
    let want = [
        Note::Set(LUN, "5".to_string()),
        Note::Set(SERIAL, "abc".to_string()),
        Note::Set(NAME, "p-v-a".to_string()),
    ];
    assert_eq!(result.notes["p/v/a"], want);
    assert_eq!(result.next, Some(6));
    let later = judged(&written(&datasets, &result), &live, None);
    assert_eq!(why(&later.skipped, "p/v/b"), Some("p/v/a has its LUN number 5"));
}

#[test]
fn what_others_are_at_is_left_to_them_for_a_while() {
    let made = |since: &str| with(zvol("p/v/a", 10, &[]), "creation", since);
    let gone = |since: &str| zvol("p/v/a", 10, &[(LUN, "0"), (SERIAL, "s"), (GONE, since)]);
    for (zvol, is_served) in [
        (made("990"), false),
        (made("940"), true),
        (made("2000"), true),
        (gone("990"), false),
        (gone("940"), true),
        (zvol("p/v/a", 10, &[(LUN, "0"), (SERIAL, "s")]), false),
    ] {
        let datasets = [root(&[]), zvol];
        let result = judged(&datasets, &BTreeMap::new(), PATIENCE);
        assert_eq!(result.luns.len(), usize::from(is_served), "{:?}", datasets[1]);
        assert_eq!(result.left.len(), usize::from(!is_served));
        assert_eq!(at_start(&datasets).luns.len(), 1);
    }
    let missed = [root(&[]), zvol("p/v/a", 10, &[(LUN, "0"), (SERIAL, "s")])];
    let result = judged(&missed, &BTreeMap::new(), PATIENCE);
    assert_eq!(result.notes["p/v/a"], [Note::Set(GONE, "1000".to_string())]);
    // Served again, it is no longer missed.
    let back = judged(&written(&missed, &result), &live(&[("p/v/a", 0, "s")]), PATIENCE);
    assert!(back.notes["p/v/a"].contains(&Note::Remove(GONE)));
}

#[test]
fn a_lun_that_was_never_made_is_made_at_once() {
    let datasets = [root(&[]), zvol("p/v/a", 10, &[(LUN, "0"), (SERIAL, "s")])];
    for (served, want) in [(vec!["p/v/a"], 0), (vec!["p/v/b"], 1), (vec![], 1)] {
        let served = served.into_iter().map(String::from).collect();
        let seen = Seen { patience: PATIENCE, served: Some(&served), ..seen(&datasets) };
        assert_eq!(identities(&seen).luns.len(), want, "{served:?}");
    }
}

#[test]
fn a_zvol_that_another_group_shows_is_left_to_it() {
    let datasets = [root(&[]), zvol("p/v/a", 10, &[]), zvol("p/v/b/c", 11, &[(LUN, "0")])];
    let group = "iqn.2025-01.lab.home:b/tpgt_1".to_string();
    let elsewhere = BTreeMap::from([("p/v/b/c".to_string(), group)]);
    let seen = Seen { elsewhere: &elsewhere, ..seen(&datasets) };
    let result = identities(&seen);
    assert_eq!(result.luns.iter().map(|each| each.zvol.as_str()).collect::<Vec<_>>(), ["p/v/a"]);
    assert!(!result.notes.contains_key("p/v/b/c"), "{:?}", result.notes);
    let why = why(&result.skipped, "p/v/b/c").unwrap();
    assert_eq!(why, "it is a LUN of iqn.2025-01.lab.home:b/tpgt_1 already");
}

#[test]
fn what_somebody_has_set_of_a_backstore_is_kept_and_ours_has_what_is_kept() {
    let datasets = [root(&[]), zvol("p/v/a", 10, &[])];
    let set: Attributes = "readonly,block_size=4096,model_alias".parse().unwrap();
    let mut theirs = live(&[("p/v/a", 3, "theirs")]);
    theirs.get_mut("p/v/a").unwrap().attributes = Some(set);
    let noted = written(&datasets, &judged(&datasets, &theirs, None));
    assert_eq!(noted[1].own[ATTRIBUTES], set.to_string());
    assert_eq!(at_start(&noted).luns[0].attributes, set);
    // One of ours is as its zvol says, and does not take it back.
    let ours = live(&[("p/v/a", 3, "theirs")]);
    let result = judged(&noted, &ours, None);
    assert!(result.notes.is_empty() && result.luns[0].attributes == set, "{result:?}");
    theirs.get_mut("p/v/a").unwrap().attributes = Some(Attributes::default());
    let notes = &judged(&noted, &theirs, None).notes["p/v/a"];
    assert_eq!(*notes, [Note::Remove(ATTRIBUTES)]);

    let wrong = [root(&[]), zvol("p/v/a", 10, &[(ATTRIBUTES, "fast")])];
    let skipped = at_start(&wrong).skipped;
    assert_eq!(why(&skipped, "p/v/a"), Some("the attribute \"fast\" of its backstore is unknown"));
}

#[test]
fn reservations_follow_the_kernel_and_come_back_from_the_pool() {
    let kept = zvol("p/v/a", 10, &[(LUN, "0"), (SERIAL, "s"), (RESERVATIONS, "old")]);
    let datasets = [root(&[(NEXT, "1")]), kept];
    assert_eq!(at_start(&datasets).luns[0].reservations, "old");
    let mut live = live(&[("p/v/a", 0, "s")]);
    for (now, want) in
        [("new", Note::Set(RESERVATIONS, "new".to_string())), ("", Note::Remove(RESERVATIONS))]
    {
        live.get_mut("p/v/a").unwrap().reservations = Some(now.to_string());
        assert!(judged(&datasets, &live, PATIENCE).notes["p/v/a"].contains(&want));
    }
    // What cannot be read is not forgotten.
    live.get_mut("p/v/a").unwrap().reservations = None;
    let notes = &judged(&datasets, &live, PATIENCE).notes["p/v/a"];
    assert!(!notes.contains(&Note::Remove(RESERVATIONS)), "{notes:?}");
}

#[derive(Clone)]
struct World {
    datasets: Vec<Dataset>,
    live: BTreeMap<String, Live>,
    /// Every number that was ever shown, and the guid that it was shown for.
    shown: BTreeMap<u64, String>,
}

impl World {
    /// Does one of 8 things; false where it cannot happen.
    fn event(&mut self, event: u64, guid: u64) -> bool {
        match event {
            // A zvol is made; of the same name as one before, perhaps.
            0..3 => {
                let name = format!("p/v/{event}");
                if self.datasets.iter().any(|each| each.name == name) {
                    return false;
                }
                self.datasets.push(zvol(&name, guid, &[]));
                self.datasets.sort_by(|one, other| one.name.cmp(&other.name));
            }
            // The first one goes, after its LUN.
            3 if self.datasets.len() > 1 => {
                let gone = self.datasets.remove(1);
                self.live.remove(&gone.name);
            }
            // Somebody takes its LUN away.
            4 if self.live.pop_first().is_some() => {}
            5 => self.settle(PATIENCE),
            6 => self.settle(Some(Patience { now: 2000, settle: 60 })),
            // A failover.
            7 => {
                self.live.clear();
                self.settle(None);
            }
            _ => return false,
        }
        true
    }

    fn settle(&mut self, patience: Option<Patience>) {
        let result = judged(&self.datasets, &self.live, patience);
        self.datasets = written(&self.datasets, &result);
        let shown = |each: &Identity| {
            let (serial, name) = (each.serial.clone(), each.name.clone());
            let reservations = Some(each.reservations.clone());
            let attributes = Some(each.attributes);
            (each.zvol.clone(), Live { lun: each.lun, serial, name, reservations, attributes })
        };
        let now: BTreeMap<String, Live> = result.luns.iter().map(shown).collect();
        for (zvol, before) in &self.live {
            assert_eq!(now.get(zvol), Some(before), "{zvol} is served otherwise");
        }
        for (zvol, live) in &now {
            let zvol = self.datasets.iter().find(|each| each.name == *zvol).unwrap();
            let first = self.shown.entry(live.lun).or_insert_with(|| zvol.values["guid"].clone());
            assert_eq!(*first, zvol.values["guid"], "number {} a second time", live.lun);
        }
        self.live = now;
    }

    fn go(&self, depth: u64, count: &mut u64) {
        *count += 1;
        for event in (0..8).filter(|_| depth > 0) {
            let mut next = self.clone();
            if next.event(event, 100 + depth) {
                next.go(depth - 1, count);
            }
        }
    }
}

/// Three zvols that come and go, in every order of 8 events to depth 6: no number is ever given to two, and what is
/// served keeps its number and its serial from start to start.
#[test]
fn no_order_of_events_changes_an_identity() {
    let world = World { datasets: vec![root(&[])], live: BTreeMap::new(), shown: BTreeMap::new() };
    let mut count = 0;
    world.go(6, &mut count);
    println!("{count} worlds");
    assert!(count > 10_000);
}
