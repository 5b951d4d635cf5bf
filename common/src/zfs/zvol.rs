//! Which zvol a device is, as the kernel says. The links below /dev/zvol are udev's, which is behind it: after an import, or
//! when zvols were renamed, a link can lead to another zvol's device for a while.
#![expect(unsafe_code, reason = "an ioctl has no safe form")]

use crate::machine::Machine;
use crate::ocf::Fault;
use nix::errno::Errno;
use std::ffi::CStr;
use std::os::fd::AsRawFd;
use std::path::Path;

/// Longest name of a dataset with its end (`include/sys/fs/zfs.h`, `ZFS_MAX_DATASET_NAME_LEN`).
const LENGTH: usize = 256;

mod ioctl {
    // `include/sys/fs/zfs.h`: BLKZNAME is _IOR(0x12, 125, char[ZFS_MAX_DATASET_NAME_LEN]).
    nix::ioctl_read!(blkzname, 0x12, 125, [u8; super::LENGTH]);
}

/// The zvol that a device is; `None` if the device is not there, or is none.
///
/// # Errors
/// The device cannot be opened, or the kernel gives no name.
pub(super) fn name_of(machine: &Machine, device: &Path) -> Result<Option<String>, Fault> {
    let cannot = |why: String| {
        Fault::generic(format!("cannot ask for the zvol of {}: {why}", device.display()))
    };
    let Some(file) = machine.open(device)? else { return Ok(None) };
    let mut name = [0; LENGTH];
    // SAFETY: the descriptor is open for the whole call, and the kernel writes as many bytes as `name` has.
    match unsafe { ioctl::blkzname(file.as_raw_fd(), &mut name) } {
        Ok(_) => {}
        Err(Errno::ENOTTY | Errno::EINVAL) => return Ok(None),
        Err(errno) => return Err(cannot(errno.to_string())),
    }
    let text =
        CStr::from_bytes_until_nul(&name).map_err(|_| cannot("its name has no end".to_string()))?;
    text.to_str()
        .map(|name| Some(name.to_string()))
        .map_err(|_| cannot("its name is no text".to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_zvol_has_no_name() {
        let root = std::env::temp_dir().join(format!("hasan-zvol-{}", std::process::id()));
        let machine = Machine::recorded(&root);
        machine.replace_file(Path::new("/dev/zd0"), "no device").unwrap();
        assert_eq!(name_of(&machine, Path::new("/dev/zd0")).unwrap(), None);
        assert_eq!(name_of(&machine, Path::new("/dev/zd16")).unwrap(), None);
        std::fs::remove_dir_all(&root).unwrap();
    }
}
