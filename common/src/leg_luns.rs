//! The number of the LUN that carries a leg. As long as this node runs it is the leg's alone, whatever other legs come or go:
//! a session outlives the target that is made anew, its kernel goes by numbers, and would send the writes that it holds back to
//! whichever leg has the number then. A boot takes longer than a session holds writes back (`recovery_tmo`), and dm-multipath,
//! which holds them longer, uses a path only after a look at its serial: so the numbers are kept in /run.

use crate::legs::Leg;
use crate::machine::Machine;
use crate::ocf::Fault;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// Lines of `LEG NUMBER`.
const KEPT: &str = "/run/hasan/leg-luns";
/// As many as targetcli bears: with one LUN that is shown by a higher number it fails at every command (rtslib,
/// `MappedLUN.MAX_LUN`).
const NUMBERS: u64 = 256;

/// The numbers of these legs: those that they have had since the boot, and free ones for others.
///
/// # Errors
/// `Generic` (1) if the file of the numbers makes no sense, or there are none left.
pub fn numbers<'a>(
    machine: &Machine,
    legs: impl Iterator<Item = &'a Leg>,
) -> Result<BTreeMap<Leg, u64>, Fault> {
    let kept = parse(&machine.read(Path::new(KEPT))?.unwrap_or_default())?;
    assign(kept, legs)
}

/// Keeps them until the next boot. Before a LUN is made.
pub fn keep(machine: &Machine, numbers: &BTreeMap<Leg, u64>) -> Result<(), Fault> {
    let lines: Vec<String> =
        numbers.iter().map(|(leg, number)| format!("{leg} {number}")).collect();
    let text = lines.join("\n");
    if machine.read(Path::new(KEPT))?.unwrap_or_default() == text {
        return Ok(());
    }
    machine.replace_file(Path::new(KEPT), &text)
}

fn parse(text: &str) -> Result<BTreeMap<Leg, u64>, Fault> {
    let row = |line: &str| {
        let (leg, number) = line.split_once(' ')?;
        Some((Leg::new(leg).ok()?, number.parse().ok().filter(|number| *number < NUMBERS)?))
    };
    let rows = text.lines().map(|line| {
        row(line).ok_or_else(|| {
            Fault::generic(format!("{KEPT} has the row {line:?}: remove the file, and boot again"))
        })
    });
    rows.collect()
}

/// A leg that has none gets the number by its name, or the next free one.
fn assign<'a>(
    mut numbers: BTreeMap<Leg, u64>,
    legs: impl Iterator<Item = &'a Leg>,
) -> Result<BTreeMap<Leg, u64>, Fault> {
    for leg in legs {
        if numbers.contains_key(leg) {
            continue;
        }
        let first = u64::from(Sha256::digest(format!("hasan leg {leg}"))[31]);
        let is_free = |number: &u64| !numbers.values().any(|taken| taken == number);
        let free = (first..first + NUMBERS).map(|number| number % NUMBERS).find(is_free);
        let number = free.ok_or_else(|| {
            Fault::generic(format!(
                "{NUMBERS} legs have had a LUN since the boot, and {leg} is one more"
            ))
        })?;
        numbers.insert(leg.clone(), number);
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn legs(count: usize) -> Vec<Leg> {
        (0..count).map(|number| Leg::new(&format!("data-a{number}")).unwrap()).collect()
    }

    #[test]
    fn a_leg_keeps_its_number_whatever_others_come_and_go() {
        let root = std::env::temp_dir().join(format!("hasan-luns-{}", std::process::id()));
        let machine = Machine::recorded(&root);
        let all = legs(40);
        let before = numbers(&machine, all.iter()).unwrap();
        let different: BTreeSet<u64> = before.values().copied().collect();
        assert_eq!(different.len(), all.len());
        // With so many, some had to step aside for others; without those they would not.
        let alone = |leg: &Leg| numbers(&machine, std::iter::once(leg)).unwrap()[leg];
        assert!(all.iter().any(|leg| alone(leg) != before[leg]), "nothing was to be kept here");
        keep(&machine, &before).unwrap();
        for leg in &all {
            assert_eq!(alone(leg), before[leg], "{leg}");
        }
        assert_eq!(numbers(&machine, std::iter::empty()).unwrap(), before);
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn there_are_as_many_numbers_as_targetcli_bears() {
        let taken = assign(BTreeMap::new(), legs(256).iter()).unwrap();
        assert_eq!(taken.values().max(), Some(&255));
        let fault = assign(taken, [Leg::new("one-more").unwrap()].iter()).unwrap_err();
        assert!(fault.reason.contains("one-more"), "{}", fault.reason);
    }

    #[test]
    fn a_row_that_makes_no_sense_is_an_error_that_shows_it() {
        for row in ["data-a1", "data-a1 256", "data-a1 x", "../a 1", "data-a1 1 2"] {
            let fault = parse(row).unwrap_err();
            assert!(fault.reason.contains(&format!("{row:?}")), "{}", fault.reason);
        }
        assert_eq!(parse("data-a1 7").unwrap()[&Leg::new("data-a1").unwrap()], 7);
    }
}
