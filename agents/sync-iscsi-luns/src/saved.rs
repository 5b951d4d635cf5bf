//! The client part in targetcli's file.

use hasan::lio::{self, TpgName, saveconfig};
use hasan::machine::Machine;
use hasan::ocf::Fault;
use std::collections::BTreeMap;
use std::path::Path;

/// The file of targetcli shows what the kernel has. It is for others to read, and decides nothing.
pub(crate) fn show(machine: &Machine, name: &TpgName, zvols: &Path) {
    let show = || -> Result<(), Fault> {
        let tpg = lio::tpg(machine, name)?;
        let luns = match &tpg {
            Some(tpg) => saveconfig::saved(tpg, &lio::backstores(machine)?),
            None => BTreeMap::new(),
        };
        let group = tpg.as_ref().map(|tpg| (tpg, &luns));
        saveconfig::show(machine, name, group, |device| device.starts_with(zvols))
    };
    if let Err(fault) = show() {
        tracing::warn!("{}", fault.reason);
    }
}
