//! ZFS: what the kernel says of a pool, what its labels say, and what its tools print.

mod label;
mod status;
mod version;
mod zvol;

pub use label::{Label, LabelState, read_label};
pub use status::{Scan, Status, Vdev, parse_status};
pub use version::{Claim, Version, load_module, version};

use crate::machine::Machine;
use crate::ocf::Fault;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The state of an imported pool (`module/zfs/spa_misc.c`, `spa_state_to_name`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoolState {
    /// All is well.
    Online,
    /// It works without some vdev.
    Degraded,
    /// Its vdevs are being opened or closed: at an import and an export, and for a moment whenever a scrub begins
    /// (`module/zfs/dsl_scan.c`, `dsl_scan`). The word tells nothing of the pool.
    Between(String),
    /// Any other word, such as SUSPENDED: it is imported but does not work.
    Other(String),
}

impl PoolState {
    /// Whether the pool works, perhaps weakened.
    pub fn is_usable(&self) -> bool {
        matches!(self, PoolState::Online | PoolState::Degraded)
    }

    /// The kernel's word for it.
    pub fn word(&self) -> &str {
        match self {
            PoolState::Online => "ONLINE",
            PoolState::Degraded => "DEGRADED",
            PoolState::Between(word) | PoolState::Other(word) => word,
        }
    }
}

/// The state of a pool, from kstat, without a program and without a lock of the pool's; `None` if
/// it is not imported.
pub fn pool_state(machine: &Machine, pool: &str) -> Result<Option<PoolState>, Fault> {
    let folder = Path::new("/proc/spl/kstat/zfs").join(pool);
    let Some(text) = machine.read(&folder.join("state"))? else {
        // A pool's folder without its state is not "not imported".
        return match machine.exists(&folder) {
            true => Err(Fault::generic(format!("the kernel shows no state of the pool {pool:?}"))),
            false => Ok(None),
        };
    };
    Ok(Some(match text.as_str() {
        "ONLINE" => PoolState::Online,
        "DEGRADED" => PoolState::Degraded,
        // Nobody can take a whole pool offline: its root is closed.
        "OFFLINE" | "TRANSITIONING" => PoolState::Between(text),
        other => PoolState::Other(other.to_string()),
    }))
}

/// How long a pool is between two states as a rule: a vdev that does not answer is not opened before its path has failed. The
/// mark that the cluster takes then may take longer.
pub const BETWEEN: Duration = Duration::from_secs(15);

/// The same for whoever goes by it: while the pool's vdevs are opened or closed it waits for the state that comes of that, at
/// most so long.
pub fn settled_pool_state(
    machine: &Machine,
    pool: &str,
    at_most: Duration,
) -> Result<Option<PoolState>, Fault> {
    settle(machine, at_most, || pool_state(machine, pool))
}

fn settle(
    machine: &Machine,
    at_most: Duration,
    mut look: impl FnMut() -> Result<Option<PoolState>, Fault>,
) -> Result<Option<PoolState>, Fault> {
    let mut state = None;
    machine.await_condition(at_most, || {
        state = look()?;
        Ok(!matches!(state, Some(PoolState::Between(_))))
    })?;
    Ok(state)
}

/// The imported pools, from kstat; `None` if the ZFS module is not loaded.
pub fn imported_pools(machine: &Machine) -> Result<Option<Vec<String>>, Fault> {
    let folder = Path::new("/proc/spl/kstat/zfs");
    let Some(names) = machine.list(folder)? else { return Ok(None) };
    let is_pool = |name: &String| machine.exists(&folder.join(name).join("state"));
    Ok(Some(names.into_iter().filter(is_pool).collect()))
}

/// This host's id as ZFS knows it: the module's parameter, else the four bytes of /etc/hostid, else
/// 0 (`module/os/linux/spl/spl-generic.c`, `zone_get_hostid`).
pub fn hostid(machine: &Machine) -> Result<u64, Fault> {
    match module_hostid(machine)? {
        Some(hostid) => Ok(hostid),
        None => file_hostid(machine),
    }
}

/// The id in the module's parameter; `None` if it leaves that to the file.
pub fn module_hostid(machine: &Machine) -> Result<Option<u64>, Fault> {
    let parameter = Path::new("/sys/module/spl/parameters/spl_hostid");
    let text = machine.read(parameter)?.unwrap_or_default();
    Ok(text.parse().ok().filter(|hostid| *hostid != 0))
}

/// Whether the module suspends a pool that cannot write its sign of life in time (zfs(4), `zfs_multihost_fail_intervals`).
pub fn suspends_for_its_sign(machine: &Machine) -> Result<bool, Fault> {
    let parameter = Path::new("/sys/module/zfs/parameters/zfs_multihost_fail_intervals");
    Ok(machine.read(parameter)?.is_some_and(|text| text.trim() != "0"))
}

/// The id in /etc/hostid; 0 if there is none.
pub fn file_hostid(machine: &Machine) -> Result<u64, Fault> {
    let bytes = machine.read_bytes(Path::new("/etc/hostid"))?.unwrap_or_default();
    Ok(<[u8; 4]>::try_from(bytes.as_slice())
        .map_or(0, |bytes| u64::from(u32::from_le_bytes(bytes))))
}

/// A file system or zvol, and the properties that were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// Its whole name, `POOL/…/NAME`.
    pub name: String,
    /// All properties that were asked for and that it has, whatever their source.
    pub values: BTreeMap<String, String>,
    /// Its own user properties; one that it inherited or received is not its own.
    pub own: BTreeMap<String, String>,
}

impl Dataset {
    /// Whether it has the property with this value, whatever its source.
    pub fn is(&self, property: &str, value: &str) -> bool {
        self.values.get(property).is_some_and(|has| has == value)
    }
}

/// A dataset and all below it that are of these types, with these properties (both separated by commas, zfs-get(8)), as far as
/// ZFS lists them: what it says of others is logged. It asks ZFS, which may take its time.
///
/// # Errors
/// ZFS cannot be asked, or the list cannot be read.
pub fn datasets(
    machine: &Machine,
    root: &str,
    types: &str,
    properties: &str,
) -> Result<Vec<Dataset>, Fault> {
    let answer = machine.ask("zfs", &list_of(root, types, properties))?;
    if answer.code != Some(0) || !answer.stderr.trim().is_empty() {
        tracing::error!("\"zfs get\" does not list all of {root}: {}", answer.stderr.trim());
    }
    parse_datasets(&answer.stdout)
}

/// As [`datasets`], but all of them, as rows for [`parse_datasets`].
///
/// # Errors
/// The dataset is not there, or not all below it was listed: `zfs get -r` says that it cannot go on at a dataset that is damaged,
/// leaves out what follows, and exits with 0 (`cmd/zfs/zfs_iter.c`, `zfs_callback`). Half a list is none.
pub fn dataset_rows(
    machine: &Machine,
    root: &str,
    types: &str,
    properties: &str,
) -> Result<String, Fault> {
    machine.run_silent("zfs", &list_of(root, types, properties))
}

/// What `zfs` is asked for a list that [`parse_datasets`] can read.
fn list_of<'a>(root: &'a str, types: &'a str, properties: &'a str) -> [&'a str; 9] {
    ["get", "-Hp", "-r", "-t", types, "-o", "name,property,value,source", properties, root]
}

/// Parses `zfs get -Hp -r -o name,property,value,source … DATASET`: a row for each dataset and
/// property, tab separated.
///
/// # Errors
/// The row that is not such a row.
pub fn parse_datasets(text: &str) -> Result<Vec<Dataset>, Fault> {
    let mut datasets: Vec<Dataset> = Vec::new();
    for row in text.lines() {
        let wrong = || Fault::generic(format!("cannot read the row {row:?} of \"zfs get\""));
        let mut words = row.split('\t');
        let mut word = || words.next().ok_or_else(wrong);
        let (name, property, value, source) = (word()?, word()?, word()?, word()?);
        if words.next().is_some() {
            return Err(wrong());
        }
        // The rows of a dataset follow each other.
        if datasets.last().is_none_or(|last| last.name != name) {
            let (values, own) = (BTreeMap::new(), BTreeMap::new());
            datasets.push(Dataset { name: name.to_string(), values, own });
        }
        let Some(dataset) = datasets.last_mut() else { continue };
        // User properties, and they alone, have a colon (zfsprops(7)).
        if property.contains(':') && source == "local" {
            dataset.own.insert(property.to_string(), value.to_string());
        }
        // What a dataset does not have is shown as "-".
        if value != "-" {
            dataset.values.insert(property.to_string(), value.to_string());
        }
    }
    datasets.sort_by(|one, other| one.name.cmp(&other.name));
    match datasets.windows(2).find(|pair| pair[0].name == pair[1].name) {
        None => Ok(datasets),
        Some(pair) => {
            Err(Fault::generic(format!("\"zfs get\" tells of {:?} in two places", pair[0].name)))
        }
    }
}

/// The device of a zvol, a link that udev makes: spaces in its name become `+`.
pub fn zvol_device(zvol: &str) -> PathBuf {
    Path::new("/dev/zvol").join(zvol.replace(' ', "+"))
}

/// Removes the links to a pool's zvols that an earlier import has left behind. To be called while the pool is not imported: then
/// each of them leads nowhere, or will lead to another zvol's device.
pub fn remove_stale_links(machine: &Machine, pool: &str) -> Result<(), Fault> {
    loop {
        // Of several links to one device it shows one.
        let links = zvol_links(machine, &zvol_device(pool))?;
        if links.is_empty() {
            return Ok(());
        }
        links.values().try_for_each(|link| machine.remove_file(link))?;
    }
}

/// Whether a zvol's device is there, by its own link.
///
/// # Errors
/// The kernel does not say which zvol the device is.
pub fn has_device(machine: &Machine, zvol: &str) -> Result<bool, Fault> {
    Ok(zvol::name_of(machine, &zvol_device(zvol))?.as_deref() == Some(zvol))
}

/// Nothing, if a device is not below /dev/zvol, or is the zvol of its path.
///
/// # Errors
/// It is another one, and the sentence says so.
pub fn check_device(machine: &Machine, device: &Path) -> Result<(), Fault> {
    let Some(zvol) = zvol_of(device) else { return Ok(()) };
    match zvol::name_of(machine, device)? {
        Some(name) if name == zvol => Ok(()),
        Some(name) => {
            Err(Fault::generic(format!("{} leads to the device of {name}", device.display())))
        }
        None => Err(Fault::generic(format!("{} leads to no zvol", device.display()))),
    }
}

/// The GUID of an imported pool.
pub fn pool_guid(machine: &Machine, pool: &str) -> Result<u64, Fault> {
    let guid = machine.run("zpool", &["get", "-Hp", "-o", "value", "guid", pool])?;
    let guid = guid.trim();
    let strange = |_| Fault::generic(format!("the pool {pool:?} has the strange guid {guid:?}"));
    guid.parse().map_err(strange)
}

/// The lock that is held while a pool is being imported: until that ends the kernel shows no pool, and yet one may appear.
pub fn import_lock(pool: &str) -> PathBuf {
    PathBuf::from(format!("/run/hasan/zfs-pool.{pool}.lock"))
}

/// Whether an import of the pool is under way on this node.
pub fn is_importing(machine: &Machine, pool: &str) -> Result<bool, Fault> {
    machine.is_locked(&import_lock(pool))
}

/// The zvols whose links are below a folder of /dev/zvol, partitions too: the kernel's name (`zd16`) and the link.
pub fn zvol_links(machine: &Machine, folder: &Path) -> Result<BTreeMap<String, PathBuf>, Fault> {
    let mut links = BTreeMap::new();
    for name in machine.list(folder)?.unwrap_or_default() {
        let path = folder.join(name);
        match machine.link(&path)? {
            Some(target) => {
                let block = target.file_name().map(|name| name.to_string_lossy().into_owned());
                links.extend(block.map(|block| (block, path)));
            }
            None => links.extend(zvol_links(machine, &path)?),
        }
    }
    Ok(links)
}

/// The zvol of such a device; no zvol has a `+` in its name (zfs(8)).
pub fn zvol_of(device: &Path) -> Option<String> {
    Some(device.strip_prefix("/dev/zvol").ok()?.to_str()?.replace('+', " "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn only_local_user_properties_count() {
        let text = "p/v/a\tguid\t77\t-\np/v/a\thasan:lun\t3\tlocal\np/v/a\thasan:serial\tx\treceived\n\
            p/v/b\tvolmode\tdev\tinherited from p\np/v/b\thasan:lun\t-\t-\n";
        let datasets = parse_datasets(text).unwrap();
        assert_eq!(datasets.len(), 2);
        assert_eq!(datasets[0].values["guid"], "77");
        assert_eq!(datasets[0].values["hasan:serial"], "x");
        let own = BTreeMap::from([("hasan:lun".to_string(), "3".to_string())]);
        assert_eq!(datasets[0].own, own);
        assert_eq!(datasets[1].values["volmode"], "dev");
        assert!(!datasets[1].values.contains_key("hasan:lun"));
        assert!(datasets[1].own.is_empty());
    }

    #[test]
    fn a_strange_row_is_an_error_that_shows_it() {
        let fault = parse_datasets("p/v/a\tguid\t77\n").unwrap_err();
        assert!(fault.reason.contains("\"p/v/a\\tguid\\t77\""), "{}", fault.reason);
        let apart = "p/v/a\tguid\t77\t-\np/v/b\tguid\t78\t-\np/v/a\ttype\tvolume\t-\n";
        let fault = parse_datasets(apart).unwrap_err();
        assert!(fault.reason.contains("\"p/v/a\" in two places"), "{}", fault.reason);
    }

    #[test]
    fn a_list_that_breaks_off_is_an_error_also_where_zfs_exits_with_0() {
        let root = std::env::temp_dir().join(format!("hasan-half-list-{}", std::process::id()));
        // What an earlier run has left.
        let _ = std::fs::remove_dir_all(&root);
        let machine = Machine::recorded(&root);
        let says = |more: &str| {
            let script = format!("printf 'p/a\\tguid\\t77\\t-\\n'\n{more}");
            machine.record_program("zfs", &script).unwrap();
            dataset_rows(&machine, "p", "volume", "guid")
        };
        assert_eq!(says("").unwrap(), "p/a\tguid\t77\t-\n");
        let half = says("echo 'cannot iterate filesystems: I/O error' >&2").unwrap_err();
        assert!(half.reason.ends_with("cannot iterate filesystems: I/O error"), "{}", half.reason);
        // Whoever can do with a part of it has that.
        assert_eq!(datasets(&machine, "p", "volume", "guid").unwrap().len(), 1);
        assert!(says("exit 1").is_err());
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_pool_between_two_states_is_awaited() {
        let root = std::env::temp_dir().join(format!("hasan-between-{}", std::process::id()));
        let machine = Machine::recorded(&root);
        let path = Path::new("/proc/spl/kstat/zfs/p/state");
        // What the kernel says, one word after the other; the last one to whoever looks again.
        let says = |words: &[&str]| {
            let mut words = words.iter();
            settle(&machine, BETWEEN, || {
                if let Some(word) = words.next() {
                    machine.replace_file(path, word)?;
                }
                pool_state(&machine, "p")
            })
        };
        let of = |words: &[&str]| says(words).unwrap().unwrap();
        assert_eq!(of(&["OFFLINE", "TRANSITIONING", "ONLINE"]), PoolState::Online);
        assert_eq!(of(&["OFFLINE", "SUSPENDED", "ONLINE"]).word(), "SUSPENDED");
        assert_eq!(of(&["DEGRADED", "ONLINE"]), PoolState::Degraded);
        std::fs::remove_dir_all(root).unwrap();
        assert_eq!(says(&[]).unwrap(), None);
        let late = Machine::local(Instant::now());
        let stays = || Ok(Some(PoolState::Between("OFFLINE".to_string())));
        assert!(!settle(&late, BETWEEN, stays).unwrap().unwrap().is_usable());
    }

    #[test]
    fn the_device_of_a_zvol() {
        assert_eq!(zvol_device("p/a b"), Path::new("/dev/zvol/p/a+b"));
        assert_eq!(zvol_of(Path::new("/dev/zvol/p/a+b")), Some("p/a b".to_string()));
        assert_eq!(zvol_of(Path::new("/dev/zd0")), None);
    }

    #[test]
    fn stale_links_are_removed_and_those_of_other_pools_stay() {
        let root = std::env::temp_dir().join(format!("hasan-links-{}", std::process::id()));
        let machine = Machine::recorded(&root);
        for (link, device) in [
            ("p/v/a", "../../../zd0"),
            ("p/v/b", "../../../zd0"),
            ("p/c", "../../zd16"),
            ("q/c", "../../zd32"),
        ] {
            let link = root.join("dev/zvol").join(link);
            std::fs::create_dir_all(link.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(device, link).unwrap();
        }
        remove_stale_links(&machine, "p").unwrap();
        let left = zvol_links(&machine, Path::new("/dev/zvol")).unwrap();
        assert_eq!(left.into_values().collect::<Vec<_>>(), [Path::new("/dev/zvol/q/c")]);
        std::fs::remove_dir_all(&root).unwrap();
    }
}
