//! What systemd is told (sd_notify(3)): that the daemon is up, and that it lives. Without systemd there is nobody to tell.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The daemon runs.
pub(crate) const READY: &str = "READY=1";
/// A pass is done: the time of WatchdogSec= begins anew.
pub(crate) const ALIVE: &str = "WATCHDOG=1";

/// Tells systemd. A word that is lost is no harm: the next one follows in a second.
pub(crate) fn notify(word: &str) {
    let Some(place) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&place, word) {
        tracing::debug!("cannot tell systemd {word}: {error}");
    }
}

fn send(place: &OsStr, word: &str) -> io::Result<()> {
    let address = match place.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(place)?,
    };
    UnixDatagram::unbound()?.send_to_addr(word.as_bytes(), &address).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_arrives_at_a_path_and_at_an_abstract_name() {
        let path = std::env::temp_dir().join(format!("hasan-notify-{}", std::process::id()));
        let name = format!("@hasan-notify-{}", std::process::id());
        let at_path = UnixDatagram::bind(&path).unwrap();
        let address = SocketAddr::from_abstract_name(&name[1..]).unwrap();
        let at_name = UnixDatagram::bind_addr(&address).unwrap();
        for (socket, place) in [(at_path, path.as_os_str()), (at_name, OsStr::new(&name))] {
            send(place, READY).unwrap();
            let mut word = [0; 32];
            let length = socket.recv(&mut word).unwrap();
            assert_eq!(&word[..length], READY.as_bytes());
        }
        std::fs::remove_file(&path).unwrap();
        assert!(send(path.as_os_str(), READY).is_err());
    }
}
