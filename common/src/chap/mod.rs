//! Names and passwords of CHAP (RFC 7143 section 12.1.3), read from a file of secrets.
//!
//! Three kinds of file are told apart by what is in them: JSON, a systemd credential that holds
//! JSON, and the encrypted file that ha-san-ansible leaves on its nodes. No error and no log line
//! shows a secret. Memory is zeroed as far as safe code can do it: the JSON parser and the pipe to
//! `systemd-creds` keep copies of their own for a moment.

mod json;
mod seed;

use crate::machine::Machine;
use crate::ocf::{Fault, Rc};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use zeroize::Zeroizing;

/// A text that is never shown: `{:?}` prints `(secret)`, and there is no `Display`. It is zeroed
/// when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text over.
    pub fn new(text: String) -> Secret {
        Secret(Zeroizing::new(text))
    }

    /// The text itself, for the kernel or a file that only root can read.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str("(secret)")
    }
}

/// Name and password by which an initiator proves itself, and those of the target if it has to
/// prove itself too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The name that the initiator gives.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// The name and the password that the target answers with.
    pub mutual: Option<(String, Secret)>,
}

impl Credentials {
    /// Whether the kernel would take them as they are, for a reader that has not looked at each value.
    ///
    /// # Errors
    /// What is wrong, as a sentence without any of the values.
    pub fn check(&self) -> Result<(), String> {
        let mutual = self.mutual.as_ref();
        for (what, value) in [
            ("the name", Some(self.user.as_str())),
            ("the password", Some(self.password.expose())),
            ("the target's name", mutual.map(|(name, _)| name.as_str())),
            ("the target's password", mutual.map(|(_, password)| password.expose())),
        ] {
            value.map_or(Ok(()), check).map_err(|wrong| format!("{what} {wrong}"))?;
        }
        // RFC 7143 section 9.2.1.
        match mutual {
            Some((_, password)) if *password == self.password => {
                Err("the target's password and the initiator's must differ".to_string())
            }
            _ => Ok(()),
        }
    }
}

/// All credentials of one portal group; never none at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secrets {
    /// Those of every initiator that has none of its own.
    pub everyone: Option<Credentials>,
    /// Those of one initiator, by its iSCSI name.
    pub initiators: BTreeMap<String, Credentials>,
}

impl Secrets {
    /// The credentials of an initiator: its own, else everyone's.
    pub fn of(&self, initiator: &str) -> Option<&Credentials> {
        self.initiators.get(initiator).or(self.everyone.as_ref())
    }

    /// The same as a file of the first kind.
    pub fn to_json(&self) -> Secret {
        json::write(self)
    }
}

/// What the passphrase of ha-san-ansible's file is.
const MACHINE_ID: &str = "/etc/machine-id";

/// Reads and checks a file of secrets. Only ha-san-ansible's file knows portal groups: of that the
/// entries of the group `tpg` are taken.
///
/// # Errors
/// `Installed` (5) if the file is not there; `Arguments` (2) if it is wrong or open to others than
/// root: both concern this node only. As [`Machine::ask`] if it takes `systemd-creds` to read it.
pub fn load(machine: &Machine, path: &Path, tpg: u64) -> Result<Secrets, Fault> {
    let bytes = machine.read_private(path)?;
    let wrong = |wrong: String| Fault::new(Rc::Arguments, format!("{}: {wrong}", path.display()));
    if bytes.starts_with(seed::SALTED) {
        let id = machine.read_required(Path::new(MACHINE_ID))?;
        // openssl(1) takes the first line of a `file:` as the passphrase.
        let passphrase = id.split('\n').next().unwrap_or_default();
        let secrets = seed::decrypt(&bytes, passphrase)
            .and_then(|text| seed::parse(&text, tpg))
            .map_err(wrong)?;
        tracing::warn!(
            "{}: its passphrase is {MACHINE_ID}, which everybody on this node can read, so only \
             the file's mode protects it: convert it to JSON, and that by \"systemd-creds encrypt\"",
            path.display()
        );
        return Ok(secrets);
    }
    if is_base64(&bytes) {
        return json::parse(&decrypt_credential(machine, path)?).map_err(wrong);
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) if text.trim_start().starts_with('{') => json::parse(text).map_err(wrong),
        _ => Err(wrong("this is neither JSON nor an encrypted file that is known".to_string())),
    }
}

/// The credentials of one initiator, where it must have some.
///
/// # Errors
/// As [`load`]; `Arguments` (2) if the file has none for it.
pub(crate) fn load_of(
    machine: &Machine,
    path: &Path,
    initiator: &str,
) -> Result<Credentials, Fault> {
    load(machine, path, 1)?.of(initiator).cloned().ok_or_else(|| {
        let wrong = format!("{} has no password for {initiator}", path.display());
        Fault::new(Rc::Arguments, wrong)
    })
}

/// Whether this can be what `systemd-creds encrypt` writes: base64 in lines, padded at its end.
fn is_base64(bytes: &[u8]) -> bool {
    let is_digit = |c: &u8| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'/' | b'\n');
    let end = bytes.iter().rposition(|c| !matches!(c, b'=' | b'\n'));
    end.is_some_and(|end| bytes[..=end].iter().all(is_digit))
}

/// Not by [`Machine::run`]: its error could quote the standard output, which carries the secrets.
fn decrypt_credential(machine: &Machine, path: &Path) -> Result<Zeroizing<String>, Fault> {
    let shown = path.display().to_string();
    let answer = machine.ask("systemd-creds", &["decrypt", &shown, "-"])?;
    let text = Zeroizing::new(answer.stdout);
    if answer.code == Some(0) {
        return Ok(text);
    }
    // The last line is the error, those before it are warnings.
    let cause = answer.stderr.trim().lines().next_back().unwrap_or("it does not say why");
    Err(Fault::generic(format!("{shown}: systemd-creds cannot decrypt it: {cause}")))
}

/// Says what is wrong with a name or a password, as the rest of a sentence. The kernel keeps 255
/// bytes, and takes a value that begins with `NULL` for none
/// (`drivers/target/iscsi/iscsi_target_configfs.c`). Lengths that only some initiators ask for
/// (Microsoft's: 12 to 16) are not checked.
fn check(value: &str) -> Result<(), String> {
    let wrong = if value.is_empty() {
        "is empty"
    } else if value.len() > 255 {
        "is longer than 255 bytes"
    } else if !value.bytes().all(|c| c == b' ' || c.is_ascii_graphic()) {
        "holds something else than printable ASCII characters"
    } else if value.starts_with("NULL") {
        "begins with NULL, which is \"no value\" to the kernel"
    } else {
        return Ok(());
    };
    Err(wrong.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

    const FILE: &str = "/etc/hasan/chap";
    /// Stands in every secret of these tests, and in nothing else.
    const MARK: &str = "hush";
    const JSON: &str = r#"{"user": "u", "password": "hush-1", "mutual_user": "t",
        "mutual_password": "hush-2", "initiators": {"iqn.2025-01.lab.home:x":
        {"user": "x", "password": "hush-x"}}}"#;

    /// A machine with this file of secrets, the machine-id of the recorded file of ha-san-ansible,
    /// and a program that stands for systemd-creds.
    fn machine(name: &str, content: &[u8]) -> (PathBuf, Machine) {
        let root = std::env::temp_dir().join(format!("hasan-chap-{name}-{}", std::process::id()));
        for folder in ["etc/hasan", "usr/bin"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/systemd-creds");
        symlink(program, root.join("usr/bin/systemd-creds")).unwrap();
        let machine = Machine::recorded(&root);
        let id = format!("{}\n", seed::tests::ID);
        machine.replace_file(Path::new(MACHINE_ID), &id).unwrap();
        put(&root, content, 0o600);
        (root, machine)
    }

    fn put(root: &Path, content: &[u8], mode: u32) {
        let file = root.join(FILE.trim_start_matches('/'));
        #[expect(clippy::disallowed_methods, reason = "a recorded tree is made")]
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
    }

    fn loaded(machine: &Machine, tpg: u64) -> Result<Secrets, Fault> {
        load(machine, Path::new(FILE), tpg)
    }

    #[test]
    fn a_file_is_known_by_its_content() {
        let (root, machine) = machine("kinds", format!(" \n{JSON}").as_bytes());
        let want = json::parse(JSON).unwrap();
        assert_eq!(loaded(&machine, 1).unwrap(), want);

        // `printf '{"user":"u","password":"hush"}' | base64`
        put(&root, b"eyJ1c2VyIjoidSIsInBhc3N3\nb3JkIjoiaHVzaCJ9\n", 0o600);
        assert_eq!(loaded(&machine, 1).unwrap().everyone.unwrap().password.expose(), "hush");

        put(&root, &seed::tests::file(), 0o600);
        assert_eq!(loaded(&machine, 1).unwrap().initiators.len(), 1);
        assert_eq!(loaded(&machine, 2).unwrap().everyone.unwrap().user, "proxmox-shared");
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_wrong_file_is_refused_with_its_name_and_without_its_secrets() {
        let (root, machine) = machine("wrong", b"");
        let id = Path::new(MACHINE_ID);
        for (content, want) in [
            (&b""[..], "neither JSON nor"),
            (b"\n=\n", "neither JSON nor"),
            (b"hush", "line 1, column 1: this is not JSON"),
            (b"user=u\npassword=hush\n", "neither JSON nor"),
            (b"[\"hush\"]", "neither JSON nor"),
            (b"{\"user\": \"\xff\"}", "neither JSON nor"),
            (b"hushhush=\n", "systemd-creds cannot decrypt it: Encrypted file too short."),
            (b"{\"user\": \"u\",\n\"password\": hush}", "line 2, column 13: this is not JSON"),
            (b"Salted__12345678", "cut off"),
            (&[b'x'; 64 * 1024 + 1], "longer than 65536 bytes"),
        ] {
            put(&root, content, 0o600);
            let fault = loaded(&machine, 1).unwrap_err();
            assert!(fault.reason.contains(want), "{fault:?}");
            assert!(fault.reason.starts_with(FILE), "{fault:?}");
            assert!(!fault.reason.contains(MARK), "{fault:?}");
        }
        put(&root, &seed::tests::file(), 0o600);
        machine.replace_file(id, "of another machine\n").unwrap();
        assert!(loaded(&machine, 1).unwrap_err().reason.contains("another machine-id"));
        machine.remove_file(id).unwrap();
        assert!(loaded(&machine, 1).unwrap_err().reason.contains(MACHINE_ID));
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_file_that_others_can_open_is_refused_with_what_to_do() {
        let (root, machine) = machine("open", JSON.as_bytes());
        for mode in [0o400, 0o600, 0o700] {
            put(&root, JSON.as_bytes(), mode);
            assert!(loaded(&machine, 1).is_ok(), "{mode:o}");
        }
        for mode in [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644] {
            put(&root, JSON.as_bytes(), mode);
            let fault = loaded(&machine, 1).unwrap_err();
            let want = format!("{FILE} has mode {mode:04o}, open to others: chmod 600 {FILE}");
            assert_eq!((fault.rc, fault.reason), (Rc::Arguments, want));
        }
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn nothing_prints_a_secret() {
        let secrets = json::parse(JSON).unwrap();
        let shown = format!("{secrets:?} {secrets:#?} {:?}", secrets.to_json());
        assert!(!shown.contains(MARK), "{shown}");
        assert_eq!(format!("{:?}", Secret::new(MARK.to_string())), "(secret)");
    }

    #[test]
    fn an_initiator_has_its_own_credentials_or_everyones() {
        let secrets = json::parse(JSON).unwrap();
        assert_eq!(secrets.of("iqn.2025-01.lab.home:x").unwrap().user, "x");
        assert_eq!(secrets.of("iqn.2025-01.lab.home:y").unwrap().user, "u");
        assert_eq!(Secrets { everyone: None, ..secrets }.of("iqn.2025-01.lab.home:y"), None);
    }

    #[test]
    fn what_the_kernel_would_misread_is_refused() {
        for value in ["p", "with space", "\"\\'$#", &"x".repeat(255), "null", "aNULL"] {
            assert_eq!(check(value), Ok(()), "{value}");
        }
        for (value, want) in [
            ("", "empty"),
            (&*"x".repeat(256), "255 bytes"),
            ("a\n", "printable"),
            ("a\0", "printable"),
            ("é", "printable"),
            ("NULL", "NULL"),
            ("NULL and more", "NULL"),
        ] {
            assert!(check(value).unwrap_err().contains(want), "{value}");
        }
    }
}
