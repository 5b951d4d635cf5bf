use super::*;
use hasan::zfs::{Scan, Vdev};
use std::path::Path;

/// A look at a pool of two legs that are well, which has ended; the ones before it have found the same for long.
fn pool_seen_well() -> Pool {
    let vdev = |name: &str| Vdev {
        name: name.to_string(),
        was: None,
        state: "ONLINE".to_string(),
        errors: 0,
        wrong: 0,
        resilvering: false,
    };
    let vdevs = vec![vdev("a1"), vdev("b1")];
    let status = Status { scan: Scan::Other, resilvered: None, vdevs };
    let seen = Seen { status, foreign: BTreeSet::new(), strays: BTreeSet::new() };
    let machine = Machine::local(Instant::now());
    let seen = Aside::begin(&machine, |_| Ok(seen));
    let well_since = Instant::now().checked_sub(SETTLED);
    let look = Some(Look { seen, here: Some(other()) });
    Pool { unwell: true, look, well_since, ..Pool::default() }
}

fn other() -> BTreeSet<Leg> {
    BTreeSet::from([Leg::new("b1").unwrap()])
}

/// Lets a pool take up what goes on beside the watch, on a machine that has no program: whoever asks the cluster fails.
fn attend(pool: &mut Pool, here: Option<&BTreeSet<Leg>>) -> Result<(), Fault> {
    let mut backend = Backend::default();
    backend.legs.insert(Leg::new("a1").unwrap(), Default::default());
    backend.peer.legs = other().into_iter().collect();
    let machine = Machine::recorded(Path::new("/nonexistent"));
    let mut result = Ok(());
    machine.await_condition(Duration::from_secs(9), || {
        result = pool.attend(&machine, &backend, "p", here);
        Ok(pool.look.is_none())
    })?;
    result
}

#[test]
fn marks_are_removed_only_after_a_look_that_is_still_true() {
    let asked =
        |result: Result<(), Fault>| result.is_err_and(|fault| fault.reason.contains("cibadmin"));
    let mut pool = pool_seen_well();
    assert!(asked(attend(&mut pool, Some(&other()))));
    let mut pool = pool_seen_well();
    pool.news = true;
    assert!(attend(&mut pool, Some(&other())).is_ok());
    // Just imported: ZFS may be about to begin a resilver.
    let mut pool = pool_seen_well();
    pool.well_since = None;
    assert!(attend(&mut pool, Some(&other())).is_ok());
    for (then, now) in [(Some(other()), None), (None, Some(other()))] {
        let mut pool = pool_seen_well();
        pool.look.as_mut().unwrap().here = then;
        assert!(attend(&mut pool, now.as_ref()).is_ok());
    }
}

#[test]
fn a_pool_is_settled_when_it_was_well_for_long_without_news() {
    let (mut pool, start) = (Pool::default(), Instant::now());
    let mut at = |seconds, verdict, news| {
        pool.news = news;
        pool.is_settled(&verdict, start + Duration::from_secs(seconds))
    };
    for (seconds, verdict, news, want) in [
        (0, Verdict::Well, false, false),
        (29, Verdict::Well, false, false),
        (30, Verdict::Well, false, true),
        (31, Verdict::Well, true, false),
        (60, Verdict::Well, false, false),
        (89, Verdict::Wait, false, false),
        (90, Verdict::Well, false, false),
        (120, Verdict::Well, false, true),
    ] {
        assert_eq!(at(seconds, verdict, news), want, "{seconds}");
    }
}

#[test]
fn a_look_is_not_believed_when_a_leg_is_let_go_meanwhile() {
    let mut pool = pool_seen_well();
    assert!(!pool.needs_look(None));
    pool.disbelieve();
    assert!(pool.look.is_none() && pool.needs_look(None));
}

#[test]
fn what_zfs_has_told_is_looked_at_before_a_leg_is_let_go() {
    // No program is here: whoever asks ZFS fails.
    let machine = Machine::recorded(Path::new("/nonexistent"));
    let mark = |pool: &mut Pool| pool.mark_own(&machine, &Backend::default(), "p");
    assert_eq!(mark(&mut Pool::default()), Ok(()));
    for mut pool in [Pool::arrived(), pool_seen_well()] {
        let fault = mark(&mut pool).unwrap_err();
        assert!(fault.reason.contains("zpool"), "{}", fault.reason);
    }
}

#[test]
fn a_pool_that_has_left_is_forgotten() {
    let machine = Machine::recorded(Path::new("/nonexistent"));
    let mut care = Care::default();
    for name in ["here", "gone"] {
        care.pools.insert(name.to_string(), pool_seen_well());
    }
    care.forget_all_but(&machine, &[("here".to_string(), PoolState::Online)]);
    assert_eq!(care.pools.keys().collect::<Vec<_>>(), ["here"]);
}

#[test]
fn errors_and_changes_are_news() {
    for (line, want) in [
        ("Nov 21 2026 13:00:00.1\tereport.fs.zfs.io", true),
        ("Nov 21 2026 13:00:00.1\tereport.fs.zfs.checksum", true),
        ("Nov 21 2026 13:00:00.1\tresource.fs.zfs.statechange", true),
        ("Nov 21 2026 13:00:00.1\tereport.fs.zfs.delay", false),
        ("Nov 21 2026 13:00:00.1\tsysevent.fs.zfs.history_event", false),
        ("Nov 21 2026 13:00:00.1\tsysevent.fs.zfs.resilver_start", true),
        ("Nov 21 2026 13:00:00.1\tsysevent.fs.zfs.vdev_attach", true),
        ("dropped 1 events", true),
        ("Nov 21 2026 13:00:00.1\tsysevent.fs.zfs.resilver_finish", false),
    ] {
        assert_eq!(is_news(line), want, "{line}");
    }
}

#[test]
fn a_new_disk_is_named_with_the_command() {
    assert!(
        advice("p", &BTreeSet::from(["b1", "b2"].map(str::to_string)))
            .ends_with(": zpool replace p b1")
    );
}

#[test]
fn a_leg_that_is_no_vdev_of_the_pool_is_not_waited_for() {
    let status =
        pool_seen_well().look.unwrap().seen.result_within(SETTLED).unwrap().unwrap().status;
    let leg = |name: &str| Leg::new(name).unwrap();
    let mut backend = Backend::default();
    backend.legs.insert(leg("a1"), Default::default());
    backend.peer.legs = ["b1", "b2"].map(leg).to_vec();
    for (usable, want) in [(vec!["a1", "b1"], true), (vec!["a1", "b2"], false), (vec!["b1"], false)]
    {
        let usable: BTreeSet<&str> = usable.into_iter().collect();
        assert_eq!(are_all(&backend, &status, &usable), want, "{usable:?}");
    }
}

#[test]
fn a_stray_keeps_the_mark_of_its_own_node() {
    let leg = |name: &str| Leg::new(name).unwrap();
    let mut backend = Backend::default();
    backend.legs.insert(leg("a2"), "/dev/sda".into());
    backend.peer.legs.push(leg("b2"));
    let (a2, b2) = (BTreeSet::from([leg("a2")]), BTreeSet::from([leg("b2")]));
    assert_eq!(stray_of(&backend, &a2, true), Some(&leg("a2")));
    assert_eq!(stray_of(&backend, &a2, false), None);
    assert_eq!(stray_of(&backend, &b2, true), None);
    assert_eq!(stray_of(&backend, &b2, false), Some(&leg("b2")));
}
