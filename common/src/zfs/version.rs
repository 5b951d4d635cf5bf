//! The version of the ZFS module, and what it asks of an import under multihost.

use crate::machine::Machine;
use crate::ocf::{Fault, Rc};
use std::fmt;
use std::path::Path;

/// A version, such as 2.1.11.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

/// How an import claims a pool that another host had, while a mirror lacks a leg.
///
/// From 2.3.6 and 2.4.1 on an import writes a claim to two places of each mirror (`module/zfs/mmp.c`,
/// `mmp_claim_uberblock`); in 2.3.9 and 2.4.4 it counts only the legs that the pool's configuration
/// calls well, and `zhack mmp reclaim` takes a dead one out of that (zhack(1)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// No claim: `zpool import -f` is enough.
    None,
    /// The claim fails, and nothing helps.
    Broken,
    /// `zhack mmp reclaim` comes before the import.
    Reclaim,
}

impl Version {
    /// What this version asks for.
    pub fn claim(self) -> Claim {
        match self {
            Version(2, 3, 6..=8) | Version(2, 4, 1..=3) => Claim::Broken,
            Version(2, 4, 0) => Claim::None,
            version if version < Version(2, 3, 6) => Claim::None,
            _ => Claim::Reclaim,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}.{}", self.0, self.1, self.2)
    }
}

const PATH: &str = "/sys/module/zfs/version";

/// The version of the module that is loaded; `None` if none is.
///
/// # Errors
/// A version that is not three numbers.
pub fn version(machine: &Machine) -> Result<Option<Version>, Fault> {
    let Some(text) = machine.read(Path::new(PATH))? else { return Ok(None) };
    let strange = || Fault::generic(format!("cannot read {PATH}: {text:?} is not a version"));
    parse(&text).map(Some).ok_or_else(strange)
}

/// Loads the module, unless it is loaded: a node that has not used ZFS since its boot may lack it.
///
/// # Errors
/// `Installed` (5) if there is no such module for this kernel.
pub fn load_module(machine: &Machine) -> Result<Version, Fault> {
    if let Some(version) = version(machine)? {
        return Ok(version);
    }
    let absent = |why: &str| {
        Fault::new(Rc::Installed, format!("there is no ZFS module for this kernel: {why}"))
    };
    machine.run("modprobe", &["zfs"]).map_err(|fault| absent(&fault.reason))?;
    version(machine)?.ok_or_else(|| absent("modprobe zfs did nothing"))
}

/// `2.1.11-1+deb12u1`, `2.3.9-1`, `2.2.99-100_gabc`.
fn parse(text: &str) -> Option<Version> {
    let numbers = text.split(['-', '~', '_', '+']).next()?;
    let mut parts = numbers.split('.').map(|part| part.parse().ok());
    Some(Version(parts.next()??, parts.next()??, parts.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_and_a_strange_one_is_none() {
        assert_eq!(parse("2.1.11-1+deb12u1"), Some(Version(2, 1, 11)));
        assert_eq!(parse("2.3.9"), Some(Version(2, 3, 9)));
        for strange in ["", "2", "2.3", "two", "2.x.1", "2.3.-1"] {
            assert_eq!(parse(strange), None, "{strange}");
        }
    }

    #[test]
    fn what_each_version_asks_for() {
        for (version, want) in [
            (Version(2, 1, 11), Claim::None),
            (Version(2, 2, 99), Claim::None),
            (Version(2, 3, 5), Claim::None),
            (Version(2, 3, 6), Claim::Broken),
            (Version(2, 3, 8), Claim::Broken),
            (Version(2, 3, 9), Claim::Reclaim),
            (Version(2, 4, 0), Claim::None),
            (Version(2, 4, 1), Claim::Broken),
            (Version(2, 4, 3), Claim::Broken),
            (Version(2, 4, 4), Claim::Reclaim),
            (Version(2, 5, 0), Claim::Reclaim),
            (Version(3, 0, 0), Claim::Reclaim),
        ] {
            assert_eq!(version.claim(), want, "{version}");
        }
    }
}
