//! Who holds a pool: all that keeps `zpool export` from ending, each by its name. An export is not
//! even tried while one is left: a failed one takes away the nodes of the zvols that were not open,
//! and on ZFS 2.2.7 to 2.3 one with an open zvol never ends.

use crate::streams::{Pool, streams};
use hasan::machine::Machine;
use hasan::ocf::Fault;
use hasan::processes::{self, Process};
use hasan::{lio, zfs};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Characters of a reason that go to the holders' names: Pacemaker keeps 128 of the whole.
const SENTENCE: usize = 60;
/// How long a stop waits for programs: udev looks into each device that was closed after writing, as the LUNs of a stopped target
/// are, and a search through the file systems goes by.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a stream may take to end once it is told to: the kernel undoes what was half received.
const ENDING: Duration = Duration::from_secs(10);
/// What ZFS has exported by itself, and takes back with an export of the pool (zfsprops(7), `sharenfs`).
const SHARED: &str = "/etc/exports.d/zfs.exports";

/// Who holds the pool: what stays, in words; processes, which may go by themselves; and those that send or receive.
#[derive(Default)]
struct Holders {
    lasting: Vec<String>,
    processes: Vec<Process>,
    streams: Vec<Process>,
}

impl Holders {
    /// Whether all that is left are processes.
    fn may_pass(&self) -> bool {
        self.lasting.is_empty() && !(self.processes.is_empty() && self.streams.is_empty())
    }

    fn only_streams(&self) -> bool {
        self.may_pass() && self.processes.is_empty()
    }

    fn names(&self) -> Vec<String> {
        let processes = self.processes.iter().chain(&self.streams).map(ToString::to_string);
        self.lasting.iter().cloned().chain(processes).collect()
    }
}

/// A mounted file system (`/proc/self/mountinfo`, proc_pid_mountinfo(5)).
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    at: PathBuf,
    kind: String,
    source: String,
}

/// The holders of the pool, in words; empty if nobody holds it. Where there are but processes, they are waited for. Where then
/// only streams are left, they are ended: a stream can be had again, and its node is fenced if the stop fails.
/// `is_busy` says that ZFS calls the pool busy though nobody was seen to hold it: then a stream that does not name its pool is
/// taken for one of this pool.
pub(crate) fn holders(machine: &Machine, pool: &str, is_busy: bool) -> Result<Vec<String>, Fault> {
    let pool = Pool { name: pool, is_busy };
    // The other half of the time is for the streams' end and for the export.
    let mut left = await_holders(machine, &pool, PATIENCE.min(machine.time_left() / 2))?;
    for end in [Process::end, Process::kill] {
        if !left.only_streams() {
            break;
        }
        for stream in &left.streams {
            tracing::warn!(
                "ending {stream}, which keeps the pool {} from being exported",
                pool.name
            );
            end(stream);
        }
        left = await_holders(machine, &pool, ENDING.min(machine.time_left() / 2))?;
    }
    Ok(left.names())
}

/// Who still holds the pool after so long, or at once if waiting is of no use.
fn await_holders(machine: &Machine, pool: &Pool<'_>, at_most: Duration) -> Result<Holders, Fault> {
    let mut holders = Holders::default();
    machine.await_condition(at_most, || {
        holders = holders_now(machine, pool)?;
        Ok(!holders.may_pass())
    })?;
    Ok(holders)
}

fn holders_now(machine: &Machine, of: &Pool<'_>) -> Result<Holders, Fault> {
    let pool = of.name;
    let folder = Path::new("/dev/zvol").join(pool);
    let zvols = zfs::zvol_links(machine, &folder)?;
    let is_zvol = |path: &Path| path.starts_with(&folder) || is_block(&zvols, path);
    let mounts = mounts(machine)?;
    let datasets: Vec<&Mount> =
        mounts.iter().filter(|mount| mount.kind == "zfs" && is_of(pool, &mount.source)).collect();
    let is_below = |path: &Path| {
        // A deeper mount of another file system hides what lies below it.
        let nearest = mounts
            .iter()
            .filter(|mount| path.starts_with(&mount.at))
            .max_by_key(|mount| mount.at.as_os_str().len());
        nearest.is_some_and(|mount| datasets.contains(&mount))
    };
    let mut found = backstores(machine, &is_zvol)?;
    found.extend(stacked(machine, &zvols)?);
    found.extend(loops(machine, &|file| is_zvol(file) || is_below(file))?);
    found.extend(swaps(machine, &is_zvol)?);
    let on_zvols = mounts.iter().filter(|mount| is_zvol(Path::new(&mount.source)));
    found.extend(
        on_zvols.map(|mount| format!("the mount of {} at {}", mount.source, mount.at.display())),
    );
    found.extend(exports(machine, &datasets)?);
    let streams = streams(machine, of)?;
    let mut processes = processes::with_open(machine, |path| is_zvol(path) || is_below(path))?;
    // One that is in a folder of the pool, too, is named once.
    processes.retain(|process| !streams.contains(process));
    Ok(Holders { lasting: found, processes, streams })
}

/// The holders' names; of many, the first ones. The log has them all.
pub(crate) fn sentence(holders: &[String]) -> String {
    let mut named = String::new();
    for (at, holder) in holders.iter().enumerate() {
        let more = holders.len() - at;
        if at > 0 && named.len() + holder.len() > SENTENCE {
            return format!("{named}, and {more} more");
        }
        named = if at == 0 { holder.clone() } else { format!("{named}, {holder}") };
    }
    named
}

fn is_of(pool: &str, dataset: &str) -> bool {
    dataset.strip_prefix(pool).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether it is a zvol's device by the kernel's name, such as /dev/zd16.
fn is_block(zvols: &BTreeMap<String, PathBuf>, device: &Path) -> bool {
    let block = device.strip_prefix("/dev").ok().and_then(Path::to_str);
    block.is_some_and(|block| zvols.contains_key(block))
}

/// The kernel shows LIO's hold on a device nowhere but in configfs.
fn backstores(machine: &Machine, is_zvol: &impl Fn(&Path) -> bool) -> Result<Vec<String>, Fault> {
    let open = |each: &lio::Backstore| {
        each.block.as_ref().is_some_and(|block| is_zvol(&Path::new("/dev").join(block)))
    };
    let is_held = |each: &lio::Backstore| is_zvol(&each.device) || open(each);
    let held = lio::backstores(machine)?.into_iter().filter(is_held);
    Ok(held.map(|each| format!("the LIO backstore {}", each.at.name)).collect())
}

/// Devices that lie over a zvol: device-mapper, MD.
fn stacked(machine: &Machine, zvols: &BTreeMap<String, PathBuf>) -> Result<Vec<String>, Fault> {
    let mut found = Vec::new();
    for (block, zvol) in zvols {
        let folder = Path::new("/sys/class/block").join(block).join("holders");
        for holder in machine.list(&folder)?.unwrap_or_default() {
            found.push(format!("{holder} over {}", zvol.display()));
        }
    }
    Ok(found)
}

/// Loop devices over a zvol, or over a file in a dataset: the kernel has that open, and no process.
fn loops(machine: &Machine, is_ours: &impl Fn(&Path) -> bool) -> Result<Vec<String>, Fault> {
    let mut found = Vec::new();
    for block in machine.list(Path::new("/sys/block"))?.unwrap_or_default() {
        if !block.starts_with("loop") {
            continue;
        }
        let path = Path::new("/sys/block").join(&block).join("loop/backing_file");
        let Some(file) = machine.read_lossy(&path)? else { continue };
        if is_ours(Path::new(&file)) {
            found.push(format!("{block} over {file}"));
        }
    }
    Ok(found)
}

/// Swap areas (`/proc/swaps`: a heading, then path, type, size, used, priority).
fn swaps(machine: &Machine, is_zvol: &impl Fn(&Path) -> bool) -> Result<Vec<String>, Fault> {
    let text = machine.read_lossy(Path::new("/proc/swaps"))?.unwrap_or_default();
    let paths = text.lines().skip(1).filter_map(|row| row.split_whitespace().next());
    let held = paths.filter(|path| is_zvol(Path::new(path)));
    Ok(held.map(|path| format!("swap on {path}")).collect())
}

/// What the kernel's NFS server exports of the datasets (`/proc/fs/nfs/exports`: path, clients), and ZFS does not take back.
fn exports(machine: &Machine, datasets: &[&Mount]) -> Result<Vec<String>, Fault> {
    let paths = |table: &str| -> Result<Vec<PathBuf>, Fault> {
        let text = machine.read_lossy(Path::new(table))?.unwrap_or_default();
        let rows = text.lines().filter(|row| !row.starts_with('#'));
        Ok(rows.filter_map(|row| row.split_whitespace().next()).map(unescape).collect())
    };
    let by_zfs = paths(SHARED)?;
    let is_held = |path: &PathBuf| {
        datasets.iter().any(|mount| path.starts_with(&mount.at)) && !by_zfs.contains(path)
    };
    let held = paths("/proc/fs/nfs/exports")?.into_iter().filter(is_held);
    Ok(held.map(|path| format!("the NFS export of {}", path.display())).collect())
}

fn mounts(machine: &Machine) -> Result<Vec<Mount>, Fault> {
    let path = Path::new("/proc/self/mountinfo");
    let absent = || Fault::generic(format!("cannot read {}: it is not there", path.display()));
    parse_mounts(&machine.read_lossy(path)?.ok_or_else(absent)?)
}

fn parse_mounts(text: &str) -> Result<Vec<Mount>, Fault> {
    text.lines()
        .map(|row| {
            let strange =
                || Fault::generic(format!("cannot read the row {row:?} of /proc/self/mountinfo"));
            // Number, parent, device, root, place, options, optional fields, "-", type, source.
            let (before, behind) = row.split_once(" - ").ok_or_else(strange)?;
            let at = before.split(' ').nth(4).map(unescape).ok_or_else(strange)?;
            let mut behind = behind.split(' ').map(|word| unescape(word).display().to_string());
            let (kind, source) = (behind.next(), behind.next());
            Ok(Mount { at, kind: kind.ok_or_else(strange)?, source: source.ok_or_else(strange)? })
        })
        .collect()
}

/// The kernel writes a blank as `\040`, a tab, newline and backslash likewise.
fn unescape(word: &str) -> PathBuf {
    let pairs = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    PathBuf::from(pairs.iter().fold(word.to_string(), |text, (from, to)| text.replace(from, to)))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "recorded trees are made with files")]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// A machine with the pool p: zvols p/v/a (zd0) and p/b (zd16), the dataset p/files mounted.
    fn recorded(name: &str) -> PathBuf {
        let root =
            std::env::temp_dir().join(format!("hasan-holders-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        for folder in ["dev/zvol/p/v", "sys/class/block/zd0/holders", "proc/self", "sys/block"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        symlink("../../../zd0", root.join("dev/zvol/p/v/a")).unwrap();
        symlink("../../zd16", root.join("dev/zvol/p/b")).unwrap();
        let mounts = "20 1 254:0 / / rw - ext4 /dev/vda rw\n\
            31 20 0:40 / /p/files rw shared:1 - zfs p/files rw\n\
            32 20 0:41 / /other rw - zfs px/files rw\n";
        fs::write(root.join("proc/self/mountinfo"), mounts).unwrap();
        root
    }

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A `zfs` that runs. No process of the host has such a number (`PID_MAX_LIMIT`): whoever ends it ends nobody.
    fn put_zfs(root: &Path, id: u32, words: &str) {
        put(root, &format!("proc/{id}/comm"), "zfs\n");
        put(root, &format!("proc/{id}/cmdline"), words);
        fs::create_dir_all(root.join(format!("proc/{id}/fd"))).unwrap();
        symlink("/dev/zfs", root.join(format!("proc/{id}/fd/3"))).unwrap();
    }

    #[test]
    fn each_kind_of_holder_is_named_and_nothing_else() {
        let root = recorded("each");
        let machine = Machine::recorded(&root);
        assert_eq!(holders(&machine, "p", false), Ok(Vec::new()));
        let core = "sys/kernel/config/target/core/iblock_0/vm-1";
        put(&root, &format!("{core}/udev_path"), "/dev/zvol/p/b\n");
        put(
            &root,
            &format!("{core}/info"),
            "Status: ACTIVATED\niBlock device: zd16  readonly: 0\n",
        );
        put(&root, &format!("{core}/wwn/vpd_unit_serial"), "T10 VPD Unit Serial Number: x\n");
        fs::create_dir_all(root.join("sys/class/block/zd0/holders/dm-3")).unwrap();
        put(&root, "sys/block/loop1/loop/backing_file", "/dev/zd16\n");
        put(&root, "sys/block/loop2/loop/backing_file", "/dev/zd32\n");
        put(&root, "sys/block/loop3/loop/backing_file", "/p/files/x.img\n");
        put(&root, "sys/block/loop4/loop/backing_file", "/other/x.img\n");
        put(&root, "proc/swaps", "Filename Type Size Used Priority\n/dev/zd0 partition 1 0 -2\n");
        let exports = "# Version 1.1\n/p/files/a\\040b *(rw)\n/other *(rw)\n/p/files *(rw)\n";
        put(&root, "proc/fs/nfs/exports", exports);
        put(&root, "etc/exports.d/zfs.exports", "# ZFS\n/p/files *(sec=sys,rw)\n");
        for (id, name, target) in [("7", "qemu", "/dev/zd16"), ("8", "sh", "/other/x")] {
            put(&root, &format!("proc/{id}/comm"), &format!("{name}\n"));
            fs::create_dir_all(root.join(format!("proc/{id}/fd"))).unwrap();
            symlink(target, root.join(format!("proc/{id}/fd/3"))).unwrap();
        }
        put(&root, "proc/9/comm", "bash\n");
        symlink("/p/files/home", root.join("proc/9/cwd")).unwrap();
        put_zfs(&root, 5_000_010, "zfs\0send\0p/v/a@x\0");
        symlink("/p/files", root.join("proc/5000010/cwd")).unwrap();
        put_zfs(&root, 5_000_011, "zfs\0send\0q/v@x\0");
        let want = [
            "the LIO backstore vm-1",
            "dm-3 over /dev/zvol/p/v/a",
            "loop1 over /dev/zd16",
            "loop3 over /p/files/x.img",
            "swap on /dev/zd0",
            "the NFS export of /p/files/a b",
            "qemu (process 7)",
            "bash (process 9)",
            "zfs (process 5000010)",
        ];
        assert_eq!(holders(&machine, "p", false).unwrap(), want);
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn who_passes_is_waited_for_and_who_stays_is_named_at_once() {
        let root = recorded("passing");
        let machine = Machine::recorded(&root).with_time(Duration::from_secs(60));
        let process = |id: &str, name: &str| {
            put(&root, &format!("proc/{id}/comm"), &format!("{name}\n"));
            fs::create_dir_all(root.join(format!("proc/{id}/fd"))).unwrap();
            symlink("/dev/zd16", root.join(format!("proc/{id}/fd/3"))).unwrap();
        };
        process("7", "find");
        let leaves = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(300));
                fs::remove_dir_all(root.join("proc/7")).unwrap();
            });
            holders(&machine, "p", false).unwrap()
        });
        assert_eq!(leaves, [""; 0]);
        process("8", "find");
        put(&root, "proc/swaps", "Filename Type Size Used Priority\n/dev/zd0 partition 1 0 -2\n");
        let begun = std::time::Instant::now();
        assert_eq!(
            holders(&machine, "p", false).unwrap(),
            ["swap on /dev/zd0", "find (process 8)"]
        );
        assert!(begun.elapsed() < PATIENCE, "it was waited for in vain");
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_stream_is_ended_when_nobody_else_is_left() {
        let root = recorded("stream");
        let machine = Machine::recorded(&root).with_time(Duration::from_secs(1));
        #[expect(clippy::disallowed_methods, reason = "a stream for the test")]
        let mut child = std::process::Command::new("sleep").arg("15").spawn().unwrap();
        put_zfs(&root, child.id(), "zfs\0receive\0-s\0p/backup\0");
        put(&root, "proc/7/comm", "sh\n");
        symlink("/p/files", root.join("proc/7/cwd")).unwrap();
        let stream = format!("zfs (process {})", child.id());
        assert_eq!(holders(&machine, "p", false).unwrap(), ["sh (process 7)".to_string(), stream]);
        assert_eq!(child.try_wait().unwrap(), None, "it was ended though another one stays");
        fs::remove_dir_all(root.join("proc/7")).unwrap();
        let machine = machine.with_time(Duration::from_secs(4));
        let left = std::thread::scope(|scope| {
            scope.spawn(|| {
                let folder = root.join(format!("proc/{}", child.id()));
                child.wait().unwrap();
                fs::remove_dir_all(folder).unwrap();
            });
            holders(&machine, "p", false)
        });
        assert_eq!(left.unwrap(), [""; 0]);
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_name_that_is_no_text_hides_no_holder_and_is_none() {
        let root = recorded("bytes");
        let machine = Machine::recorded(&root).with_time(Duration::from_millis(100));
        let append = |path: &str, bytes: &[u8]| {
            let before = fs::read(root.join(path)).unwrap_or_default();
            put(&root, path, "");
            fs::write(root.join(path), [&before, bytes].concat()).unwrap();
        };
        append("proc/self/mountinfo", b"33 20 8:1 / /media/\xfc rw - vfat /dev/sdb1 rw\n");
        append("sys/block/loop1/loop/backing_file", b"/media/\xfc.iso\n");
        append("proc/swaps", b"Filename Type\n/media/\xfc file 1 0 -2\n");
        append("proc/fs/nfs/exports", b"/media/\xfc *(rw)\n");
        append("etc/exports.d/zfs.exports", b"/media/\xfc *(rw)\n");
        assert_eq!(holders(&machine, "p", false), Ok(Vec::new()));
        append("proc/7/comm", b"daemon\xc3\n");
        fs::create_dir_all(root.join("proc/7/fd")).unwrap();
        symlink("/dev/zd16", root.join("proc/7/fd/3")).unwrap();
        assert_eq!(holders(&machine, "p", false).unwrap(), ["daemon\u{fffd} (process 7)"]);
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_strange_row_is_an_error_that_shows_it() {
        let fault = parse_mounts("20 1 254:0 / / rw ext4\n").unwrap_err();
        assert!(fault.reason.contains("\"20 1 254:0 / / rw ext4\""), "{}", fault.reason);
    }

    #[test]
    fn of_many_holders_the_first_are_named() {
        let many: Vec<String> = (0..10).map(|number| format!("h{number}")).collect();
        assert_eq!(sentence(&many[..2]), "h0, h1");
        let long: Vec<String> =
            (0..10).map(|number| format!("the LIO backstore vm-10{number}-disk-0")).collect();
        assert_eq!(sentence(&long), format!("{}, and 9 more", long[0]));
        assert_eq!(sentence(&many), many.join(", "));
        assert_eq!(sentence(&[]), "");
    }
}
