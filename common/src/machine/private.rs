//! Files of secrets: only who may know them can read them.

use super::{Machine, is_absent};
use crate::ocf::{Fault, Rc};
use nix::fcntl::OFlag;
use nix::unistd::Uid;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use zeroize::Zeroizing;

/// How long a file of secrets may be, bytes.
const PRIVATE_SIZE: usize = 64 * 1024;

impl Machine {
    /// The bytes of a file of secrets: a regular file, not too long, that only who runs this program
    /// (root) can read or write. Zeroed when they are dropped.
    ///
    /// # Errors
    /// `Installed` (5) if it is not there; `Arguments` (2), with what to do, if it is not private.
    pub fn read_private(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let shown = path.display();
        let cannot = |error| Fault::generic(format!("cannot read {shown}: {error}"));
        // Without waiting: a FIFO would hold up the open until somebody writes to it.
        let flags = OFlag::O_NONBLOCK.bits();
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(self.full(path));
        let file = match opened {
            Ok(file) => file,
            Err(error) if is_absent(&error) => {
                return Err(Fault::new(Rc::Installed, format!("{shown} is not there")));
            }
            Err(error) => return Err(cannot(error)),
        };
        // The open file is looked at, not the path, which may lead to another one by now.
        let facts = file.metadata().map_err(cannot)?;
        check_private(facts.is_file(), facts.uid(), facts.mode(), path)
            .map_err(|wrong| Fault::new(Rc::Arguments, wrong))?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(PRIVATE_SIZE + 1));
        file.take(PRIVATE_SIZE as u64 + 1).read_to_end(&mut bytes).map_err(cannot)?;
        if bytes.len() > PRIVATE_SIZE {
            let wrong = format!("{shown} is longer than {PRIVATE_SIZE} bytes");
            return Err(Fault::new(Rc::Arguments, wrong));
        }
        Ok(bytes)
    }
}

/// Says why a file of secrets is not private, and what to do.
fn check_private(is_file: bool, owner: u32, mode: u32, path: &Path) -> Result<(), String> {
    let shown = path.display();
    let (mode, own) = (mode & 0o7777, Uid::effective().as_raw());
    if !is_file {
        return Err(format!("{shown} is not a regular file"));
    }
    if owner != own {
        return Err(format!("{shown} belongs to uid {owner}, not {own}: chown {own} {shown}"));
    }
    if mode & 0o077 != 0 {
        return Err(format!("{shown} has mode {mode:04o}, open to others: chmod 600 {shown}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_private_file_is_regular_and_ours_and_closed_to_others() {
        let own = Uid::effective().as_raw();
        let path = Path::new("/etc/x");
        assert_eq!(check_private(true, own, 0o100_600, path), Ok(()));
        for (is_file, owner, mode, want) in [
            (false, own, 0o600, "/etc/x is not a regular file".to_string()),
            (true, own + 1, 0o600, format!("not {own}: chown {own} /etc/x")),
            (true, own, 0o100_640, "has mode 0640, open to others: chmod 600 /etc/x".to_string()),
        ] {
            let wrong = check_private(is_file, owner, mode, path).unwrap_err();
            assert!(wrong.contains(&want), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_private_file_is_refused_without_waiting_for_it() {
        let root = std::env::temp_dir().join(format!("hasan-private-{}", std::process::id()));
        fs::create_dir_all(root.join("folder")).unwrap();
        nix::unistd::mkfifo(&root.join("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        let machine = Machine::recorded(&root);
        for (path, rc) in [
            ("/absent", Rc::Installed),
            ("/folder", Rc::Arguments),
            ("/fifo", Rc::Arguments),
            ("/fifo/x", Rc::Installed),
        ] {
            let fault = machine.read_private(Path::new(path)).unwrap_err();
            assert_eq!(fault.rc, rc, "{fault:?}");
            assert!(fault.reason.starts_with(path), "{fault:?}");
        }
        fs::remove_dir_all(&root).unwrap();
    }
}
