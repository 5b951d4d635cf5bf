//! The image of the machines: built once, kept under a digest of its recipe.

use crate::command::{checked, run, stage};
use crate::state::{Lab, digest};
use crate::{host, timers};
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The folder of the image: root.qcow2, vmlinuz, initrd, key. Built if it is not there.
pub(crate) fn ensure(lab: &Lab) -> Result<PathBuf> {
    stage("packages of the host", host::install)?;
    let image = folder(lab)?;
    if image.is_dir() {
        println!("the image is there: {}", image.display());
        return Ok(image);
    }
    stage("image", || build(lab, &image))?;
    Ok(image)
}

/// Where the image is, or will be.
pub(crate) fn folder(lab: &Lab) -> Result<PathBuf> {
    let key = digest(&[recipe(lab)])?;
    Ok(lab.cache.join(format!("image-{}-{key}", lab.release)))
}

fn recipe(lab: &Lab) -> PathBuf {
    lab.project.join("tests/lab/image.sh")
}

fn build(lab: &Lab, image: &PathBuf) -> Result<()> {
    let unfinished = image.with_extension("unfinished");
    // What an earlier build left behind. The file systems of the host are mounted below it while it runs: a removal must
    // never walk into them, so the build has mounts of its own, and the removal stays on its file system.
    let leftover = unfinished.display().to_string();
    run(timers::SSH, "rm", &["-rf", "--one-file-system", &leftover])?;
    fs::create_dir_all(&unfinished)?;
    let log = lab.cache.join(format!("image-{}.log", lab.release));
    let file = File::create(&log)?;
    let output = Command::new("unshare")
        .args(["--mount", "--propagation=private", "bash"])
        .arg(recipe(lab))
        .args([&lab.release, &host::mirror()?])
        .arg(&unfinished)
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .output()?;
    checked(output, || "image.sh".to_string()).with_context(|| {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let tail: Vec<&str> = text.lines().rev().take(15).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        format!("the image was not built; {} ends with:\n{}", log.display(), tail.join("\n"))
    })?;
    fs::rename(&unfinished, image)?;
    Ok(())
}
