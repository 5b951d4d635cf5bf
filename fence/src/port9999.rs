//! The protocol of TCP port 9999: JSON under an XOR with itself, without a password. Described by
//! <https://github.com/softScheck/tplink-smartplug>.

use crate::address::{Limits, Place};
use crate::json;
use crate::plug::Trouble;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// The key of the first byte.
const KEY: u8 = 171;
/// An answer may be so long, bytes.
const LONGEST: usize = 64 * 1024;

/// A device that listens there.
pub(crate) struct Port9999 {
    place: Place,
    limits: Limits,
}

impl Port9999 {
    pub(crate) fn new(place: Place, limits: Limits) -> Port9999 {
        Port9999 { place, limits }
    }

    /// As messages name it.
    pub(crate) fn shown(&self) -> String {
        self.place.shown()
    }

    /// Sends a command.
    ///
    /// # Errors
    /// What is wrong with the connection or the answer.
    pub(crate) fn ask(&self, command: &Value, until: Instant) -> Result<Value, Trouble> {
        let end = self.limits.end(until)?;
        json::object(&exchange(&self.place, self.limits, &command.to_string(), end)?)
    }
}

/// One connection, one command, one answer: four bytes of length, big-endian, then the text.
fn exchange(place: &Place, limits: Limits, text: &str, end: Instant) -> Result<String, Trouble> {
    let mut stream = connect(place, limits, end)?;
    let lost = |what: &str| Trouble::Passing(what.to_string());
    let length = u32::try_from(text.len()).map_err(|_| lost("the command is too long"))?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend(encrypted(text.as_bytes()));
    stream.set_write_timeout(Some(left(end)?)).map_err(|_| lost("no time is left"))?;
    stream.write_all(&frame).map_err(|_| lost("it takes no command"))?;
    let mut head = [0; 4];
    read_exact(&mut stream, &mut head, end)?;
    let length = usize::try_from(u32::from_be_bytes(head)).unwrap_or(usize::MAX);
    if length > LONGEST {
        return Err(Trouble::Passing(format!("its answer is longer than {LONGEST} bytes")));
    }
    let mut body = vec![0; length];
    read_exact(&mut stream, &mut body, end)?;
    String::from_utf8(decrypted(&body)).map_err(|_| lost("its answer is not text"))
}

fn connect(place: &Place, limits: Limits, end: Instant) -> Result<TcpStream, Trouble> {
    let mut trouble = Trouble::Passing("it takes no connection".to_string());
    for address in place.resolve(limits.connect)? {
        match TcpStream::connect_timeout(&address, limits.connect.min(left(end)?)) {
            Ok(stream) => return Ok(stream),
            Err(error) => {
                trouble = Trouble::Passing(format!("it takes no connection: {error}"));
            }
        }
    }
    Err(trouble)
}

/// Fills the buffer; the time is looked at after each piece, so that a slow drip ends too.
fn read_exact(stream: &mut TcpStream, buffer: &mut [u8], end: Instant) -> Result<(), Trouble> {
    let mut at = 0;
    while at < buffer.len() {
        let time = left(end)?;
        stream.set_read_timeout(Some(time)).map_err(|_| late())?;
        match stream.read(&mut buffer[at..]) {
            Ok(0) => return Err(Trouble::Passing("its answer is cut off".to_string())),
            Ok(count) => at += count,
            Err(_) if Instant::now() >= end => return Err(late()),
            Err(error) => return Err(Trouble::Passing(format!("its answer is cut off: {error}"))),
        }
    }
    Ok(())
}

/// The time until then; never zero, which a socket takes for "for ever".
fn left(end: Instant) -> Result<Duration, Trouble> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(late()) } else { Ok(left) }
}

fn late() -> Trouble {
    Trouble::Passing("it does not answer in time".to_string())
}

fn encrypted(bytes: &[u8]) -> Vec<u8> {
    let mut key = KEY;
    let next = |byte: &u8| {
        key ^= byte;
        key
    };
    bytes.iter().map(next).collect()
}

fn decrypted(bytes: &[u8]) -> Vec<u8> {
    let mut key = KEY;
    let next = |byte: &u8| {
        let plain = key ^ byte;
        key = *byte;
        plain
    };
    bytes.iter().map(next).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cipher_goes_there_and_back() {
        // The known frame of {"system":{}}: 171 ^ '{' and so on.
        let frame = encrypted(b"{\"s");
        assert_eq!(frame, [0xd0, 0xf2, 0x81]);
        assert_eq!(decrypted(&frame), b"{\"s");
    }
}
