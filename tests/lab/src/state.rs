//! Where the lab keeps its things: nothing of it lies in the project's folder.

use anyhow::{Context, Result, bail};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use support::cache;

/// The lab's folders.
pub(crate) struct Lab {
    /// The Debian release of the machines.
    pub(crate) release: String,
    /// Images, which outlive everything: the user's cache folder.
    pub(crate) cache: PathBuf,
    /// The machines that run, and the snapshots.
    pub(crate) state: PathBuf,
    /// The project.
    pub(crate) project: PathBuf,
}

impl Lab {
    /// Opens the lab, and makes its folders.
    pub(crate) fn open(release: &str) -> Result<Lab> {
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let lab = Lab {
            release: release.to_string(),
            cache: cache::folder("hasan-lab")?,
            state: PathBuf::from("/var/tmp/hasan-lab"),
            project: project.canonicalize().context("the project's folder is gone")?,
        };
        for folder in [&lab.state, &lab.run()] {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        Ok(lab)
    }

    /// Keeps other runs away: the machines are one set. Held until the file is dropped.
    pub(crate) fn lock(&self) -> Result<File> {
        let path = self.state.join("lock");
        let file =
            File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => bail!("another run of the lab is under way"),
            Err(TryLockError::Error(error)) => Err(error).context("cannot lock the lab"),
        }
    }

    /// Files of the machines that run.
    pub(crate) fn run(&self) -> PathBuf {
        self.state.join("run")
    }

    /// A file of the machines that run.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.run().join(name)
    }

    /// A program of this project, built for the machines.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| self.project.join("target"), PathBuf::from);
        target.join("x86_64-unknown-linux-musl/release").join(name)
    }
}
