//! /etc/hasan/backend.conf: what a storage node is told of its own disks and of its peer. The same
//! file serves the programs that systemd starts and the agents that report on them.

use crate::chap::{self, Credentials};
use crate::legs::Leg;
use crate::machine::Machine;
use crate::names;
use crate::ocf::{Fault, Rc};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where the file is unless a parameter says otherwise.
pub const PATH: &str = "/etc/hasan/backend.conf";

/// The backend of one storage node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backend {
    /// The local disk or partition of each own leg.
    pub legs: BTreeMap<Leg, PathBuf>,
    /// Name of the target that exports the own legs.
    pub iqn: String,
    /// Its portal, on the storage network.
    pub portal: String,
    /// This node's initiator name, for the reader, and to find its password.
    pub initiator: Option<String>,
    /// The file of the passwords by which the two nodes prove themselves to each other.
    pub chap_file: Option<PathBuf>,
    /// The other storage node.
    pub peer: Peer,
    /// The pools whose mirrors lie on the legs.
    pub pools: Vec<String>,
}

/// What is known of the other storage node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Its name in the cluster.
    pub node: String,
    /// Its backend target.
    pub iqn: String,
    /// The portal of that target.
    pub portal: String,
    /// Its initiator name: the only one that may use our legs.
    pub initiator: String,
    /// The names of its legs.
    pub legs: Vec<Leg>,
}

impl Backend {
    /// The passwords of one of the two initiators, by which it and the other node's target prove themselves to each
    /// other; none where no file of passwords is configured.
    ///
    /// # Errors
    /// The file is not there, is open to others, is wrong, or has none for this initiator.
    pub fn credentials(
        &self,
        machine: &Machine,
        initiator: &str,
    ) -> Result<Option<Credentials>, Fault> {
        let load = |path| chap::load_of(machine, path, initiator);
        self.chap_file.as_deref().map(load).transpose()
    }
}

/// Reads and checks the file.
///
/// # Errors
/// `Installed` (5) if it is not there, `Arguments` (2) if it is wrong: both concern this node only.
pub fn load(machine: &Machine, path: &Path) -> Result<Backend, Fault> {
    let text = machine.read(path)?.ok_or_else(|| {
        let hint = "a storage node describes its disks and its peer in it";
        Fault::new(Rc::Installed, format!("{} is not there: {hint}", path.display()))
    })?;
    parse(&text).map_err(|wrong| Fault::new(Rc::Arguments, format!("{}: {wrong}", path.display())))
}

/// Lines of `key = value`; `#` begins a comment line.
fn parse(text: &str) -> Result<Backend, String> {
    let mut pairs = BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line
            .split_once('=')
            .ok_or_else(|| format!("line {}: {line:?} is not \"key = value\"", at + 1))?;
        let (key, value) = (key.trim().to_string(), value.trim().to_string());
        if pairs.insert(key.clone(), value).is_some() {
            return Err(format!("line {}: the key {key:?} stands here a second time", at + 1));
        }
    }
    build(pairs)
}

fn build(mut pairs: BTreeMap<String, String>) -> Result<Backend, String> {
    let leg_keys: Vec<String> =
        pairs.keys().filter(|key| key.starts_with("leg.")).cloned().collect();
    let mut legs = BTreeMap::new();
    for key in leg_keys {
        let device = pairs.remove(&key).unwrap_or_default();
        let leg = Leg::new(key.strip_prefix("leg.").unwrap_or_default())
            .map_err(|wrong| format!("the key {key:?}: {wrong}"))?;
        names::absolute_path(&device)
            .map_err(|wrong| format!("the key {key:?}: {device:?} {wrong}"))?;
        let device = PathBuf::from(device);
        if let Some((other, _)) = legs.iter().find(|(_, known)| **known == device) {
            return Err(format!(
                "the key {key:?}: {} is the leg {other} already",
                device.display()
            ));
        }
        legs.insert(leg, device);
    }
    if legs.is_empty() {
        return Err("no leg is named: a line like \"leg.data-a1 = /dev/disk/…\"".to_string());
    }
    let mut optional = |key: &str, check: fn(&str) -> Result<(), String>| {
        let Some(value) = pairs.remove(key) else { return Ok(None) };
        check(&value).map_err(|wrong| format!("the key {key:?}: {value:?} {wrong}"))?;
        Ok::<_, String>(Some(value))
    };
    let initiator = optional("initiator", names::iqn)?;
    let chap_file = optional("chap_file", names::absolute_path)?.map(PathBuf::from);
    let mut take = |key: &str, check: fn(&str) -> Result<(), String>| {
        optional(key, check)?.ok_or_else(|| format!("the key {key:?} is missing"))
    };
    let backend = Backend {
        iqn: take("iqn", names::iqn)?,
        portal: take("portal", names::portal)?,
        peer: Peer {
            node: take("peer.node", names::plain)?,
            iqn: take("peer.iqn", names::iqn)?,
            portal: take("peer.portal", names::portal)?,
            initiator: take("peer.initiator", names::iqn)?,
            legs: leg_list(&take("peer.legs", |_| Ok(()))?)?,
        },
        pools: pool_list(&take("pool", |_| Ok(()))?)?,
        initiator,
        chap_file,
        legs,
    };
    match pairs.keys().next() {
        Some(key) => Err(format!("the key {key:?} is unknown")),
        None => Ok(backend),
    }
}

fn leg_list(value: &str) -> Result<Vec<Leg>, String> {
    names::list(value)
        .iter()
        .map(|name| Leg::new(name).map_err(|wrong| format!("the key \"peer.legs\": {wrong}")))
        .collect()
}

fn pool_list(value: &str) -> Result<Vec<String>, String> {
    let pools = names::list(value);
    for name in &pools {
        names::pool(name).map_err(|wrong| format!("the key \"pool\": {name:?} {wrong}"))?;
    }
    Ok(pools)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# storage-a\nleg.data-a1 = /dev/vdb\nleg.data-a2=/dev/vdc\n\
        iqn = iqn.2025-01.lab.home:storage-a\nportal = 10.10.10.1:3260\npeer.node = storage-b\n\
        peer.iqn = iqn.2025-01.lab.home:storage-b\npeer.portal = 10.10.10.2:3260\n\
        peer.initiator = iqn.2025-01.lab.home:initiator-b\npeer.legs = data-b1 data-b2\n\
        pool = san-pool\n";

    #[test]
    fn a_good_file_is_read() {
        let backend = parse(GOOD).unwrap();
        assert_eq!(backend.legs.len(), 2);
        assert_eq!(backend.legs[&Leg::new("data-a1").unwrap()], Path::new("/dev/vdb"));
        assert_eq!(backend.peer.legs.len(), 2);
        assert_eq!(backend.pools, ["san-pool"]);
    }

    #[test]
    fn a_bad_file_is_refused_with_the_key_and_the_value() {
        for (from, to, want) in [
            ("portal = 10.10.10.1:3260", "portal = 0.0.0.0:3260", "\"portal\": \"0.0.0.0:3260\""),
            ("pool = san-pool", "pool = 1pool", "\"pool\": \"1pool\""),
            ("peer.node = storage-b\n", "", "\"peer.node\" is missing"),
            (
                "leg.data-a2=/dev/vdc",
                "leg.data-a1=/dev/vdc",
                "\"leg.data-a1\" stands here a second",
            ),
            ("leg.data-a2=/dev/vdc", "leg.data/a2=/dev/vdc", "\"leg.data/a2\""),
            ("leg.data-a2=/dev/vdc", "leg.data-a2=vdc", "\"vdc\" is not an absolute path"),
            ("leg.data-a2=/dev/vdc", "leg.data-a2=/dev/vdb", "/dev/vdb is the leg data-a1 already"),
            ("# storage-a", "storage-a", "line 1: \"storage-a\""),
            ("# storage-a", "colour = red", "\"colour\" is unknown"),
            (
                "# storage-a",
                "chap_file = chap.json",
                "\"chap_file\": \"chap.json\" is not an absolute",
            ),
            ("# storage-a", "initiator = x", "\"initiator\": \"x\" is not an iSCSI name"),
        ] {
            let wrong = parse(&GOOD.replace(from, to)).unwrap_err();
            assert!(wrong.contains(want), "{wrong}");
        }
    }
}
