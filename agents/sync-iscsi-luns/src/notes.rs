//! Writes identities to the properties of zvols.

use crate::identity::{Identities, NEXT, Note};
use hasan::machine::Machine;
use hasan::ocf::Fault;
use hasan::parallel::in_parallel;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// How many zvols get their properties at once: each change waits for a transaction group, which they can share.
const NOTES_AT_ONCE: usize = 8;

/// What must be on disk before any LUN shows it. The mark goes first: a number that is written is then never free again.
/// The zvols that did not take it, and why.
pub(crate) fn write_down(
    machine: &Machine,
    dataset: &str,
    identities: &Identities,
) -> Result<BTreeMap<String, String>, Fault> {
    if let Some(next) = identities.next {
        machine.run("zfs", &["set", &format!("{NEXT}={next}"), dataset])?;
    }
    let notes: Vec<_> = identities.notes.iter().collect();
    let failed = Mutex::new(BTreeMap::new());
    in_parallel(&notes, NOTES_AT_ONCE, |(zvol, notes)| {
        if let (Err(fault), Ok(mut failed)) = (write_notes(machine, zvol, notes), failed.lock()) {
            failed.insert(zvol.to_string(), fault.reason);
        }
        Ok::<(), Fault>(())
    })?;
    Ok(failed.into_inner().unwrap_or_default())
}

fn write_notes(machine: &Machine, zvol: &str, notes: &[Note]) -> Result<(), Fault> {
    let sets: Vec<String> = notes
        .iter()
        .filter_map(|note| match note {
            Note::Set(name, value) => Some(format!("{name}={value}")),
            Note::Remove(_) => None,
        })
        .collect();
    if !sets.is_empty() {
        let words: Vec<&str> = sets.iter().map(String::as_str).collect();
        machine.run("zfs", &[&["set"][..], &words, &[zvol]].concat())?;
    }
    for note in notes {
        if let Note::Remove(name) = note {
            machine.run("zfs", &["inherit", name, zvol])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{RESERVATIONS, SERIAL};
    use std::fs;
    use std::path::Path;

    #[test]
    fn a_zvol_that_takes_no_note_keeps_no_other_one_from_its_own() {
        let root = std::env::temp_dir().join(format!("hasan-notes-{}", std::process::id()));
        let machine = Machine::recorded(&root);
        let script = format!(
            "echo \"$*\" >> {}/told\ncase $* in *p/v/a) echo 'value too long' >&2; exit 1;; esac",
            root.display()
        );
        machine.record_program("zfs", &script).unwrap();
        let note = |name| Note::Set(name, "x".to_string());
        let notes = BTreeMap::from([
            ("p/v/a".to_string(), vec![note(RESERVATIONS)]),
            ("p/v/b".to_string(), vec![note(SERIAL), Note::Remove(RESERVATIONS)]),
        ]);
        let identities = Identities { notes, next: Some(7), ..Identities::default() };
        let failed = write_down(&machine, "p/v", &identities).unwrap();
        assert_eq!(failed.keys().collect::<Vec<_>>(), ["p/v/a"]);
        assert!(failed["p/v/a"].contains("value too long"), "{failed:?}");
        let told = machine.read(Path::new("/told")).unwrap().unwrap();
        for line in [
            "set hasan:next-lun=7 p/v",
            "set hasan:serial=x p/v/b",
            "inherit hasan:reservations p/v/b",
        ] {
            assert!(told.lines().any(|each| each == line), "{line}: {told}");
        }
        fs::remove_dir_all(root).unwrap();
    }
}
