//! Persistent reservations (SPC-4 section 5.12) that an initiator wants kept over a loss of power (APTPL). The kernel writes
//! those of a LUN to a file of the node at each change; to go with the pool they are kept as one line of text, and given
//! to the kernel of the next node before the LUN is shown.
//!
//! Source of the format: `drivers/target/target_core_pr.c`, `core_scsi3_update_aptpl_buf`, and
//! `target_core_configfs.c`, `target_pr_res_aptpl_metadata_store`.

use crate::machine::Machine;
use crate::ocf::Fault;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Where the kernel keeps its files.
const ROOT: &str = "/sys/kernel/config/target/dbroot";
/// What it writes when the last one has gone.
const NONE: &str = "No Registrations or Reservations";

/// The reservations of the LUN with this serial, in one line; empty if there are none.
pub fn read(machine: &Machine, serial: &str) -> Result<String, Fault> {
    let Some(path) = file(machine, serial)? else { return Ok(String::new()) };
    let text = machine.read(&path)?.unwrap_or_default();
    // The kernel writes the byte that ends its text, too.
    to_line(text.trim_end_matches('\0'))
        .map_err(|wrong| Fault::generic(format!("cannot read {}: {wrong}", path.display())))
}

/// The serials of which the kernel has a file. A look that costs next to nothing.
pub fn serials(machine: &Machine) -> Result<BTreeSet<String>, Fault> {
    let Some(root) = machine.read(Path::new(ROOT))? else { return Ok(BTreeSet::new()) };
    let names = machine.list(&Path::new(&root).join("pr"))?.unwrap_or_default();
    Ok(names.iter().filter_map(|name| name.strip_prefix("aptpl_").map(str::to_string)).collect())
}

/// The stamp of each of these files, by serial: what changes with each change of a reservation.
pub fn stamps(machine: &Machine) -> Result<BTreeMap<String, Option<String>>, Fault> {
    let mut stamps = BTreeMap::new();
    for serial in serials(machine)? {
        let stamp = file(machine, &serial)?.map(|path| machine.stamp(&path)).transpose()?;
        stamps.insert(serial, stamp.flatten());
    }
    Ok(stamps)
}

/// Makes the folder of the kernel's files. The kernel does not, and without it refuses every change of a reservation.
pub(super) fn make_folder(machine: &Machine) -> Result<(), Fault> {
    let Some(root) = machine.read(Path::new(ROOT))? else { return Ok(()) };
    machine.make_dir(Path::new(&root))?;
    machine.make_dir(&Path::new(&root).join("pr"))
}

/// Makes the kernel's file say the same as the line: one that was left from an earlier time on this node is old.
pub(super) fn put_file(machine: &Machine, serial: &str, line: &str) -> Result<(), Fault> {
    let Some(path) = file(machine, serial)? else { return Ok(()) };
    if line.is_empty() {
        machine.remove_file(&path)
    } else {
        machine.replace_file(&path, &to_text(line))
    }
}

/// What the kernel is told, one write for each registration.
pub(super) fn registrations(line: &str) -> impl Iterator<Item = String> {
    separate(line).map(|registration| {
        let fields: Vec<String> = registration.split(',').map(to_kernel).collect();
        fields.join(",")
    })
}

fn separate(line: &str) -> impl Iterator<Item = &str> {
    line.split(';').filter(|registration| !registration.is_empty())
}

/// The kernel writes the type and the scope as "%02x" and takes a number that begins with 0 for an octal one: it refuses its
/// own type 08 (`lib/parser.c`, `match_number`).
fn to_kernel(field: &str) -> String {
    match field.split_once('=') {
        Some((name @ ("res_type" | "res_scope"), number)) => {
            let digits = number.trim_start_matches('0');
            format!("{name}={}", if digits.is_empty() { "0" } else { digits })
        }
        _ => field.to_string(),
    }
}

fn file(machine: &Machine, serial: &str) -> Result<Option<PathBuf>, Fault> {
    let root = machine.read(Path::new(ROOT))?;
    Ok(root.map(|root| Path::new(&root).join("pr").join(format!("aptpl_{serial}"))))
}

fn to_line(text: &str) -> Result<String, String> {
    let mut registrations = Vec::new();
    let mut open: Option<Vec<&str>> = None;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && *line != NONE) {
        open = match (open, line) {
            (None, line) if line.starts_with("PR_REG_START:") => Some(Vec::new()),
            (Some(fields), line) if line.starts_with("PR_REG_END:") => {
                registrations.push(fields.join(","));
                None
            }
            (Some(mut fields), line) if line.contains('=') && !line.contains([',', ';']) => {
                fields.push(line);
                Some(fields)
            }
            (_, line) => return Err(format!("the line {line:?} is unknown")),
        };
    }
    match open {
        None => Ok(registrations.join(";")),
        Some(_) => Err("a registration has no end".to_string()),
    }
}

fn to_text(line: &str) -> String {
    let one = |(number, registration): (usize, &str)| {
        let fields = registration.replace(',', "\n");
        format!("PR_REG_START: {number}\n{fields}\nPR_REG_END: {number}\n")
    };
    separate(line).enumerate().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_and_its_line_say_the_same() {
        let text = "PR_REG_START: 0\ninitiator_fabric=iSCSI\ninitiator_node=iqn.2025-01.lab.home:a\n\
                    initiator_sid=00023d000001\nsa_res_key=1193046\nres_holder=1\nres_type=05\nPR_REG_END: 0\n\
                    PR_REG_START: 1\ninitiator_fabric=iSCSI\nsa_res_key=2\nres_holder=0\nPR_REG_END: 1\n";
        let line = to_line(text).unwrap();
        assert_eq!(registrations(&line).count(), 2);
        assert!(line.starts_with("initiator_fabric=iSCSI,initiator_node=iqn."));
        assert_eq!(to_text(&line), text);
        for none in ["", "\n", "No Registrations or Reservations"] {
            assert_eq!(to_line(none), Ok(String::new()));
        }
        assert_eq!(registrations("").count(), 0);
        let all = "initiator_sid=00023d000001,res_type=08,res_scope=00;res_type=05";
        let told: Vec<String> = registrations(all).collect();
        assert_eq!(told, ["initiator_sid=00023d000001,res_type=8,res_scope=0", "res_type=5"]);
        for wrong in ["x", "PR_REG_START: 0\na=1\n", "PR_REG_START: 0\na=1,b=2\nPR_REG_END: 0\n"] {
            assert!(to_line(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_kernels_file_is_made_and_removed() {
        let root = std::env::temp_dir().join(format!("hasan-reservations-{}", std::process::id()));
        let machine = Machine::recorded(&root);
        machine.replace_file(Path::new(ROOT), "/target").unwrap();
        let there = || read(&machine, "s").unwrap();
        for line in ["a=1,b=2;c=3", "", "d=4"] {
            put_file(&machine, "s", line).unwrap();
            assert_eq!(there(), line);
        }
        let path = Path::new("/target/pr/aptpl_s");
        machine.replace_file(path, "PR_REG_START: 0\ne=5\nPR_REG_END: 0\n\0").unwrap();
        assert_eq!(there(), "e=5");
        std::fs::remove_dir_all(root).unwrap();
    }
}
