//! The client part in targetcli's file.

use crate::observe::zvols as zvols_of;
use hasan::lio::{Backstore, Tpg, TpgName, saveconfig};
use hasan::machine::Machine;
use hasan::zfs;
use std::collections::BTreeMap;
use std::path::Path;

/// The file of targetcli shows what the kernel has. It is for others to read, and decides nothing. Returns whether it does.
pub(crate) fn show(
    machine: &Machine,
    name: &TpgName,
    zvols: &Path,
    tpg: Option<&Tpg>,
    backstores: &[Backstore],
    blocks: &BTreeMap<String, String>,
) -> bool {
    let zvol_of = zvols_of(blocks);
    let named = |each: &Backstore| Some(zfs::zvol_device(zvol_of.get(each.block.as_deref()?)?));
    let luns = tpg.map(|tpg| saveconfig::saved(tpg, backstores, named)).unwrap_or_default();
    let group = tpg.map(|tpg| (tpg, &luns));
    let shown = saveconfig::show(machine, name, group, |device| device.starts_with(zvols));
    if let Err(fault) = &shown {
        tracing::warn!("{}", fault.reason);
    }
    shown.is_ok()
}
