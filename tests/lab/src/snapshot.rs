//! Snapshots of the whole lab: all machines paused, their memory and their disks kept; a scenario begins from there in
//! seconds, where booting and configuring takes minutes.
//!
//! Memory goes to a file by QEMU's migration, which also flushes the disks, and nbdkit passes a flush on: the disks are
//! then plain files.

use crate::machine::{self, MACHINES, Machine};
use crate::state::Lab;
use crate::{disks, net, plug, qmp};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::command::{await_until, run};

const SAVE: Duration = Duration::from_secs(300);
const LOAD: Duration = Duration::from_secs(120);

/// What is in a snapshot.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// The configured cluster.
    Cluster,
    /// The same with many zvols.
    Luns,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Cluster => "snapshot",
            Kind::Luns => "luns",
        }
    }
}

/// Where the snapshot of this key is.
pub(crate) fn folder(lab: &Lab, kind: Kind, key: &str) -> PathBuf {
    lab.state.join(format!("{}-{}-{key}", kind.word(), lab.release))
}

/// Saves all machines, and stops them. Only the newest snapshot of a kind and release is kept.
pub(crate) fn save(lab: &Lab, kind: Kind, key: &str) -> Result<()> {
    let folder = folder(lab, kind, key);
    let unfinished = folder.with_extension("unfinished");
    let of_release = format!("{}-{}-", kind.word(), lab.release);
    for entry in fs::read_dir(&lab.state)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(&of_release) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    fs::create_dir_all(&unfinished)?;
    for machine in &MACHINES {
        qmp::command(&machine.control(lab), "stop", json!({}))?;
    }
    for machine in &MACHINES {
        let to = memory(&unfinished, machine);
        let fast = json!({"max-bandwidth": 10_000_000_000_u64});
        qmp::command(&machine.control(lab), "migrate-set-parameters", fast)?;
        let uri = json!({"uri": format!("exec:cat > {}", to.display())});
        qmp::command(&machine.control(lab), "migrate", uri)?;
    }
    for machine in &MACHINES {
        await_status(lab, machine, "query-migrate", "completed", SAVE)?;
    }
    plug::stop(lab);
    for machine in &MACHINES {
        // QEMU has flushed its disks to their servers, and these to their files: nothing is lost by this.
        machine::kill(lab, machine)?;
        for (name, path) in files(lab, machine) {
            fs::rename(&path, unfinished.join(name))?;
        }
    }
    fs::rename(&unfinished, &folder)?;
    Ok(())
}

/// Starts all machines as they were when they were saved.
pub(crate) fn load(lab: &Lab, kind: Kind, key: &str) -> Result<()> {
    let folder = folder(lab, kind, key);
    machine::stop_all(lab)?;
    fs::remove_dir_all(lab.run())?;
    fs::create_dir_all(lab.run())?;
    net::ensure()?;
    for machine in &MACHINES {
        for (name, path) in files(lab, machine) {
            let from = folder.join(name).display().to_string();
            let to = path.display().to_string();
            run(SAVE, "cp", &["--sparse=always", "--reflink=auto", &from, &to])?;
        }
        let from = format!("exec:cat {}", memory(&folder, machine).display());
        machine::start(lab, machine, &["-incoming".to_string(), from, "-S".to_string()])?;
    }
    for machine in &MACHINES {
        await_status(lab, machine, "query-status", "paused", LOAD)?;
    }
    plug::start(lab)?;
    for machine in &MACHINES {
        qmp::command(&machine.control(lab), "cont", json!({}))?;
    }
    Ok(())
}

fn memory(folder: &Path, machine: &Machine) -> PathBuf {
    folder.join(format!("{}.memory", machine.name))
}

/// The disks of a machine: each name in a snapshot, and its place while it runs.
fn files(lab: &Lab, machine: &Machine) -> Vec<(String, PathBuf)> {
    let mut files = vec![machine.root(lab)];
    files.extend((1..=machine.disks).map(|number| disks::file(lab, machine, number)));
    files
        .into_iter()
        .map(|path| (path.file_name().unwrap_or_default().to_string_lossy().into_owned(), path))
        .collect()
}

fn await_status(
    lab: &Lab,
    machine: &Machine,
    query: &str,
    wanted: &str,
    at_most: Duration,
) -> Result<()> {
    let what = format!("{}: {query} says {wanted}", machine.name);
    await_until(&what, at_most, || {
        let answer = qmp::command(&machine.control(lab), query, json!({}));
        let answer = answer?;
        let status = answer.get("status").and_then(|status| status.as_str()).unwrap_or("nothing");
        ensure!(status == wanted, "{status}");
        Ok(())
    })
    .context("snapshot")
}
