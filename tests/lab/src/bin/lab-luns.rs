//! Runs in a storage node: makes or removes a LUN for each zvol of a folder, one operation after the other, and says how
//! many milliseconds that took. The measure for `sync-iscsi-luns`, which does the same.
//!
//!     lab-luns up|down IQN FOLDER
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "its output is its product, and it is no agent"
)]

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

const CORE: &str = "/sys/kernel/config/target/core";
const FIRST_HBA: usize = 50_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let begun = Instant::now();
    let result = match words[..] {
        ["up", iqn, folder] => up(iqn, Path::new(folder)),
        ["down", iqn, folder] => down(iqn, Path::new(folder)),
        _ => Err(io::Error::other("usage: lab-luns up|down IQN FOLDER")),
    };
    match result {
        Ok(()) => {
            println!("{}", begun.elapsed().as_millis());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("lab-luns: {error}");
            ExitCode::FAILURE
        }
    }
}

fn zvols(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn write(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

fn group(iqn: &str) -> PathBuf {
    Path::new("/sys/kernel/config/target/iscsi").join(iqn).join("tpgt_1")
}

fn up(iqn: &str, folder: &Path) -> io::Result<()> {
    let group = group(iqn);
    fs::create_dir_all(&group)?;
    for (number, name) in zvols(folder)?.iter().enumerate() {
        let hba = Path::new(CORE).join(format!("iblock_{}", FIRST_HBA + number));
        let store = hba.join(name);
        let device = folder.join(name).display().to_string();
        fs::create_dir(&hba)?;
        fs::create_dir(&store)?;
        write(&store.join("control"), &format!("udev_path={device}"))?;
        write(&store.join("udev_path"), &device)?;
        write(&store.join("wwn/vpd_unit_serial"), &format!("{number:032x}"))?;
        write(&store.join("enable"), "1")?;
        write(&store.join("attrib/emulate_tpu"), "1")?;
        let lun = group.join(format!("lun/lun_{number}"));
        fs::create_dir(&lun)?;
        symlink(&store, lun.join("bare"))?;
    }
    Ok(())
}

fn down(iqn: &str, folder: &Path) -> io::Result<()> {
    let group = group(iqn);
    for (number, name) in zvols(folder)?.iter().enumerate() {
        let lun = group.join(format!("lun/lun_{number}"));
        fs::remove_file(lun.join("bare"))?;
        fs::remove_dir(&lun)?;
        let hba = Path::new(CORE).join(format!("iblock_{}", FIRST_HBA + number));
        fs::remove_dir(hba.join(name))?;
        fs::remove_dir(&hba)?;
    }
    fs::remove_dir(&group)?;
    group.parent().map_or(Ok(()), fs::remove_dir)
}
