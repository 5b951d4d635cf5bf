//! A device on 127.0.0.1 that behaves as badly as it is told, in any family's protocol.

use super::klap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What is wrong with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Nobody listens at its port.
    Refuses,
    /// It takes a request and says nothing.
    Silent,
    /// It says one byte now and then, and never ends.
    Drips,
    /// It closes in the middle of an answer.
    CutsOff,
    /// It closes without an answer.
    Closes,
    /// It answers with this HTTP status.
    Status(u16),
    /// It answers with this body, whatever it is asked.
    Body(&'static str),
    /// It answers with bytes that are no text.
    NotText,
    /// It answers with megabytes.
    Huge,
    /// It answers this when it is asked for its state; all else is well, and the relay stays on.
    State(&'static str),
    /// It takes every command, and the relay stays on.
    StaysOn,
    /// The relay comes on again after it was read to be off.
    ComesBack,
    /// It reports a timer that will switch on.
    Timer,
    /// It measures a load although it says that it is off.
    Load,
    /// It says nothing to the first request only.
    SilentOnce,
    /// It answers 503 to the first request only.
    BusyOnce,
    /// It makes a mistake of KLAP's; its relay stays on.
    Klap(klap::Wrong),
}

/// A request as the device sees it.
#[derive(Default)]
pub(crate) struct Request {
    /// Verb and path of HTTP, or the JSON of Kasa.
    pub(crate) line: String,
    /// The body of HTTP, where it is text.
    pub(crate) body: String,
    /// The header `Authorization`, or `Token`.
    pub(crate) authorization: Option<String>,
    /// The header `Cookie`.
    pub(crate) cookie: String,
    /// The body as it came.
    pub(crate) bytes: Vec<u8>,
}

/// What happened in a device.
#[derive(Default)]
pub(crate) struct Relay {
    /// The truth.
    pub(crate) is_on: bool,
    /// All commands to the relay, `on` and `off`.
    pub(crate) commands: Vec<&'static str>,
    /// How often credentials were shown.
    pub(crate) credentials: usize,
    /// How many requests came.
    pub(crate) requests: usize,
    /// How often the state was told to be off.
    told_off: usize,
    /// Its session of KLAP.
    pub(crate) klap: klap::State,
}

impl Relay {
    /// Takes a command, if the fault lets it.
    pub(crate) fn switch(&mut self, fault: Fault, is_on: bool) {
        self.commands.push(if is_on { "on" } else { "off" });
        let is_stuck = match fault {
            Fault::StaysOn | Fault::State(_) => true,
            Fault::Klap(wrong) => wrong != klap::Wrong::ForgetsOnce,
            _ => false,
        };
        if !is_stuck {
            self.is_on = is_on;
        }
    }

    /// What the device tells when it is asked for its state.
    pub(crate) fn tell(&mut self, fault: Fault) -> bool {
        if fault == Fault::ComesBack && self.told_off > 0 {
            self.is_on = true;
        }
        self.told_off += usize::from(!self.is_on);
        self.is_on
    }
}

/// The challenge of RFC 7616.
const DIGEST: &str =
    "WWW-Authenticate: Digest realm=\"plug\", nonce=\"5\", qop=\"auth\", algorithm=SHA-256\r\n";

/// How a family answers when all is well with the connection: status and body.
pub(crate) type Answer = fn(&mut Relay, Fault, &Request) -> (u16, String);

/// Which protocol carries the answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// HTTP.
    Http,
    /// HTTP, where a request without credentials gets a challenge (RFC 7616).
    HttpDigest,
    /// The framing and cipher of Kasa.
    Kasa,
    /// HTTP with KLAP.
    Klap(klap::Version),
}

/// A device that runs until it is dropped.
pub(crate) struct Device {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// What happens in it.
    pub(crate) relay: Arc<Mutex<Relay>>,
    has_ended: Arc<AtomicBool>,
    /// Holds a port at which nobody listens.
    _refusing: Option<TcpStream>,
}

impl Device {
    /// Starts a device whose relay is on.
    pub(crate) fn start(carrier: Carrier, answer: Answer, fault: Fault) -> Device {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut address = listener.local_addr().unwrap();
        let mut refusing = None;
        if fault == Fault::Refuses {
            // The port of a client is taken, and takes no connection.
            let client = TcpStream::connect(address).unwrap();
            address = client.local_addr().unwrap();
            refusing = Some(client);
        }
        let relay = Arc::new(Mutex::new(Relay { is_on: true, ..Relay::default() }));
        let has_ended = Arc::new(AtomicBool::new(false));
        let (inside, end) = (Arc::clone(&relay), Arc::clone(&has_ended));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let relay = Arc::clone(&inside);
                std::thread::spawn(move || serve(stream, carrier, answer, fault, &relay));
            }
        });
        Device { address, relay, has_ended, _refusing: refusing }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::SeqCst);
        // Wakes the listener up.
        let _ = TcpStream::connect(self.address);
    }
}

/// One connection, one request, one answer.
fn serve(
    mut stream: TcpStream,
    carrier: Carrier,
    answer: Answer,
    fault: Fault,
    relay: &Mutex<Relay>,
) {
    let Some(request) = request(&mut stream, carrier) else { return };
    let fault = {
        let mut relay = relay.lock().unwrap();
        relay.requests += 1;
        relay.credentials += usize::from(request.authorization.is_some());
        match fault {
            Fault::SilentOnce if relay.requests == 1 => Fault::Silent,
            Fault::BusyOnce if relay.requests == 1 => Fault::Status(503),
            other => other,
        }
    };
    let bytes = match carrier {
        Carrier::Klap(version) => {
            let (status, head, body) = match fault {
                Fault::Status(status) => (status, String::new(), Vec::new()),
                _ => {
                    let path = request.line.trim_start_matches("POST ");
                    let asked = (path, request.cookie.as_str(), request.bytes.as_slice());
                    klap::answer(version, answer, fault, asked, relay)
                }
            };
            http(carrier, status, &head, &body)
        }
        Carrier::Kasa => frame(&plain(&request, carrier, answer, fault, relay).1),
        Carrier::Http | Carrier::HttpDigest => {
            let (status, body) = plain(&request, carrier, answer, fault, relay);
            http(carrier, status, "", body.as_bytes())
        }
    };
    // A client that has gone is none of the device's business.
    let _ = send(&mut stream, carrier, fault, &bytes);
}

/// An answer where nothing is encrypted.
fn plain(
    request: &Request,
    carrier: Carrier,
    answer: Answer,
    fault: Fault,
    relay: &Mutex<Relay>,
) -> (u16, String) {
    let is_challenged = carrier == Carrier::HttpDigest && request.authorization.is_none();
    match fault {
        Fault::Status(status) => (status, "{}".to_string()),
        _ if is_challenged => (401, "{}".to_string()),
        Fault::Body(body) => (200, body.to_string()),
        _ => answer(&mut relay.lock().unwrap(), fault, request),
    }
}

fn send(
    stream: &mut TcpStream,
    carrier: Carrier,
    fault: Fault,
    bytes: &[u8],
) -> std::io::Result<()> {
    match fault {
        Fault::Silent => {
            // Ends when the client does.
            stream.read(&mut [0]).map(|_| ())
        }
        Fault::Drips => {
            stream.write_all(&bytes[..bytes.len() / 2])?;
            // The rest comes so slowly that no client waits for it.
            stream.set_read_timeout(Some(Duration::from_millis(50)))?;
            for byte in bytes[bytes.len() / 2..].iter().cycle().take(10_000) {
                stream.write_all(&[*byte])?;
                if stream.read(&mut [0]).is_ok_and(|count| count == 0) {
                    break;
                }
            }
            Ok(())
        }
        Fault::CutsOff => stream.write_all(&bytes[..bytes.len() - 3]),
        Fault::Closes => Ok(()),
        Fault::NotText => stream.write_all(&match carrier {
            // A frame of 0xff bytes deciphers to no UTF-8.
            Carrier::Kasa => [&[0, 0, 0, 9][..], &[0xff; 9]].concat(),
            _ => [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n".as_slice(), &[0xff; 9]].concat(),
        }),
        Fault::Huge => {
            stream.write_all(match carrier {
                Carrier::Kasa => &[0x7f, 0xff, 0xff, 0xff],
                _ => b"HTTP/1.1 200 OK\r\n\r\n",
            })?;
            (0..128).try_for_each(|_| stream.write_all(&[b' '; 64 * 1024]))
        }
        _ => stream.write_all(bytes),
    }
}

fn http(carrier: Carrier, status: u16, fields: &str, body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{fields}", body.len());
    match carrier {
        Carrier::HttpDigest if status == 401 => head.push_str(DIGEST),
        _ if status == 401 => head.push_str("WWW-Authenticate: Basic realm=\"plug\"\r\n"),
        _ => {}
    }
    if status == 302 {
        head.push_str("Location: /elsewhere\r\n");
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

/// The cipher of Kasa, written from its description: each byte is the key of the next.
fn frame(body: &str) -> Vec<u8> {
    let mut bytes = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    let mut key = 171;
    for byte in body.bytes() {
        key ^= byte;
        bytes.push(key);
    }
    bytes
}

fn request(stream: &mut TcpStream, carrier: Carrier) -> Option<Request> {
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    if carrier == Carrier::Kasa {
        let mut head = [0; 4];
        stream.read_exact(&mut head).ok()?;
        let mut body = vec![0; usize::try_from(u32::from_be_bytes(head)).ok()?.min(65_536)];
        stream.read_exact(&mut body).ok()?;
        let mut key = 171;
        for byte in &mut body {
            let cipher = *byte;
            *byte ^= key;
            key = cipher;
        }
        let line = String::from_utf8(body).ok()?;
        return Some(Request { line, ..Request::default() });
    }
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let field = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_string())
    };
    let length = field("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).ok()?;
    let line = head.lines().next()?.trim_end_matches(" HTTP/1.1").to_string();
    Some(Request {
        line,
        body: String::from_utf8(bytes.clone()).unwrap_or_default(),
        authorization: field("authorization").or(field("token")),
        cookie: field("cookie").unwrap_or_default(),
        bytes,
    })
}
