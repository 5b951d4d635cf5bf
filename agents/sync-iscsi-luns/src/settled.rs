//! Where all that a sync goes by is as it was when one found nothing to do, there is nothing to do. To read and compare a
//! thousand LUNs takes seconds; what tells that they are the same ones is read in a fraction of that.

use crate::Config;
use crate::access::Access;
use crate::observe::kept_path;
use hasan::lio::{self, Stamp, Tpg};
use hasan::machine::Machine;
use hasan::ocf::Fault;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

/// All that a sync goes by, as one number.
pub(crate) struct Look {
    /// Where the number of the last sync is kept that found nothing to do. A start makes other folders in the kernel's tree,
    /// and a boot empties /run.
    record: PathBuf,
    /// `None` where there is something to do whatever it is.
    digest: Option<String>,
}

impl Look {
    /// Of the kernel's tree it takes the group and the stamps of its LUNs: a backstore that a LUN leads to cannot be removed,
    /// nobody can change its serial or its device, and the zvol that it holds open keeps that device.
    pub(crate) fn new(
        machine: &Machine,
        config: &Config,
        rows: &str,
        (tpg, stamps): (&Tpg, &[Stamp]),
        access: &Access,
    ) -> Result<Look, Fault> {
        let name = &config.tpg;
        let record = Path::new("/run/hasan").join(format!("settled.{}.{}", name.iqn, name.tag));
        // No digest has a password in it: they are compared.
        if !access.troubles.is_empty() || access.credentials != tpg.credentials {
            return Ok(Look { record, digest: None });
        }
        let mut hasher = DefaultHasher::new();
        (rows, tpg, stamps).hash(&mut hasher);
        lio::reservations::stamps(machine)?.hash(&mut hasher);
        machine.read(&kept_path(name))?.hash(&mut hasher);
        lio::saveconfig::stamps(machine)?.hash(&mut hasher);
        (&config.dataset, &config.naming, access.everyone, &access.initiators).hash(&mut hasher);
        // Another version may judge otherwise.
        machine.stamp(Path::new("/proc/self/exe"))?.hash(&mut hasher);
        Ok(Look { record, digest: Some(format!("{:016x}", hasher.finish())) })
    }

    /// Whether it is what that sync has seen.
    pub(crate) fn is_settled(&self, machine: &Machine) -> Result<bool, Fault> {
        Ok(self.digest.is_some() && machine.read(&self.record)? == self.digest)
    }

    /// Keeps it: there was nothing to do.
    pub(crate) fn settle(&self, machine: &Machine) {
        let Some(digest) = &self.digest else { return };
        if let Err(fault) = machine.replace_file(&self.record, digest) {
            tracing::warn!("{}", fault.reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Source;
    use crate::identity::Naming;
    use hasan::chap::{Credentials, Secret};
    use hasan::lio::{TpgName, Who};
    use std::collections::{BTreeMap, BTreeSet};

    fn config() -> Config {
        Config {
            tpg: TpgName { iqn: "iqn.2025-01.lab.home:a".to_string(), tag: 1 },
            dataset: "p/v".to_string(),
            naming: Naming::Zvol { vlan: None },
            settle: 60,
            access: Source {
                everyone: false,
                initiators: BTreeSet::new(),
                acl_file: None,
                chap_file: None,
            },
        }
    }

    fn credentials(password: &str) -> BTreeMap<Who, Credentials> {
        let password = Secret::new(password.to_string());
        let pair = Credentials { user: "u".to_string(), password, mutual: None };
        BTreeMap::from([(Who::Everyone, pair)])
    }

    /// A machine whose sync found nothing to do.
    struct Settled {
        machine: Machine,
        root: PathBuf,
        tpg: Tpg,
        stamps: Vec<Stamp>,
        access: Access,
    }

    impl Settled {
        fn new(name: &str) -> Settled {
            let root = std::env::temp_dir().join(format!("hasan-{name}-{}", std::process::id()));
            let machine = Machine::recorded(&root);
            machine.replace_file(Path::new("/sys/kernel/config/target/dbroot"), "/target").unwrap();
            let tpg = Tpg { credentials: credentials("one"), ..Tpg::default() };
            let access = Access { credentials: credentials("one"), ..Access::default() };
            let stamps = stamps("1.0");
            let settled = Settled { machine, root, tpg, stamps, access };
            assert!(!settled.is_so(), "no sync was there yet");
            settled.now().settle(&settled.machine);
            assert!(settled.is_so());
            settled
        }

        fn look(&self, config: &Config, rows: &str, tpg: &Tpg, access: &Access) -> Look {
            Look::new(&self.machine, config, rows, (tpg, &self.stamps), access).unwrap()
        }

        fn now(&self) -> Look {
            self.look(&config(), "rows", &self.tpg, &self.access)
        }

        fn is_so(&self) -> bool {
            self.now().is_settled(&self.machine).unwrap()
        }
    }

    impl Drop for Settled {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.root);
        }
    }

    fn stamps(time: &str) -> Vec<Stamp> {
        vec![(PathBuf::from("lun_0"), Some(format!("7 0 {time}")))]
    }

    #[test]
    fn whatever_a_sync_is_given_unsettles_it() {
        let mut settled = Settled::new("settled-by");
        let Settled { machine, tpg, access, .. } = &settled;
        let proxmox = Config { naming: Naming::Proxmox, ..config() };
        let open = Tpg { enabled: true, ..tpg.clone() };
        let others = Tpg { credentials: credentials("other"), ..tpg.clone() };
        let everyone = Access { everyone: true, ..access.clone() };
        let broken = Access { troubles: vec!["line 1".to_string()], ..access.clone() };
        for (what, look) in [
            ("the zvols", settled.look(&config(), "other rows", tpg, access)),
            ("the group", settled.look(&config(), "rows", &open, access)),
            ("the parameters", settled.look(&proxmox, "rows", tpg, access)),
            ("who may use it", settled.look(&config(), "rows", tpg, &everyone)),
            ("the group's password", settled.look(&config(), "rows", &others, access)),
            ("a file that cannot be read", settled.look(&config(), "rows", tpg, &broken)),
        ] {
            assert!(!look.is_settled(machine).unwrap(), "{what}");
        }
        let broken = settled.look(&config(), "rows", tpg, &broken);
        broken.settle(machine);
        assert!(!broken.is_settled(machine).unwrap());
        assert!(settled.is_so(), "as it was");
        settled.stamps = stamps("2.0");
        assert!(!settled.is_so(), "a LUN was led elsewhere");
    }

    #[test]
    fn whatever_changes_on_the_machine_unsettles_it() {
        let settled = Settled::new("settled-at");
        let put = |path: &Path| settled.machine.replace_file(path, "{}").unwrap();
        for (what, path) in [
            ("a reservation", PathBuf::from("/target/pr/aptpl_s")),
            ("the reservations' record", kept_path(&config().tpg)),
            ("targetcli's file", PathBuf::from("/etc/target/saveconfig.json")),
        ] {
            put(&path);
            assert!(!settled.is_so(), "{what}");
            settled.now().settle(&settled.machine);
            assert!(settled.is_so(), "{what}");
        }
    }
}
