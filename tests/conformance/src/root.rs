//! A Debian release with the tools and our programs, in which a command finds itself alone.

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::command::{run, stage, timed};
use support::recipe::Recipe;
use support::{cache, debian};

/// Each program of the host with its package.
const NEEDS: [(&str, &str); 2] = [("mmdebstrap", "mmdebstrap"), ("unshare", "util-linux")];
/// For making a root.
const BUILD: Duration = Duration::from_secs(1200);
/// For one command. The scripts of a cluster wait for several things in turn, for each at most five minutes.
const COMMAND: Duration = Duration::from_secs(1200);

/// What enters a command's own world: nothing that it writes outlives it, but what it writes below /conformance.
const ENTER: &str = r#"
set -e
root=$1 programs=$2 work=$3 top=$4 command=$5
mount -t tmpfs tmpfs "$top"
mkdir "$top/upper" "$top/inner" "$top/all"
mount -t overlay overlay -o "lowerdir=$programs:$root,upperdir=$top/upper,workdir=$top/inner" "$top/all"
cd "$top/all"
mkdir conformance
mount --bind "$work" conformance
mount -t proc proc proc
mount -t tmpfs tmpfs dev
for device in "null 3" "zero 5" "random 8" "urandom 9"; do mknod -m 666 "dev/${device% *}" c 1 "${device#* }"; done
mkdir -m 1777 dev/shm
ip link set lo up
exec chroot . /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 /bin/bash -c "cd /conformance; $command"
"#;

/// A release.
pub(crate) struct Root {
    /// Its name.
    pub(crate) release: String,
    root: PathBuf,
    programs: PathBuf,
    work: PathBuf,
    /// Where each command mounts what it sees; the others do not see that.
    top: PathBuf,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Said {
    /// Its exit code; -1 for a signal.
    pub(crate) code: i32,
    /// All that it said, on both streams.
    pub(crate) text: String,
}

/// Installs what this host lacks.
pub(crate) fn install_needs() -> Result<()> {
    stage("packages of the host", || debian::install(&NEEDS))
}

impl Root {
    /// The root of this release, made if it is not there; with the programs as they are built now.
    pub(crate) fn open(release: &str) -> Result<Root> {
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
        let root = ensure(release, project.join("tests/conformance/root.sh"))?;
        let scratch = std::env::temp_dir()
            .join(format!("hasan-conformance-{release}-{}", std::process::id()));
        let [programs, work, top] = ["programs", "work", "top"].map(|name| scratch.join(name));
        // What an earlier run with this number has left.
        let _ = fs::remove_dir_all(&scratch);
        fs::create_dir_all(&work)?;
        fs::create_dir_all(&top)?;
        let install = project.join("packaging/install").display().to_string();
        run(COMMAND, &install, &[&programs.display().to_string()])?;
        Ok(Root { release: release.to_string(), root, programs, work, top })
    }

    /// Runs a command of bash.
    pub(crate) fn run(&self, command: &str) -> Result<Said> {
        let folders = [&self.root, &self.programs, &self.work, &self.top];
        let [root, programs, work, top] = folders.map(|path| path.display().to_string());
        let mut arguments: Vec<&str> =
            "--mount --pid --net --ipc --uts --fork --kill-child bash -c".split(' ').collect();
        let script = format!("exec 2>&1; {command}");
        arguments.extend([ENTER, "bash", &root, &programs, &work, &top, &script]);
        let output = timed(COMMAND, "unshare", &arguments).output()?;
        let text =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        Ok(Said { code: output.status.code().unwrap_or(-1), text: text.into_owned() })
    }

    /// Puts a file where a command finds it: below /conformance.
    pub(crate) fn put(&self, name: &str, text: &str) -> Result<()> {
        fs::write(self.work.join(name), text).with_context(|| format!("cannot write {name}"))
    }

    /// What a command has left there.
    pub(crate) fn get(&self, name: &str) -> Result<String> {
        fs::read_to_string(self.work.join(name)).with_context(|| format!("cannot read {name}"))
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // It lies in a folder for what is temporary.
        let _ = self.programs.parent().map(fs::remove_dir_all);
    }
}

fn ensure(release: &str, script: PathBuf) -> Result<PathBuf> {
    let cache = cache::folder("hasan-conformance")?;
    let recipe = Recipe { cache: &cache, name: release.to_string(), script, release };
    Ok(recipe.made(BUILD)?.join("root"))
}
