//! What a script makes once: a root file system, an image.

use crate::cache::digest;
use crate::command::{checked, last_lines, run, stage, timed};
use crate::debian;
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// For the removal of what a build has left behind.
const REMOVE: Duration = Duration::from_secs(120);
/// How much of the log an error carries.
const LOG_LINES: usize = 15;

/// What is made for a release by a recipe: a script of bash, which is given the release, this host's Debian mirror and the
/// folder that it fills.
pub struct Recipe<'a> {
    /// Where what it makes is kept.
    pub cache: &'a Path,
    /// What that is called there, with the release.
    pub name: String,
    /// The script.
    pub script: PathBuf,
    /// The release.
    pub release: &'a str,
}

impl Recipe<'_> {
    /// The folder, under a digest of the script; perhaps it is not made yet.
    ///
    /// # Errors
    /// The script cannot be read.
    pub fn folder(&self) -> Result<PathBuf> {
        let key = digest(std::slice::from_ref(&self.script))?;
        Ok(self.cache.join(format!("{}-{key}", self.name)))
    }

    /// The folder, made if it is not there.
    ///
    /// # Errors
    /// The script fails or takes too long, with the end of its log.
    pub fn made(&self, at_most: Duration) -> Result<PathBuf> {
        let folder = self.folder()?;
        if folder.is_dir() {
            println!("{} is there: {}", self.name, folder.display());
            return Ok(folder);
        }
        let log = self.cache.join(format!("{}.log", self.name));
        stage(&self.name, || make(&folder, &self.script, self.release, &log, at_most))?;
        Ok(folder)
    }
}

/// The folder gets its name when it is whole. What the script says is in the log.
fn make(folder: &Path, recipe: &Path, release: &str, log: &Path, at_most: Duration) -> Result<()> {
    let unfinished = folder.with_extension("unfinished");
    let inside = unfinished.display().to_string();
    // What an earlier build left behind. The file systems of the host are mounted below it while it runs: a removal must
    // never walk into them, so the build has mounts of its own, and the removal stays on its file system.
    run(REMOVE, "rm", &["-rf", "--one-file-system", &inside])?;
    fs::create_dir_all(&unfinished)?;
    let file = File::create(log)?;
    let (script, mirror) = (recipe.display().to_string(), debian::mirror());
    let arguments =
        ["--mount", "--propagation=private", "bash", &script, release, &mirror, &inside];
    let output =
        timed(at_most, "unshare", &arguments).stdout(file.try_clone()?).stderr(file).output()?;
    checked(output, || script.clone()).with_context(|| {
        let text = fs::read_to_string(log).unwrap_or_default();
        format!("{} ends with:\n{}", log.display(), last_lines(&text, LOG_LINES))
    })?;
    fs::rename(&unfinished, folder)?;
    Ok(())
}
