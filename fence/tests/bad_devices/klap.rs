//! The device's side of KLAP, written from its description: which hashes, which keys, what is signed.

use super::device::{Answer, Fault, Relay, Request};
use aes::Aes128;
use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::sync::Mutex;

const USER: &str = "me@example.org";
const PASSWORD: &str = "hush";

/// Which hashes a device knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// MD5, of older firmware.
    V1,
    /// SHA-1 and SHA-256.
    V2,
}

/// What can be wrong with this way alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// The device proves that it knows the password, and the proof is of another seed.
    Proof,
    /// Its answer to the handshake is too short.
    ShortProof,
    /// Its answer to the handshake is too long.
    LongProof,
    /// It names no session.
    NoCookie,
    /// It takes no login.
    Login(u16),
    /// Each request is answered with this status.
    Status(u16),
    /// A request that switches is answered with 403; all others are well.
    ReadOnly,
    /// It has forgotten the session at the second request, once.
    ForgetsOnce,
    /// It answers as if nothing were encrypted.
    Plain,
    /// It answers without a signature.
    Unsigned,
    /// One bit of its answers is another one.
    Bit,
    /// It answers "off" with the signature of an earlier request.
    Replays,
    /// Its answers are signed, and are no whole blocks.
    Blocks,
    /// Its answers are signed, and end in no padding.
    Padding,
    /// Its answers are signed, and are no text.
    NotText,
    /// It signs with the keys of another session.
    OtherSession,
}

/// All that end in a failure.
pub(crate) const ALL: &[(&str, Wrong)] = &[
    ("the proof of another seed", Wrong::Proof),
    ("a short handshake", Wrong::ShortProof),
    ("a long handshake", Wrong::LongProof),
    ("no session", Wrong::NoCookie),
    ("403 to the login", Wrong::Login(403)),
    ("500 to the login", Wrong::Login(500)),
    ("403 to every request", Wrong::Status(403)),
    ("500 to every request", Wrong::Status(500)),
    ("nothing is encrypted", Wrong::Plain),
    ("no signature", Wrong::Unsigned),
    ("a bit", Wrong::Bit),
    ("an old answer", Wrong::Replays),
    ("no whole blocks", Wrong::Blocks),
    ("no padding", Wrong::Padding),
    ("no text under the cipher", Wrong::NotText),
    ("another session", Wrong::OtherSession),
];

/// The one session of a device.
#[derive(Default)]
pub(crate) struct State {
    seeds: Option<(Vec<u8>, Vec<u8>)>,
    is_open: bool,
    /// The number of the last request.
    number: i32,
    /// How many requests it has had.
    requests: usize,
    /// How often a handshake was begun.
    pub(crate) handshakes: usize,
}

/// What goes back: status, what stands in the header, body.
pub(crate) type Reply = (u16, String, Vec<u8>);

/// Answers a request for this path with this body.
pub(crate) fn answer(
    version: Version,
    family: Answer,
    fault: Fault,
    (path, cookie, body): (&str, &str, &[u8]),
    relay: &Mutex<Relay>,
) -> Reply {
    let mut relay = relay.lock().unwrap();
    let has_session = cookie == "TP_SESSIONID=AB12";
    match path {
        "/app/handshake1" => handshake(version, fault, body, &mut relay.klap),
        "/app/handshake2" if has_session => {
            relay.credentials += 1;
            login(version, fault, body, &mut relay.klap)
        }
        _ if has_session && relay.klap.is_open => {
            let number = path.strip_prefix("/app/request?seq=").and_then(|text| text.parse().ok());
            request(version, family, fault, number.unwrap_or_default(), body, &mut relay)
        }
        _ => empty(403),
    }
}

fn empty(status: u16) -> Reply {
    (status, String::new(), Vec::new())
}

fn handshake(version: Version, fault: Fault, local: &[u8], state: &mut State) -> Reply {
    if local.len() != 16 {
        return empty(400);
    }
    state.handshakes += 1;
    let remote: Vec<u8> = (0..16).map(|at| at * 7 + 3).collect();
    let seen = if fault == Fault::Klap(Wrong::Proof) { &remote } else { local };
    let owner = owner(version);
    let proof = match version {
        Version::V1 => sha256(&[seen, &owner]),
        Version::V2 => sha256(&[seen, &remote, &owner]),
    };
    let mut body = [remote.as_slice(), &proof].concat();
    match fault {
        Fault::Klap(Wrong::ShortProof) => body.truncate(47),
        Fault::Klap(Wrong::LongProof) => body.push(0),
        _ => {}
    }
    *state = State {
        seeds: Some((local.to_vec(), remote)),
        handshakes: state.handshakes,
        requests: state.requests,
        ..State::default()
    };
    let cookie = match fault {
        Fault::Klap(Wrong::NoCookie) => "",
        _ => "Set-Cookie: TP_SESSIONID=AB12;TIMEOUT=86400\r\n",
    };
    (200, cookie.to_string(), body)
}

fn login(version: Version, fault: Fault, proof: &[u8], state: &mut State) -> Reply {
    if let Fault::Klap(Wrong::Login(status)) = fault {
        return empty(status);
    }
    let Some((local, remote)) = &state.seeds else { return empty(403) };
    let owner = owner(version);
    let want = match version {
        Version::V1 => sha256(&[remote, &owner]),
        Version::V2 => sha256(&[remote, local, &owner]),
    };
    if proof != want {
        return empty(403);
    }
    let full = sha256(&[b"iv", local, remote, &owner]);
    state.number = i32::from_be_bytes(full[28..].try_into().unwrap());
    state.is_open = true;
    empty(200)
}

fn request(
    version: Version,
    family: Answer,
    fault: Fault,
    number: i32,
    body: &[u8],
    relay: &mut Relay,
) -> Reply {
    relay.klap.requests += 1;
    match fault {
        Fault::Klap(Wrong::Status(status)) => return empty(status),
        Fault::Klap(Wrong::ForgetsOnce) if relay.klap.requests == 2 => {
            relay.klap.is_open = false;
            return empty(403);
        }
        _ => {}
    }
    let keys = Keys::of(version, &relay.klap, number);
    let is_next = number == relay.klap.number.wrapping_add(1);
    let text = keys.opened(body).filter(|_| is_next);
    let Some(text) = text else { return empty(400) };
    relay.klap.number = number;
    let is_command = text.contains("set_device_info") || text.contains("set_relay_state");
    if fault == Fault::Klap(Wrong::ReadOnly) && is_command {
        return empty(403);
    }
    let request = Request { line: text, ..Request::default() };
    let (status, told) = match fault {
        Fault::Body(body) => (200, body.to_string()),
        _ => family(relay, fault, &request),
    };
    (status, String::new(), sealed(&keys, version, fault, &told, relay))
}

/// The answer, and what may be wrong with it.
fn sealed(keys: &Keys, version: Version, fault: Fault, told: &str, relay: &Relay) -> Vec<u8> {
    let Fault::Klap(wrong) = fault else { return keys.sealed(told.as_bytes()) };
    // The relay is on all the time, and who believes these answers takes it for off.
    let told = told.replace("\"device_on\":true", "\"device_on\":false");
    let told = told.replace("\"state\":1", "\"state\":0").replace("85200", "0");
    let told = told.as_bytes();
    match wrong {
        Wrong::Plain => told.to_vec(),
        Wrong::Unsigned => [&[0; 32][..], &keys.sealed(told)[32..]].concat(),
        Wrong::Bit => {
            let mut answer = keys.sealed(told);
            answer[5] ^= 1;
            answer
        }
        Wrong::Replays => {
            let earlier = relay.klap.number.wrapping_sub(1);
            Keys::of(version, &relay.klap, earlier).sealed(told)
        }
        Wrong::Blocks => keys.signed(&[9; 21]),
        Wrong::Padding => keys.signed(&[9; 32]),
        Wrong::NotText => keys.sealed(&[0xff; 9]),
        Wrong::OtherSession => {
            let seeds = Some((vec![1; 16], vec![2; 16]));
            let other = State { seeds, ..State::default() };
            Keys::of(version, &other, relay.klap.number).sealed(told)
        }
        _ => keys.sealed(told),
    }
}

/// What encrypts and signs one request and its answer.
struct Keys {
    key: Vec<u8>,
    vector: Vec<u8>,
    signer: Vec<u8>,
}

impl Keys {
    fn of(version: Version, state: &State, number: i32) -> Keys {
        let (local, remote) = state.seeds.clone().unwrap_or_default();
        let owner = owner(version);
        let derived = |label: &[u8]| sha256(&[label, &local, &remote, &owner]);
        let number = number.to_be_bytes();
        Keys {
            key: derived(b"lsk")[..16].to_vec(),
            vector: [&derived(b"iv")[..12], &number].concat(),
            signer: [&derived(b"ldk")[..28], &number].concat(),
        }
    }

    fn signed(&self, cipher: &[u8]) -> Vec<u8> {
        [sha256(&[&self.signer, cipher]).as_slice(), cipher].concat()
    }

    fn sealed(&self, text: &[u8]) -> Vec<u8> {
        let cipher = cbc::Encryptor::<Aes128>::new_from_slices(&self.key, &self.vector).unwrap();
        self.signed(&cipher.encrypt_padded_vec::<Pkcs7>(text))
    }

    fn opened(&self, body: &[u8]) -> Option<String> {
        let cipher = body.get(32..)?;
        if self.signed(cipher) != body {
            return None;
        }
        let decryptor = cbc::Decryptor::<Aes128>::new_from_slices(&self.key, &self.vector).ok()?;
        String::from_utf8(decryptor.decrypt_padded_vec::<Pkcs7>(cipher).ok()?).ok()
    }
}

fn owner(version: Version) -> Vec<u8> {
    match version {
        Version::V1 => Md5::digest([Md5::digest(USER), Md5::digest(PASSWORD)].concat()).to_vec(),
        Version::V2 => sha256(&[&Sha1::digest(USER), &Sha1::digest(PASSWORD)]),
    }
}

fn sha256(parts: &[&[u8]]) -> Vec<u8> {
    Sha256::digest(parts.concat()).to_vec()
}
