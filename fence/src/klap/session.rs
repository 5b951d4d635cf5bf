//! The cryptography of KLAP, as python-kasa describes it: SHA-256, and AES-128 in CBC mode. It sends
//! and reads nothing. Both sides have to know e-mail and password of the account that owns the
//! device; what passes between them are hashes of these with two random seeds.

use crate::plug::Trouble;
use aes::Aes128;
use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use hasan::chap::Secret;
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// What each side contributes.
pub(crate) type Seed = [u8; 16];

/// Bytes before the cipher text that prove who wrote it.
const SIGNATURE: usize = 32;

/// Which hashes a device knows. It does not say, but its own proof shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// The account that owns the device.
pub(crate) struct Owner {
    user: String,
    password: Secret,
}

impl Owner {
    pub(crate) fn new(user: String, password: Secret) -> Owner {
        Owner { user, password }
    }

    /// Who knows this needs no password.
    fn hash(&self, version: Version) -> Zeroizing<Vec<u8>> {
        let (user, password) = (self.user.as_bytes(), self.password.expose().as_bytes());
        Zeroizing::new(match version {
            Version::V1 => {
                Md5::digest([Md5::digest(user), Md5::digest(password)].concat()).to_vec()
            }
            Version::V2 => {
                Sha256::digest([Sha1::digest(user), Sha1::digest(password)].concat()).to_vec()
            }
        })
    }
}

/// What both sides know when the device has proven that it knows the account.
pub(crate) struct Handshake {
    version: Version,
    local: Seed,
    remote: Seed,
    owner: Zeroizing<Vec<u8>>,
}

impl Handshake {
    /// Reads the device's answer to our seed: its own seed, and its proof. Nothing that is made of
    /// the password is sent to a device without that proof.
    ///
    /// # Errors
    /// If it is no such answer, or the device is of another account.
    pub(crate) fn of(owner: &Owner, local: Seed, answer: &[u8]) -> Result<Handshake, Trouble> {
        let strange = || Trouble::Passing("its handshake is not that of KLAP".to_string());
        let (remote, proof) = answer.split_first_chunk().ok_or_else(strange)?;
        if proof.len() != SIGNATURE {
            return Err(strange());
        }
        for version in [Version::V2, Version::V1] {
            let owner = owner.hash(version);
            let handshake = Handshake { version, local, remote: *remote, owner };
            if handshake.expected() == proof {
                return Ok(handshake);
            }
        }
        Err(Trouble::Refused(
            "the user or password is rejected: the device is of another account".to_string(),
        ))
    }

    /// The proof of a device that knows the account.
    fn expected(&self) -> [u8; SIGNATURE] {
        match self.version {
            Version::V1 => sha256(&[&self.local, &self.owner]),
            Version::V2 => sha256(&[&self.local, &self.remote, &self.owner]),
        }
    }

    /// Our own proof.
    pub(crate) fn proof(&self) -> [u8; SIGNATURE] {
        match self.version {
            Version::V1 => sha256(&[&self.remote, &self.owner]),
            Version::V2 => sha256(&[&self.remote, &self.local, &self.owner]),
        }
    }

    /// The keys that follow from it.
    pub(crate) fn session(&self) -> Session {
        let derived =
            |label: &[u8]| Zeroizing::new(sha256(&[label, &self.local, &self.remote, &self.owner]));
        let (key, signer, vector) = (derived(b"lsk"), derived(b"ldk"), derived(b"iv"));
        let [.., a, b, c, d] = *vector;
        Session {
            key: Zeroizing::new(key[..16].to_vec()),
            signer: Zeroizing::new(signer[..28].to_vec()),
            vector: Zeroizing::new(vector[..12].to_vec()),
            number: i32::from_be_bytes([a, b, c, d]),
        }
    }
}

/// A conversation: each request has the next number, and its answer the same.
pub(crate) struct Session {
    key: Zeroizing<Vec<u8>>,
    signer: Zeroizing<Vec<u8>>,
    vector: Zeroizing<Vec<u8>>,
    number: i32,
}

impl Session {
    /// Encrypts and signs the next request.
    ///
    /// # Errors
    /// Never: the lengths of key and vector are what AES needs.
    pub(crate) fn seal(&mut self, text: &str) -> Result<(i32, Vec<u8>), Trouble> {
        self.number = self.number.wrapping_add(1);
        let cipher = cbc::Encryptor::<Aes128>::new_from_slices(&self.key, &self.vector());
        let cipher = cipher.map_err(|_| no_cipher())?;
        let sealed = cipher.encrypt_padded_vec::<Pkcs7>(text.as_bytes());
        Ok((self.number, [self.signature(&sealed).as_slice(), &sealed].concat()))
    }

    /// Decrypts the answer to the last request. One to an earlier request, or of somebody else, is
    /// signed otherwise.
    ///
    /// # Errors
    /// If the device has not written it.
    pub(crate) fn open(&self, answer: &[u8]) -> Result<String, Trouble> {
        let strange = |what: &str| Trouble::Passing(format!("its answer {what}"));
        let (signature, sealed) =
            answer.split_at_checked(SIGNATURE).ok_or_else(|| strange("is not that of KLAP"))?;
        if signature != self.signature(sealed) {
            return Err(strange("is not signed by it for this request"));
        }
        let cipher = cbc::Decryptor::<Aes128>::new_from_slices(&self.key, &self.vector());
        let cipher = cipher.map_err(|_| no_cipher())?;
        let text = cipher.decrypt_padded_vec::<Pkcs7>(sealed);
        let text = text.map_err(|_| strange("cannot be decrypted"))?;
        String::from_utf8(text).map_err(|_| strange("is not text"))
    }

    fn vector(&self) -> Vec<u8> {
        [self.vector.as_slice(), &self.number.to_be_bytes()].concat()
    }

    fn signature(&self, sealed: &[u8]) -> [u8; SIGNATURE] {
        sha256(&[&self.signer, &self.number.to_be_bytes(), sealed])
    }
}

fn no_cipher() -> Trouble {
    Trouble::Lasting("its session has keys of a wrong length".to_string())
}

fn sha256(parts: &[&[u8]]) -> [u8; SIGNATURE] {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part);
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reckoned by Python's hashlib and cryptography from the description: seeds 0 to 15 and 240 to
    /// 255, and per version the device's proof, ours, the number before the first request, the first
    /// request and the second answer.
    struct Vector {
        expected: &'static str,
        proof: &'static str,
        number: i32,
        request: &'static str,
        answer: &'static str,
    }

    const V1: Vector = Vector {
        expected: "23d413eec6798f4612b8ab0409f4cf1071e764a9babf085552f90e70e6feef16",
        proof: "e901358d10d704d19e8337205c5907c2c0672abf6affceae135e3112661ae8d6",
        number: 1_620_599_823,
        request: "dfcd84745dc2024863f9ce1093c771ae295edda4c236b3603e71bc8a2f94eb2b\
                  d687769f21fe16152538490674d739c8d755d4e64d0625a02ff6d2e617f317d8",
        answer: "797048256fca3a9276deaf10c1d971f6b243cf08f6c464c149ba8c4b5e41d987\
                 5192cabb308ab8b9286a6f04d5de2103a3fc2258c31d20aa1a4251f06e4e0378",
    };
    const V2: Vector = Vector {
        expected: "92cabb640054b5e62c7393016038579ad756ab4eae99bea09f8304c9f30b05c6",
        proof: "3ade0ef43d0ef9b3b84123496cd83d616e164f52bb6213073138d40d3ed57eb8",
        number: 999_901_768,
        request: "972e3450c7329c596abe4c5e2f849496007b00509b7f406873c9f8402879df6a\
                  516dbe7f51947a32c02ef9c70e797ad044770fafcf2eaf69aa894ac5537600b6",
        answer: "0484ebc03b3df70865aa10a06447bdd8538c77f1e455d95e674302528b45de5b\
                 2002b58f10713a5409eca5ef7479d7d42d49a36cb59deedd42f5eba58eb89869",
    };

    fn owner() -> Owner {
        Owner::new("me@example.org".to_string(), Secret::new("hush-ö".to_string()))
    }

    fn seeds() -> (Seed, Seed) {
        let number = |at: usize| u8::try_from(at).unwrap();
        (std::array::from_fn(number), std::array::from_fn(|at| 240 + number(at)))
    }

    fn bytes(digits: &str) -> Vec<u8> {
        let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        (0..digits.len()).step_by(2).map(byte).collect()
    }

    fn handshake(vector: &Vector) -> Result<Handshake, Trouble> {
        let (local, remote) = seeds();
        Handshake::of(&owner(), local, &[remote.as_slice(), &bytes(vector.expected)].concat())
    }

    #[test]
    fn both_versions_are_as_others_reckon_them() {
        for vector in [V1, V2] {
            let handshake = handshake(&vector).ok().unwrap();
            assert_eq!(handshake.proof().as_slice(), bytes(vector.proof));
            let mut session = handshake.session();
            assert_eq!(session.number, vector.number);
            let request = session.seal(r#"{"method":"get_device_info"}"#).unwrap();
            assert_eq!(request, (vector.number + 1, bytes(vector.request)));
            session.seal("{}").unwrap();
            let answer = session.open(&bytes(vector.answer));
            assert_eq!(answer.as_deref(), Ok(r#"{"error_code":0}"#));
        }
    }

    #[test]
    fn a_device_of_another_account_is_refused_and_what_is_no_proof_is_strange() {
        let (local, remote) = seeds();
        let other = Owner::new("me@example.org".to_string(), Secret::new("hush-o".to_string()));
        for vector in [V1, V2] {
            let answer = [remote.as_slice(), &bytes(vector.expected)].concat();
            let trouble = Handshake::of(&other, local, &answer).err().unwrap();
            assert!(matches!(trouble, Trouble::Refused(_)), "{}", trouble.text());
            // The proof belongs to the seed that was sent.
            let trouble = Handshake::of(&owner(), remote, &answer).err().unwrap();
            assert!(matches!(trouble, Trouble::Refused(_)), "{}", trouble.text());
            for length in [0, 15, 16, 47] {
                let trouble = Handshake::of(&owner(), local, &answer[..length]).err().unwrap();
                assert!(matches!(trouble, Trouble::Passing(_)), "{length}: {}", trouble.text());
            }
            let longer = [answer.as_slice(), &[0]].concat();
            assert!(Handshake::of(&owner(), local, &longer).is_err());
        }
    }

    #[test]
    fn an_answer_is_of_this_device_and_to_this_request() {
        let mut session = handshake(&V2).ok().unwrap().session();
        let answer = bytes(V2.answer);
        session.seal("{}").unwrap();
        assert!(session.open(&answer).is_err(), "to the next request");
        session.seal("{}").unwrap();
        assert!(session.open(&answer).is_ok());
        for at in [0, 31, 32, answer.len() - 1] {
            let mut changed = answer.clone();
            changed[at] ^= 1;
            assert!(session.open(&changed).is_err(), "byte {at}");
        }
        for length in [0, 16, 31, 32, 47, 48] {
            assert!(session.open(&answer[..length]).is_err(), "{length} bytes");
        }
        assert!(session.open(&bytes(V1.answer)).is_err(), "of another session");
        session.seal("{}").unwrap();
        assert!(session.open(&answer).is_err(), "to an earlier request");
    }

    #[test]
    fn what_is_signed_and_cannot_be_read_is_no_answer() {
        let mut session = handshake(&V2).ok().unwrap().session();
        let (_, request) = session.seal("x").unwrap();
        assert_eq!(session.open(&request).as_deref(), Ok("x"));
        for sealed in [&[][..], &[7; 15], &[7; 16]] {
            let answer = [session.signature(sealed).as_slice(), sealed].concat();
            let trouble = session.open(&answer).unwrap_err();
            assert_eq!(trouble.text(), "its answer cannot be decrypted");
        }
    }

    #[test]
    fn the_number_goes_round() {
        let mut session = handshake(&V2).ok().unwrap().session();
        session.number = i32::MAX;
        assert_eq!(session.seal("x").unwrap().0, i32::MIN);
    }
}
