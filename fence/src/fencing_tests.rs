//! Outlets that misbehave in every way, under a clock that does not wait.

use super::*;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

/// A clock that jumps.
struct Jump {
    start: Instant,
    passed: Rc<Cell<Duration>>,
}

impl Clock for Jump {
    fn now(&self) -> Instant {
        self.start + self.passed.get()
    }

    fn sleep(&self, time: Duration) {
        self.passed.set(self.passed.get() + time);
    }
}

/// What a read answers.
type Answer = Result<Reading, Trouble>;

/// An outlet that answers as it is told, the last answer for ever.
struct Told {
    name: &'static str,
    reads: VecDeque<Answer>,
    switches: VecDeque<Result<(), Trouble>>,
    log: Rc<RefCell<Vec<String>>>,
}

fn next<T: Clone>(answers: &mut VecDeque<T>) -> T {
    let answer = answers.pop_front().unwrap();
    if answers.is_empty() {
        answers.push_back(answer.clone());
    }
    answer
}

impl Plug for Told {
    fn label(&self) -> String {
        self.name.to_string()
    }

    fn read(&mut self, _until: Instant) -> Answer {
        self.log.borrow_mut().push(format!("{} read", self.name));
        next(&mut self.reads)
    }

    fn switch(&mut self, to: Power, _until: Instant) -> Result<(), Trouble> {
        self.log.borrow_mut().push(format!("{} {to}", self.name));
        next(&mut self.switches)
    }
}

struct Bench {
    clock: Jump,
    rules: Rules,
    log: Rc<RefCell<Vec<String>>>,
    plugs: Vec<Box<dyn Plug>>,
}

impl Bench {
    fn new() -> Bench {
        let rules = Rules {
            power_timeout: Duration::from_secs(20),
            power_wait: Duration::ZERO,
            poll: Duration::from_secs(1),
            hold: Duration::from_secs(3),
            retry_on: 1,
            off_watts: 10.0,
        };
        let clock = Jump { start: Instant::now(), passed: Rc::default() };
        Bench { clock, rules, log: Rc::default(), plugs: Vec::new() }
    }

    fn with(mut self, name: &'static str, reads: &[Answer]) -> Bench {
        let reads = reads.iter().cloned().collect();
        let log = Rc::clone(&self.log);
        self.plugs.push(Box::new(Told { name, reads, switches: VecDeque::from([Ok(())]), log }));
        self
    }

    fn switching(
        mut self,
        name: &'static str,
        switches: &[Result<(), Trouble>],
        reads: &[Answer],
    ) -> Bench {
        let (reads, switches) =
            (reads.iter().cloned().collect(), switches.iter().cloned().collect());
        let log = Rc::clone(&self.log);
        self.plugs.push(Box::new(Told { name, reads, switches, log }));
        self
    }

    fn off(&mut self) -> Result<(), String> {
        off(&mut self.plugs, &self.rules, &self.clock)
    }

    fn reboot(&mut self) -> Result<Option<String>, String> {
        reboot(&mut self.plugs, &self.rules, &self.clock)
    }

    fn seconds(&self) -> u64 {
        self.clock.passed.get().as_secs()
    }

    fn commands(&self) -> Vec<String> {
        let log = self.log.borrow();
        log.iter().filter(|line| !line.ends_with("read")).cloned().collect()
    }
}

fn is(power: Power) -> Answer {
    Ok(power.into())
}

fn passing() -> Answer {
    Err(Trouble::Passing("it is deaf".to_string()))
}

const ON: Power = Power::On;
const OFF: Power = Power::Off;

#[test]
fn an_off_is_a_command_and_two_reads_with_the_hold_time_between() {
    let mut bench = Bench::new().with("a", &[is(OFF)]);
    assert_eq!(bench.off(), Ok(()));
    assert_eq!(*bench.log.borrow(), ["a off", "a read", "a read"]);
    assert_eq!(bench.seconds(), 3);
}

#[test]
fn a_slow_relay_is_waited_for_and_told_again() {
    let mut bench = Bench::new().with("a", &[is(ON), passing(), is(ON), is(OFF)]);
    assert_eq!(bench.off(), Ok(()));
    assert_eq!(bench.commands(), ["a off"; 4]);
}

#[test]
fn what_is_not_proven_off_is_not_off() {
    let with = |pending: Option<&str>, watts| {
        Ok(Reading { power: OFF, pending: pending.map(str::to_string), watts })
    };
    for (reads, want) in [
        (vec![is(ON)], "cannot switch a off: it took the command and is still on"),
        (vec![passing()], "cannot switch a off: it is deaf"),
        (vec![is(OFF), is(ON)], "a was off and is on again"),
        (vec![is(OFF), passing()], "cannot read a: it is deaf"),
        (vec![is(OFF), passing(), is(ON)], "a was off and is on again"),
        (vec![is(OFF), with(Some("a timer runs"), None)], "a will not stay off: a timer runs"),
        (vec![is(OFF), with(None, Some(10.1))], "a says that it is off and measures 10.1 W"),
        (vec![is(OFF), with(None, Some(-85.0))], "a says that it is off and measures -85 W"),
        (vec![is(OFF), with(None, Some(85.0)), is(ON)], "a was off and is on again"),
        (vec![Err(Trouble::Lasting("no such outlet".to_string()))], "no such outlet"),
        (vec![Err(Trouble::Refused("wrong password".to_string()))], "wrong password"),
        (vec![is(OFF), Err(Trouble::Refused("wrong password".to_string()))], "wrong password"),
    ] {
        let mut bench = Bench::new().with("a", &reads);
        let wrong = bench.off().unwrap_err();
        assert!(wrong.contains(want), "{wrong}");
        assert!(bench.seconds() <= 23, "{} s: {wrong}", bench.seconds());
        let mut bench = Bench::new().with("a", &reads);
        assert!(bench.reboot().is_err());
        assert!(!bench.commands().contains(&"a on".to_string()), "{wrong}");
    }
}

#[test]
fn a_load_that_fades_and_a_lost_answer_are_waited_for() {
    let fading = |watts| Ok(Reading { power: OFF, pending: None, watts: Some(watts) });
    let mut bench =
        Bench::new().with("a", &[is(OFF), fading(85.0), passing(), fading(12.0), fading(0.0)]);
    assert_eq!(bench.off(), Ok(()));
}

/// An outlet with a load, until the end of the time cuts a read off.
struct CutOff {
    reads: u32,
    passed: Rc<Cell<Duration>>,
}

impl Plug for CutOff {
    fn label(&self) -> String {
        "a".to_string()
    }

    fn read(&mut self, _until: Instant) -> Answer {
        self.reads += 1;
        match self.reads {
            1 => is(Power::Off),
            2 => Ok(Reading { watts: Some(85.0), ..Power::Off.into() }),
            _ => {
                self.passed.set(Duration::from_secs(60));
                passing()
            }
        }
    }

    fn switch(&mut self, _to: Power, _until: Instant) -> Result<(), Trouble> {
        Ok(())
    }
}

#[test]
fn a_read_that_is_cut_off_does_not_hide_the_load() {
    let mut bench = Bench::new();
    let passed = Rc::clone(&bench.clock.passed);
    bench.plugs.push(Box::new(CutOff { reads: 0, passed }));
    let reason = bench.off().unwrap_err();
    assert!(reason.contains("85 W"), "{reason}");
}

#[test]
fn an_off_that_nobody_took_is_none_even_if_the_outlet_reads_off() {
    let lost = Err(Trouble::Passing("it is deaf".to_string()));
    let mut bench = Bench::new().switching("a", std::slice::from_ref(&lost), &[is(OFF)]);
    assert_eq!(bench.off(), Err("cannot switch a off: it is deaf".to_string()));
    let mut bench = Bench::new().switching("a", &[lost, Ok(())], &[is(OFF)]);
    assert_eq!(bench.off(), Ok(()));
    assert_eq!(bench.commands(), ["a off"; 2]);
}

#[test]
fn a_refused_password_is_sent_once() {
    let refused = Err(Trouble::Refused("the password is wrong".to_string()));
    let mut bench = Bench::new()
        .switching("a", std::slice::from_ref(&refused), &[is(OFF)])
        .with("b", &[is(OFF)]);
    assert_eq!(bench.off(), Err("cannot switch a off: the password is wrong".to_string()));
    assert_eq!(*bench.log.borrow(), ["a off"]);
}

#[test]
fn two_supplies_are_off_at_one_time_before_one_is_on() {
    let mut bench = Bench::new()
        .with("a", &[is(OFF), is(OFF), is(ON)])
        .with("b", &[is(ON), is(OFF), is(OFF), is(ON)]);
    assert_eq!(bench.reboot(), Ok(None));
    let want = ["a off", "b off", "b off", "a on", "b on"];
    assert_eq!(bench.commands(), want);
    let log = bench.log.borrow();
    let first_on = log.iter().position(|line| line == "a on").unwrap();
    assert_eq!(log[first_on - 2..first_on], ["a read", "b read"]);
}

#[test]
fn one_supply_that_stays_on_fails_the_fence_and_the_other_stays_off() {
    let mut bench = Bench::new().with("a", &[is(OFF)]).with("b", &[is(ON)]);
    let wrong = bench.reboot().unwrap_err();
    assert_eq!(wrong, "cannot switch b off: it took the command and is still on");
    assert!(bench.commands().iter().all(|line| line.ends_with("off")));

    let gone = Err(Trouble::Lasting("there is no such outlet".to_string()));
    let mut bench = Bench::new().switching("a", &[gone], &[is(OFF)]).with("b", &[is(OFF)]);
    assert!(bench.off().unwrap_err().contains("no such outlet"));
    assert_eq!(bench.commands(), ["a off", "b off"]);
}

#[test]
fn a_supply_that_comes_back_while_the_other_is_awaited_fails_the_fence() {
    let mut bench = Bench::new().with("a", &[is(OFF), is(ON)]).with("b", &[is(ON), is(OFF)]);
    assert!(bench.off().unwrap_err().contains("a was off and is on again"));
}

#[test]
fn a_reboot_whose_on_fails_is_a_fence_all_the_same() {
    let mut bench = Bench::new().with("a", &[is(OFF)]);
    let warning = bench.reboot().unwrap().unwrap();
    assert_eq!(warning, "cannot switch a on: it took the command and is still off");
    assert_eq!(bench.commands(), ["a off", "a on", "a on"]);
}

#[test]
fn all_of_it_ends_before_pacemakers_sixty_seconds() {
    let mut bench = Bench::new().with("a", &[is(ON), is(OFF)]);
    assert!(bench.reboot().is_ok());
    assert!(bench.seconds() < 50, "{}", bench.seconds());
}

#[test]
fn a_node_is_on_if_one_outlet_is_and_unknown_if_one_is() {
    let load = Ok(Reading { power: OFF, pending: None, watts: Some(80.0) });
    for (a, b, want) in [
        (is(OFF), is(OFF), Ok(OFF)),
        (is(OFF), is(ON), Ok(ON)),
        (is(ON), is(OFF), Ok(ON)),
        (is(OFF), passing(), Err("cannot read b: it is deaf")),
        (passing(), is(OFF), Err("cannot read a: it is deaf")),
        (is(OFF), load, Err("b says that it is off and measures 80 W")),
    ] {
        let mut bench = Bench::new().with("a", &[a]).with("b", &[b]);
        let power = status(&mut bench.plugs, &bench.rules, &bench.clock);
        assert_eq!(power, want.map_err(str::to_string));
    }
}

/// Every sequence of five answers of one outlet: an off is never told unless the last read said so,
/// and nothing was on between two reads that said off.
#[test]
fn every_short_story_ends_truthfully() {
    let answers = [is(OFF), is(ON), passing()];
    let mut stories = 0;
    for story in 0..3usize.pow(5) {
        let reads: Vec<Answer> =
            (0..5).map(|at| answers[story / 3usize.pow(at) % 3].clone()).collect();
        let mut bench = Bench::new().with("a", &reads);
        let result = bench.off();
        let told: Vec<&Answer> = {
            let count = bench.log.borrow().iter().filter(|line| line.ends_with("read")).count();
            (0..count).map(|at| &reads[at.min(4)]).collect()
        };
        if result.is_ok() {
            assert_eq!(told.last(), Some(&&is(OFF)), "{reads:?}");
            let first_off = told.iter().position(|answer| **answer == is(OFF)).unwrap();
            assert!(told[first_off..].iter().all(|answer| **answer != is(ON)), "{reads:?}");
            assert!(told.len() >= 2, "{reads:?}");
        }
        stories += 1;
    }
    assert_eq!(stories, 243);
}
