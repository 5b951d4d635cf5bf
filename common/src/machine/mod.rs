//! The one seam to files and programs. Everything that an agent knows of the machine, and does to
//! it, goes through a [`Machine`].
//!
//! No program runs longer than the machine's deadline. Reads are of /proc, /sys and configfs
//! attributes, which answer from memory; what can block (programs, and writes that make the kernel
//! open a device or wait for one) happens in start, stop and reload, which run in a worker process under
//! the same deadline (`ocf::supervise`), and in a deep monitor's sync, which Pacemaker's own timeout ends.

mod private;
mod program;

pub use program::{Answer, Follow};

use crate::ocf::Fault;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use std::collections::BTreeSet;
use std::fs::{self, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The machine below a root folder: `/`, or a recorded tree in a test.
pub struct Machine {
    root: PathBuf,
    deadline: Instant,
    tells_steps: bool,
}

/// The kernel's ERESTARTSYS: it leaks out of a zvol's open when ZFS is busy, and means "again".
const ERESTARTSYS: i32 = 512;
/// Pause between two looks at something that is awaited.
const POLL: Duration = Duration::from_millis(20);

/// The longest attribute of sysfs or configfs, bytes (`sysfs(5)`: a page).
const ATTRIBUTE: usize = 4096;
/// Alignment of direct I/O, bytes.
const ALIGNMENT: usize = 4096;

impl Machine {
    /// This machine.
    pub fn local(deadline: Instant) -> Machine {
        Machine { root: PathBuf::from("/"), deadline, tells_steps: false }
    }

    /// The same, telling each step on standard output: that of a worker is read by the process which
    /// watches the time.
    pub(crate) fn telling_steps(self) -> Machine {
        Machine { tells_steps: true, ..self }
    }

    /// A recorded tree, for tests.
    pub fn recorded(root: &Path) -> Machine {
        Machine {
            root: root.to_path_buf(),
            deadline: Instant::now() + Duration::from_secs(10),
            tells_steps: false,
        }
    }

    /// Puts a program into a recorded tree: a script of the shell, for tests.
    pub fn record_program(&self, name: &str, script: &str) -> Result<(), Fault> {
        let path = Path::new("/usr/sbin").join(name);
        self.replace_file(&path, &format!("#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n"))?;
        fs::set_permissions(self.full(&path), Permissions::from_mode(0o755))
            .map_err(|error| Fault::generic(format!("cannot change {}: {error}", path.display())))
    }

    /// The same machine with another deadline, for one pass of a daemon.
    pub fn with_time(&self, allowed: Duration) -> Machine {
        let root = self.root.clone();
        Machine { root, deadline: Instant::now() + allowed, tells_steps: self.tells_steps }
    }

    /// Time left until the deadline.
    pub fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    fn full(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Whether something is at this path (a link that leads nowhere counts as nothing).
    pub fn exists(&self, path: &Path) -> bool {
        self.full(path).exists()
    }

    /// A file's text, without the newline at its end; `None` if there is no such file.
    pub fn read(&self, path: &Path) -> Result<Option<String>, Fault> {
        text(path, self.read_bytes(path)?)
    }

    /// An attribute of a device; `None` also while the kernel removes the device.
    pub fn read_vanishing(&self, path: &Path) -> Result<Option<String>, Fault> {
        text(path, self.read_vanishing_bytes(path)?)
    }

    /// The same of one that is no text.
    pub fn read_vanishing_bytes(&self, path: &Path) -> Result<Option<Vec<u8>>, Fault> {
        self.read_unless(path, |error| is_vanishing(path, error))
    }

    /// A file's text, where the file must be there.
    pub fn read_required(&self, path: &Path) -> Result<String, Fault> {
        self.read(path)?.ok_or_else(|| {
            Fault::generic(format!("cannot read {}: it is not there", path.display()))
        })
    }

    /// As [`Machine::read`], for what tells of the whole machine: a name in it that is not UTF-8 is anybody's, and must not hide
    /// the others. Its bytes become U+FFFD.
    pub fn read_lossy(&self, path: &Path) -> Result<Option<String>, Fault> {
        let text =
            |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_string();
        Ok(self.read_bytes(path)?.map(text))
    }

    /// A file's bytes; `None` if there is no such file.
    pub fn read_bytes(&self, path: &Path) -> Result<Option<Vec<u8>>, Fault> {
        self.read_unless(path, |_| false)
    }

    fn read_unless(
        &self,
        path: &Path,
        is_gone: impl FnOnce(&io::Error) -> bool,
    ) -> Result<Option<Vec<u8>>, Fault> {
        // By a buffer of its own: nearly all files here are attributes, a page at most, and asking for their size and making
        // room for each costs more than to read them. One read tells all of an attribute that is not a whole page.
        let is_attribute = path.starts_with("/sys");
        let read = || -> io::Result<Vec<u8>> {
            let mut file = File::open(self.full(path))?;
            let (mut buffer, mut bytes) = ([0; ATTRIBUTE], Vec::new());
            loop {
                match file.read(&mut buffer) {
                    Ok(0) => return Ok(bytes),
                    Ok(count) => {
                        bytes.extend_from_slice(&buffer[..count]);
                        if is_attribute && count < ATTRIBUTE {
                            return Ok(bytes);
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        };
        match read() {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if is_absent(&error) || is_gone(&error) => Ok(None),
            Err(error) => Err(Fault::generic(format!("cannot read {}: {error}", path.display()))),
        }
    }

    /// What tells whether a file is still the one that it was: inode, size and time of its last change; `None` if there is
    /// no such file.
    pub fn stamp(&self, path: &Path) -> Result<Option<String>, Fault> {
        Ok(self.metadata(path)?.as_ref().map(stamp_of))
    }

    /// How many folders are in a folder, by its count of links (inode(7)); `None` if there is no such folder, or its file
    /// system does not count them.
    pub fn count_folders(&self, folder: &Path) -> Result<Option<u64>, Fault> {
        Ok(self.metadata(folder)?.and_then(|folder| folder.nlink().checked_sub(2)))
    }

    fn metadata(&self, path: &Path) -> Result<Option<Metadata>, Fault> {
        match fs::metadata(self.full(path)) {
            Ok(metadata) => Ok(Some(metadata)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => {
                Err(Fault::generic(format!("cannot look at {}: {error}", path.display())))
            }
        }
    }

    /// Bytes of a block device, past its page cache (O_DIRECT): another map over the same disk may
    /// have written since. `offset` and `length` are multiples of 4096.
    pub fn read_direct(&self, path: &Path, offset: u64, length: usize) -> Result<Vec<u8>, Fault> {
        let read = || -> io::Result<Vec<u8>> {
            let flags = OFlag::O_DIRECT.bits();
            let mut device =
                OpenOptions::new().read(true).custom_flags(flags).open(self.full(path))?;
            device.seek(SeekFrom::Start(offset))?;
            // O_DIRECT wants an aligned buffer: take one that is longer, and begin at a boundary.
            let mut buffer = vec![0; length + ALIGNMENT];
            let start = buffer.as_ptr().align_offset(ALIGNMENT);
            device.read_exact(&mut buffer[start..start + length])?;
            Ok(buffer[start..start + length].to_vec())
        };
        read().map_err(|error| Fault::generic(format!("cannot read {}: {error}", path.display())))
    }

    /// A file, or a device, open for reading; `None` if it is not there.
    pub fn open(&self, path: &Path) -> Result<Option<File>, Fault> {
        match File::open(self.full(path)) {
            Ok(file) => Ok(Some(file)),
            Err(error)
                if is_absent(&error) || error.raw_os_error() == Some(Errno::ENXIO as i32) =>
            {
                Ok(None)
            }
            Err(error) => Err(Fault::generic(format!("cannot open {}: {error}", path.display()))),
        }
    }

    /// The names in a folder; `None` if there is no such folder.
    pub fn list(&self, folder: &Path) -> Result<Option<BTreeSet<String>>, Fault> {
        let cannot = |error| Fault::generic(format!("cannot list {}: {error}", folder.display()));
        #[expect(clippy::disallowed_methods, reason = "this is the seam")]
        let entries = match fs::read_dir(self.full(folder)) {
            Ok(entries) => entries,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(cannot(error)),
        };
        let mut names = BTreeSet::new();
        for entry in entries {
            let name = entry.map_err(cannot)?.file_name();
            names.insert(name.to_string_lossy().into_owned());
        }
        Ok(Some(names))
    }

    /// Where a symbolic link points, not followed further; `None` if it is not one.
    pub fn link(&self, path: &Path) -> Result<Option<PathBuf>, Fault> {
        match fs::read_link(self.full(path)) {
            Ok(target) => Ok(Some(target)),
            Err(error) if is_absent(&error) || error.kind() == ErrorKind::InvalidInput => Ok(None),
            Err(error) => {
                Err(Fault::generic(format!("cannot read the link {}: {error}", path.display())))
            }
        }
    }

    /// A path with all links followed; `None` if it leads nowhere.
    pub fn resolved(&self, path: &Path) -> Result<Option<PathBuf>, Fault> {
        match fs::canonicalize(self.full(path)) {
            Ok(full) => {
                Ok(Some(Path::new("/").join(full.strip_prefix(&self.root).unwrap_or(&full))))
            }
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => {
                Err(Fault::generic(format!("cannot resolve {}: {error}", path.display())))
            }
        }
    }

    /// The kernel's name of a device, such as `zd16`; `None` if it is not there.
    pub fn block(&self, device: &Path) -> Result<Option<String>, Fault> {
        let name = |path: PathBuf| Some(path.file_name()?.to_str()?.to_string());
        Ok(self.resolved(device)?.and_then(name))
    }

    /// Writes an attribute of sysfs or configfs, in one write(2) as the kernel asks. Tried again
    /// while the kernel answers "again".
    pub fn write_attribute(&self, path: &Path, value: &str) -> Result<(), Fault> {
        loop {
            let result = OpenOptions::new()
                .write(true)
                .open(self.full(path))
                .and_then(|mut file| file.write(value.as_bytes()).map(|_| ()));
            match result {
                Ok(()) => return Ok(()),
                Err(error) if is_again(&error) && !self.time_left().is_zero() => {
                    std::thread::sleep(POLL);
                }
                Err(error) => {
                    let path = path.display();
                    return Err(Fault::generic(format!(
                        "cannot write {value:?} to {path}: {error}"
                    )));
                }
            }
        }
    }

    /// As [`Machine::write_attribute`], for a value that no error may show.
    pub fn write_secret(&self, path: &Path, value: &str) -> Result<(), Fault> {
        self.write_attribute(path, value)
            .map_err(|_| Fault::generic(format!("cannot write a secret to {}", path.display())))
    }

    /// Replaces a small file of ours at once, readable by root only; makes its folder if need be.
    pub fn replace_file(&self, path: &Path, text: &str) -> Result<(), Fault> {
        self.replace(path, text, false).map(|_| ())
    }

    /// As [`Machine::replace_file`], for a file that has to be whole after a loss of power, too; returns the stamp of the new
    /// file, as it was before anybody else could see it.
    pub fn replace_stamped(&self, path: &Path, text: &str) -> Result<String, Fault> {
        self.replace(path, text, true)
    }

    fn replace(&self, path: &Path, text: &str, is_lasting: bool) -> Result<String, Fault> {
        let full = self.full(path);
        let replace = || -> io::Result<String> {
            let folder = full.parent().unwrap_or(Path::new("/"));
            fs::create_dir_all(folder)?;
            let new = full.with_extension("new");
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&new)?;
            file.write_all(text.as_bytes())?;
            if is_lasting {
                file.sync_all()?;
            }
            let stamp = stamp_of(&file.metadata()?);
            fs::rename(&new, &full)?;
            Ok(stamp)
        };
        replace()
            .map_err(|error| Fault::generic(format!("cannot write {}: {error}", path.display())))
    }

    /// Removes a file; one that is not there is as good as removed.
    pub fn remove_file(&self, path: &Path) -> Result<(), Fault> {
        settled(fs::remove_file(self.full(path)), ErrorKind::NotFound)
            .map_err(|error| Fault::generic(format!("cannot remove {}: {error}", path.display())))
    }

    /// Makes a folder; one that is there is as good as made.
    pub fn make_dir(&self, path: &Path) -> Result<(), Fault> {
        settled(fs::create_dir(self.full(path)), ErrorKind::AlreadyExists)
            .map_err(|error| Fault::generic(format!("cannot make {}: {error}", path.display())))
    }

    /// Removes a folder; one that is not there is as good as removed.
    pub fn remove_dir(&self, path: &Path) -> Result<(), Fault> {
        settled(fs::remove_dir(self.full(path)), ErrorKind::NotFound)
            .map_err(|error| Fault::generic(format!("cannot remove {}: {error}", path.display())))
    }

    /// Makes a symbolic link; one that is there is as good as made.
    pub fn make_link(&self, target: &Path, path: &Path) -> Result<(), Fault> {
        let made = std::os::unix::fs::symlink(self.full(target), self.full(path));
        settled(made, ErrorKind::AlreadyExists)
            .map_err(|error| Fault::generic(format!("cannot link {}: {error}", path.display())))
    }

    /// Takes a lock of ours, flock(2): it is held while the file is open. The file and its folder are made if need be;
    /// `None` if another process holds it.
    pub fn try_lock(&self, path: &Path) -> Result<Option<File>, Fault> {
        let full = self.full(path);
        let cannot = |verb: &str, error: io::Error| {
            Fault::generic(format!("cannot {verb} {}: {error}", path.display()))
        };
        let open = || {
            fs::create_dir_all(full.parent().unwrap_or(Path::new("/")))?;
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&full)
        };
        let file = open().map_err(|error| cannot("open", error))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(cannot("lock", error)),
        }
    }

    /// Whether another process holds the lock. Who looks is in nobody's way who looks, too. Makes nothing.
    pub fn is_locked(&self, path: &Path) -> Result<bool, Fault> {
        let cannot = |error: io::Error| {
            Fault::generic(format!("cannot look at the lock {}: {error}", path.display()))
        };
        match File::open(self.full(path)) {
            Ok(file) => match file.try_lock_shared() {
                Ok(()) => Ok(false),
                Err(TryLockError::WouldBlock) => Ok(true),
                Err(TryLockError::Error(error)) => Err(cannot(error)),
            },
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(cannot(error)),
        }
    }

    /// As [`Machine::try_lock`]; waits for another process, at most so long and never beyond the deadline.
    pub fn await_lock(&self, path: &Path, at_most: Duration) -> Result<Option<File>, Fault> {
        let mut lock = None;
        self.await_condition(at_most, || {
            lock = self.try_lock(path)?;
            Ok(lock.is_some())
        })?;
        Ok(lock)
    }

    /// Waits until the condition holds, at most so long and never beyond the deadline. Returns
    /// whether it holds.
    pub fn await_condition(
        &self,
        at_most: Duration,
        mut condition: impl FnMut() -> Result<bool, Fault>,
    ) -> Result<bool, Fault> {
        let end = Instant::now() + at_most.min(self.time_left());
        loop {
            if condition()? {
                return Ok(true);
            }
            if Instant::now() >= end {
                return Ok(false);
            }
            std::thread::sleep(POLL);
        }
    }

    /// Says what is about to be done: to the log, and to the process that watches the time.
    pub fn step(&self, text: &str) {
        tracing::debug!("{text}");
        self.tell(text);
    }

    /// Says it to the process that watches the time alone: for one of many steps, which would fill the log.
    pub fn tell(&self, text: &str) {
        if self.tells_steps {
            // Nobody is there to hear it when the watching process is gone.
            let _ = writeln!(io::stdout(), "{text}");
        }
    }
}

fn stamp_of(file: &Metadata) -> String {
    format!("{} {} {}.{}", file.ino(), file.len(), file.mtime(), file.mtime_nsec())
}

fn text(path: &Path, bytes: Option<Vec<u8>>) -> Result<Option<String>, Fault> {
    let Some(bytes) = bytes else { return Ok(None) };
    let text = String::from_utf8(bytes)
        .map_err(|_| Fault::generic(format!("cannot read {}: not text", path.display())))?;
    Ok(Some(text.trim_end_matches('\n').to_string()))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// What the kernel says of an attribute while it removes the device: that there is none (`ENODEV`), and device-mapper that the
/// question makes no sense (`EINVAL`), or, between the map's end and its attributes', that it cannot be answered (`EIO`;
/// `drivers/md/dm-sysfs.c`, `dm_attr_show`, `dm_attr_uuid_show`). Elsewhere EIO is an error of the device.
fn is_vanishing(path: &Path, error: &io::Error) -> bool {
    let said = error.raw_os_error().map(Errno::from_raw);
    matches!(said, Some(Errno::ENODEV | Errno::EINVAL))
        || said == Some(Errno::EIO) && path.ends_with("dm/uuid")
}

fn is_again(error: &io::Error) -> bool {
    error.kind() == ErrorKind::Interrupted || error.raw_os_error() == Some(ERESTARTSYS)
}

/// Takes one kind of error as success: the end state is the wanted one.
fn settled(result: io::Result<()>, as_good: ErrorKind) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == as_good => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_of_a_device_that_goes() {
        let (uuid, other) = ("/sys/block/dm-0/dm/uuid", "/sys/block/sda/device/vpd_pg80");
        for (path, errno, want) in [
            (other, Errno::ENODEV, true),
            (other, Errno::EINVAL, true),
            (other, Errno::EIO, false),
            (uuid, Errno::EIO, true),
            (uuid, Errno::EACCES, false),
        ] {
            let error = io::Error::from_raw_os_error(errno as i32);
            assert_eq!(is_vanishing(Path::new(path), &error), want, "{path} {errno}");
        }
    }
}
