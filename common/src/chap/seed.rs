//! The file that ha-san-ansible leaves on its nodes, `/root/.iscsi-chap.env.enc`
//! (`roles/services/tasks/main.yml`): `openssl enc -aes-256-cbc -pbkdf2 -salt` of a text that has
//! had two forms. Both know an initiator by `TPG:IQN` and a whole portal group by `TPG`, where TPG
//! is the group's tag: the place of its VLAN among those with iSCSI, counted from one.

use super::json::{document, login, missing, none_left, object};
use super::{Credentials, Secret, Secrets, check};
use crate::names;
use aes::Aes256;
use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockModeDecrypt, KeyIvInit};
use sha2::Sha256;
use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// How every file of `openssl enc -salt` begins.
pub(super) const SALTED: &[u8] = b"Salted__";
/// Bytes of the salt, which comes next.
const SALT: usize = 8;
/// Bytes of one block of AES.
const BLOCK: usize = 16;
/// Bytes of the key of AES-256. What is derived from the passphrase is the key, then the first block.
const KEY: usize = 32;
/// Rounds that `openssl enc -pbkdf2` does (openssl-enc(1), `-iter`).
const ROUNDS: u32 = 10_000;

/// Undoes `openssl enc -aes-256-cbc -pbkdf2 -salt`. Nothing in the file proves that the passphrase
/// is right; a wrong one leaves bytes that end in no padding, or are no text.
pub(super) fn decrypt(bytes: &[u8], passphrase: &str) -> Result<Zeroizing<String>, String> {
    let rest = bytes.strip_prefix(SALTED).unwrap_or_default();
    let (salt, body) = rest.split_at_checked(SALT).unwrap_or_default();
    if body.is_empty() || !body.len().is_multiple_of(BLOCK) {
        return Err("the file is cut off".to_string());
    }
    let mut derived = Zeroizing::new([0; KEY + BLOCK]);
    pbkdf2::pbkdf2_hmac::<Sha256>(passphrase.as_bytes(), salt, ROUNDS, derived.as_mut());
    let (key, first) = derived.split_at(KEY);
    let cipher = cbc::Decryptor::<Aes256>::new_from_slices(key, first)
        .expect("the key has 32 bytes and the block 16");
    let mut buffer = Zeroizing::new(body.to_vec());
    let plain = cipher.decrypt_padded::<Pkcs7>(&mut buffer).unwrap_or_default();
    match std::str::from_utf8(plain) {
        Ok(text) if !text.is_empty() => Ok(Zeroizing::new(text.to_string())),
        _ => Err("it cannot be decrypted: it is damaged, or of another machine-id".to_string()),
    }
}

/// The decrypted text: what it has for one portal group. The entries of the others are checked too.
pub(super) fn parse(text: &str, tpg: u64) -> Result<Secrets, String> {
    let is_json = text.trim_start().starts_with('{');
    let logins = if is_json { from_json(text)? } else { from_shell(text)? };
    let mut secrets = Secrets { everyone: None, initiators: BTreeMap::new() };
    for (key, login) in logins.initiators {
        let (group, iqn) = key.split_once(':').unwrap_or_default();
        names::iqn(iqn).map_err(|wrong| format!("the entry {key:?}: {iqn:?} {wrong}"))?;
        if tag(group, &key)? == tpg {
            secrets.initiators.insert(iqn.to_string(), credentials(login));
        }
    }
    for (key, login) in logins.groups {
        if tag(&key, &key)? == tpg {
            secrets.everyone = Some(credentials(login));
        }
    }
    if secrets.everyone.is_none() && secrets.initiators.is_empty() {
        return Err(format!("it names nobody for the portal group {tpg}"));
    }
    Ok(secrets)
}

/// Names and passwords as the file has them.
struct Logins {
    /// By `TPG:IQN`.
    initiators: BTreeMap<String, (String, Secret)>,
    /// By `TPG`.
    groups: BTreeMap<String, (String, Secret)>,
}

fn tag(text: &str, key: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("the entry {key:?} does not begin with a portal group's tag"))
}

fn credentials((user, password): (String, Secret)) -> Credentials {
    Credentials { user, password, mutual: None }
}

/// The form that `iscsi-config-manager.py` reads: `{"per_initiator": {"1:IQN": {"user": …, "pass":
/// …}}, "per_tpg": {"1": {"user": …, "pass": …}}}`.
fn from_json(text: &str) -> Result<Logins, String> {
    let mut keys = document(text)?;
    let mut table = |name: &str| {
        let mut logins = BTreeMap::new();
        let Some(value) = keys.remove(name) else { return Ok(logins) };
        for (key, value) in object(value, &format!("the key {name:?}"))? {
            let of = format!(" of {key:?}");
            let mut keys = object(value, &format!("the entry {key:?}"))?;
            let own = login(&mut keys, ["user", "pass"], &of)?;
            none_left(&keys, &of)?;
            logins.insert(key, own.ok_or_else(|| missing("user", &of))?);
        }
        Ok::<_, String>(logins)
    };
    let logins = Logins { initiators: table("per_initiator")?, groups: table("per_tpg")? };
    none_left(&keys, "")?;
    Ok(logins)
}

/// The arrays of the shell form: users and passwords of initiators, then of portal groups.
const ARRAYS: [&str; 4] = ["CHAP_USER", "CHAP_PASS", "TPG_CHAP_USER", "TPG_CHAP_PASS"];

/// The form that bash evaluated (`iscsi-chap-credentials.env.j2`): assignments to elements of four
/// associative arrays, `declare -A`, and comment lines. An error names the line only: a line that is
/// not understood may be the rest of a password.
fn from_shell(text: &str) -> Result<Logins, String> {
    let mut arrays: [BTreeMap<String, Secret>; 4] = Default::default();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') || is_declaration(line) {
            continue;
        }
        let at = at + 1;
        let (array, key, value) =
            assignment(line).map_err(|wrong| format!("line {at}: {wrong}"))?;
        check(value.expose()).map_err(|wrong| format!("line {at}: the value {wrong}"))?;
        if arrays[array].insert(key, value).is_some() {
            return Err(format!("line {at}: this entry stands here a second time"));
        }
    }
    let [users, passwords, group_users, group_passwords] = arrays;
    Ok(Logins {
        initiators: pairs(users, passwords, [ARRAYS[0], ARRAYS[1]])?,
        groups: pairs(group_users, group_passwords, [ARRAYS[2], ARRAYS[3]])?,
    })
}

fn is_declaration(line: &str) -> bool {
    let mut words = line.split_whitespace();
    words.next() == Some("declare")
        && words.next() == Some("-A")
        && words.all(|word| ARRAYS.contains(&word))
}

/// `ARRAY["KEY"]="VALUE"`, and perhaps a comment: the array's place, the key and the value.
fn assignment(line: &str) -> Result<(usize, String, Secret), &'static str> {
    const OTHER: &str = "this is no entry of CHAP_USER, CHAP_PASS, TPG_CHAP_USER, TPG_CHAP_PASS";
    let (name, rest) = line.split_once('[').ok_or(OTHER)?;
    let array = ARRAYS.iter().position(|array| *array == name).ok_or(OTHER)?;
    let (key, rest) = word(rest)?;
    let (value, rest) = word(rest.strip_prefix("]=").ok_or(OTHER)?)?;
    let comment = rest.trim_start();
    if !comment.is_empty() && (comment == rest || !comment.starts_with('#')) {
        return Err("something stands behind the value");
    }
    Ok((array, key.expose().to_string(), value))
}

/// The first word of a text and what follows it, by the shell's rules of quoting (POSIX.1-2024,
/// Shell Command Language, section 2.2). What a shell would replace is an error, not taken as it is.
fn word(text: &str) -> Result<(Secret, &str), &'static str> {
    if let Some(rest) = text.strip_prefix('"') {
        return double_quoted(rest);
    }
    let (word, rest) = match text.strip_prefix('\'') {
        Some(rest) => rest.split_once('\'').ok_or("a quote is not closed")?,
        None => {
            let plain = |c: char| c.is_ascii_alphanumeric() || "_-+=.,:/@%".contains(c);
            text.split_at(text.find(|c| !plain(c)).unwrap_or(text.len()))
        }
    };
    Ok((Secret::new(word.to_string()), rest))
}

fn double_quoted(text: &str) -> Result<(Secret, &str), &'static str> {
    // As long as the text from the start: a text that grows is moved, and leaves a copy behind.
    let mut word = Zeroizing::new(String::with_capacity(text.len()));
    let mut rest = text.chars();
    loop {
        match rest.next() {
            None => return Err("a quote is not closed"),
            Some('"') => return Ok((Secret(word), rest.as_str())),
            Some('$' | '`') => return Err("a shell would replace something in the value"),
            // Before any other character a backslash stands for itself.
            Some('\\') if rest.as_str().starts_with(['"', '\\', '$', '`']) => {
                word.extend(rest.next());
            }
            Some(c) => word.push(c),
        }
    }
}

/// Joins users and passwords by their keys.
fn pairs(
    users: BTreeMap<String, Secret>,
    mut passwords: BTreeMap<String, Secret>,
    names: [&str; 2],
) -> Result<BTreeMap<String, (String, Secret)>, String> {
    let mut logins = BTreeMap::new();
    for (key, user) in users {
        let password =
            passwords.remove(&key).ok_or_else(|| format!("{}[{key:?}] is missing", names[1]))?;
        logins.insert(key, (user.expose().to_string(), password));
    }
    match passwords.keys().next() {
        Some(key) => Err(format!("{}[{key:?}] is missing", names[0])),
        None => Ok(logins),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What OpenSSL 3.0 made of [`TEXT`], with [`ID`] in a file: `openssl enc -aes-256-cbc -pbkdf2
    /// -salt -pass file:machine-id`.
    const FILE: &str = "\
        53616c7465645f5f9d3f0babc5356d55050f28118d65cb629fc112c3d5f94acc03fc3c804b4e7e244c3a\
        ca1c01c9f8a2f9d2cfb3a72c752f16541a041e00bca773e75e0a90c9a26b1eded4c963cd93399d9ba67d\
        db30a0388a8021292ed0c3e10b8ab2a7363b1d1bdd39683550882958b23398770faffa9dcdff1b0b37b5\
        156d73f35c5f38d29d2b7d87a8aacdb8fc593ec90d7d9aabf78c3f092a01a8292e623115b479bfd218d4\
        e1d49f7d190a6002c41e8cba2776e2b6fa66f1baf3c86e12923f3ba6cc8d05d64d83fa3ca8e26c122a3c\
        da85261d7e302b6cb0fa69ba80860b0f6a586279aac0251e98ec4720cd859fb786832b55c8fd56606af9\
        88771c6180e2aed26632dca89befb99b262a904b348aa1dc3094c7d9396b56639b00ab2d2feb8c8dbcc7\
        c889e98ecd4ed6fb96074a035a3be34def72f44a261788f10807f29906430a55fa5dfb5c8ad35b228bfa\
        85b9c0f6ffd75936b35ff6b3703e5275169746afc68ccb3262059e3b880c3474d9a2e6fc599923418889\
        ef3b72362c934683543c466f9ed1d3e9861b91a109b7827f730fc32899d6f32d32c89b011de7b3de7446\
        5fb7b98f9ec5128e17e8620bd79e7501f76fb9be0d9243e7f8193c3dafb6f50675dcb9123858e3f66928\
        0d5b40609def26f8f0a29073ddee399a88f4b8d7d71710030e0b7877df4dd514fb70d6fd6099a2ba659e\
        2daa40cd8c11122c5caa068deaa5352c9a8b0fdaa9644d344fa5a812e033e927ad11006571614e4d";
    /// The machine-id it was made with.
    pub(in crate::chap) const ID: &str = "9f2c4e1ab7d84c0e8d35a6f01b7c92de";
    /// As ha-san-ansible's template writes it for two VLANs.
    const TEXT: &str = r##"
# Managed by Ansible — iSCSI CHAP credentials for this node

# Per-initiator CHAP (ACL-mode VLANs)
# Key format: "<tpg_num>:<initiator_iqn>"
declare -A CHAP_USER CHAP_PASS
CHAP_USER["1:iqn.2025-01.lab.home:proxmox-a"]="proxmox-a"
CHAP_PASS["1:iqn.2025-01.lab.home:proxmox-a"]="hush-proxmox-a"

# Per-TPG CHAP (generate_node_acls VLANs — all initiators share one credential)
# Key format: "<tpg_num>"
declare -A TPG_CHAP_USER TPG_CHAP_PASS
TPG_CHAP_USER["2"]="proxmox-shared"
TPG_CHAP_PASS["2"]="hush-shared-2"
"##;

    pub(in crate::chap) fn file() -> Vec<u8> {
        let digits = |at: usize| u8::from_str_radix(&FILE[at..at + 2], 16).unwrap();
        (0..FILE.len()).step_by(2).map(digits).collect()
    }

    fn login(user: &str, password: &str) -> Credentials {
        credentials((user.to_string(), Secret::new(password.to_string())))
    }

    #[test]
    fn what_openssl_encrypted_is_decrypted() {
        assert_eq!(decrypt(&file(), ID).unwrap().as_str(), TEXT);
    }

    #[test]
    fn a_wrong_passphrase_and_a_damaged_file_are_refused() {
        let whole = file();
        for passphrase in ["", "9f2c4e1ab7d84c0e8d35a6f01b7c92df", &format!("{ID}\n")] {
            let wrong = decrypt(&whole, passphrase).unwrap_err();
            assert!(wrong.contains("of another machine-id"), "{wrong}");
        }
        for length in [0, 7, 8, 15, 16, 17, 31, whole.len() - 1] {
            assert_eq!(decrypt(&whole[..length], ID).unwrap_err(), "the file is cut off");
        }
        let wrong = decrypt(&whole[..whole.len() - 16], ID).unwrap_err();
        assert!(wrong.contains("damaged"), "{wrong}");
    }

    #[test]
    fn each_portal_group_gets_its_own() {
        let first = parse(TEXT, 1).unwrap();
        assert_eq!(first.everyone, None);
        let want = login("proxmox-a", "hush-proxmox-a");
        assert_eq!(first.of("iqn.2025-01.lab.home:proxmox-a"), Some(&want));
        let second = parse(TEXT, 2).unwrap();
        assert!(second.initiators.is_empty());
        assert_eq!(second.everyone, Some(login("proxmox-shared", "hush-shared-2")));
        let wrong = parse(TEXT, 3).unwrap_err();
        assert_eq!(wrong, "it names nobody for the portal group 3");
    }

    #[test]
    fn both_forms_say_the_same_and_so_does_the_converted_file() {
        let json = r#"{"per_initiator": {"1:iqn.2025-01.lab.home:proxmox-a":
            {"user": "proxmox-a", "pass": "hush-proxmox-a"}},
            "per_tpg": {"2": {"user": "proxmox-shared", "pass": "hush-shared-2"}}}"#;
        for tpg in [1, 2] {
            let secrets = parse(TEXT, tpg).unwrap();
            assert_eq!(parse(json, tpg).as_ref(), Ok(&secrets));
            assert_eq!(super::super::json::parse(secrets.to_json().expose()), Ok(secrets));
        }
    }

    #[test]
    fn a_value_is_read_as_a_shell_reads_it() {
        for (written, want) in [
            ("plain-1", "plain-1"),
            ("'a \"b\" $c \\d'", "a \"b\" $c \\d"),
            ("\"a 'b' # c\"", "a 'b' # c"),
            (r#""a\"b\\c\$d\`e\f""#, r#"a"b\c$d`e\f"#),
            ("\"p\" # a comment", "p"),
            ("p\t# a comment", "p"),
        ] {
            let text = format!("  TPG_CHAP_USER['1']=u\nTPG_CHAP_PASS[1]={written}\n");
            assert_eq!(parse(&text, 1).unwrap().everyone, Some(login("u", want)), "{written}");
        }
    }

    #[test]
    fn a_bad_text_is_refused_with_its_place_and_without_the_secret() {
        let pass = "TPG_CHAP_USER[1]=u\nTPG_CHAP_PASS";
        let iqn = "iqn.2025-01.lab.home:x";
        for (text, want) in [
            (format!("{pass}[1]=\"hush"), "line 2: a quote is not closed"),
            (format!("{pass}[1]='hush"), "line 2: a quote is not closed"),
            (format!("{pass}[1]=\"hush$x\""), "line 2: a shell would replace"),
            (format!("{pass}[1]=\"`hush`\""), "line 2: a shell would replace"),
            (format!("{pass}[1]=hush$x"), "line 2: something stands behind"),
            (format!("{pass}[1]=\"hush\"hush"), "line 2: something stands behind"),
            (format!("{pass}[1]=\"hush\"#"), "line 2: something stands behind"),
            (format!("{pass}[1]=hush hush"), "line 2: something stands behind"),
            (format!("{pass}[1]="), "line 2: the value is empty"),
            (format!("{pass}[1]=NULLhush"), "line 2: the value begins with NULL"),
            (format!("{pass}[1] = hush"), "line 2: this is no entry of"),
            (format!("{pass}=hush"), "line 2: this is no entry of"),
            (format!("{pass}[1]=hush\nhush[1]=hush"), "line 3: this is no entry of"),
            (format!("{pass}[1]=hush\nrm -rf hush"), "line 3: this is no entry of"),
            (format!("{pass}[1]=hush\ndeclare -A hush"), "line 3: this is no entry of"),
            (format!("{pass}[1]=hush\nTPG_CHAP_PASS[1]=hush"), "line 3: this entry stands here a"),
            ("TPG_CHAP_USER[1]=hush".to_string(), "TPG_CHAP_PASS[\"1\"] is missing"),
            ("TPG_CHAP_PASS[1]=hush".to_string(), "TPG_CHAP_USER[\"1\"] is missing"),
            (format!("CHAP_PASS[1:{iqn}]=hush"), "CHAP_USER[\"1:iqn.2025-01.lab.home:x\"] is"),
            (
                format!("CHAP_USER[x]=u\nCHAP_PASS[x]=hush\n{pass}[1]=p"),
                "the entry \"x\": \"\" is not",
            ),
            (format!("CHAP_USER[x:{iqn}]=u\nCHAP_PASS[x:{iqn}]=hush"), "with a portal group's tag"),
            ("TPG_CHAP_USER[x]=u\nTPG_CHAP_PASS[x]=hush".to_string(), "with a portal group's tag"),
            ("# nothing".to_string(), "nobody for the portal group 1"),
            (
                "{\"per_tpg\": {\"1\": {\"user\": \"hush\"}}}".to_string(),
                "\"pass\" of \"1\" is missing",
            ),
            ("{\"per_tpg\": {\"1\": {}}}".to_string(), "\"user\" of \"1\" is missing"),
            ("{\"per_tpg\": {\"1\": \"hush\"}}".to_string(), "the entry \"1\" is not an object"),
            ("{\"per_tpg\": \"hush\"}".to_string(), "the key \"per_tpg\" is not an object"),
            ("{\"per_lun\": \"hush\"}".to_string(), "the key \"per_lun\" is unknown"),
            ("{'per_tpg': 'hush'}".to_string(), "line 1, column 2: this is not JSON"),
        ] {
            let wrong = parse(&text, 1).unwrap_err();
            assert!(wrong.contains(want), "{text:?}: {wrong}");
            assert!(!wrong.contains("hush"), "{wrong}");
        }
    }
}
