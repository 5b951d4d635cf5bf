//! Names and passwords in the initiator's record of a target. `iscsiadm` takes them on its command line alone, which
//! everybody can see, so they go into the record's own file, which is root's: lines of `name = value`
//! (open-iscsi, `usr/idbm.c`).

use crate::chap::Credentials;
use crate::machine::Machine;
use crate::ocf::Fault;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Where open-iscsi keeps its records: on Debian and Ubuntu, and elsewhere.
const ROOTS: [&str; 2] = ["/etc/iscsi/nodes", "/var/lib/iscsi/nodes"];
const AUTH: &str = "node.session.auth.";
/// The names behind [`AUTH`] that are ours.
const NAMES: [&str; 5] = ["authmethod", "username", "password", "username_in", "password_in"];
const END: &str = "# END RECORD";

/// Makes the record carry these credentials, or none.
///
/// # Errors
/// `Generic` (1) if there is no record to write them to. No error shows a secret.
pub(super) fn set_credentials(
    machine: &Machine,
    target: &str,
    portal: &str,
    credentials: Option<&Credentials>,
) -> Result<(), Fault> {
    let Some(path) = file(machine, target, portal)? else {
        let absent = || format!("there is no record of {target} in {}", ROOTS.join(" or "));
        return credentials.map_or(Ok(()), |_| Err(Fault::generic(absent())));
    };
    let bytes = machine.read_private(&path)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| Fault::generic(format!("the record {} is not text", path.display())))?;
    let wanted = with_credentials(text, credentials);
    if wanted.as_str() == text { Ok(()) } else { machine.replace_file(&path, &wanted) }
}

/// The file of a record: `ADDRESS,PORT` where the portal group was not known when it was made, else `default` in a folder
/// `ADDRESS,PORT,TAG`.
fn file(machine: &Machine, target: &str, portal: &str) -> Result<Option<PathBuf>, Fault> {
    let (address, port) = portal.rsplit_once(':').unwrap_or((portal, ""));
    let plain = format!("{},{port}", address.trim_matches(['[', ']']));
    let tagged = format!("{plain},");
    for root in ROOTS {
        let folder = Path::new(root).join(target);
        let names = machine.list(&folder)?.unwrap_or_default();
        let record = names.iter().find(|name| **name == plain || name.starts_with(&tagged));
        if let Some(record) = record.map(|name| folder.join(name)) {
            let inner = record.join("default");
            return Ok(Some(if machine.exists(&inner) { inner } else { record }));
        }
    }
    Ok(None)
}

fn with_credentials(text: &str, credentials: Option<&Credentials>) -> Zeroizing<String> {
    let is_ours = |line: &str| {
        let name = line.split('=').next().unwrap_or_default().trim();
        name.strip_prefix(AUTH).is_some_and(|name| NAMES.contains(&name))
    };
    let mut record = Zeroizing::new(String::with_capacity(text.len() + 2048));
    let mut add = |line: &str| {
        record.push_str(line);
        record.push('\n');
    };
    let mut lines = text.lines().filter(|line| !is_ours(line)).peekable();
    while let Some(line) = lines.next_if(|line| *line != END) {
        add(line);
    }
    for (name, value) in values(credentials) {
        add(&Zeroizing::new(format!("{AUTH}{name} = {value}")));
    }
    lines.for_each(add);
    record
}

fn values(credentials: Option<&Credentials>) -> Vec<(&str, &str)> {
    let Some(own) = credentials else { return vec![("authmethod", "None")] };
    let mut values = vec![
        ("authmethod", "CHAP"),
        ("username", own.user.as_str()),
        ("password", own.password.expose()),
    ];
    if let Some((user, password)) = &own.mutual {
        values.extend([("username_in", user.as_str()), ("password_in", password.expose())]);
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chap::Secret;

    const BARE: &str = "# BEGIN RECORD 2.1.8\nnode.name = iqn.x\nnode.session.auth.authmethod = None\n\
                        node.session.auth.chap_algs = MD5\n# END RECORD\n";

    fn credentials(is_mutual: bool) -> Credentials {
        let secret = |text: &str| Secret::new(text.to_string());
        let mutual = is_mutual.then(|| ("target".to_string(), secret("hush-2")));
        Credentials { user: "node".to_string(), password: secret("hush = 1"), mutual }
    }

    #[test]
    fn a_record_gets_the_credentials_and_loses_them() {
        let own = with_credentials(BARE, Some(&credentials(false)));
        let want = "# BEGIN RECORD 2.1.8\nnode.name = iqn.x\nnode.session.auth.chap_algs = MD5\n\
                    node.session.auth.authmethod = CHAP\nnode.session.auth.username = node\n\
                    node.session.auth.password = hush = 1\n# END RECORD\n";
        assert_eq!(own.as_str(), want);
        assert_eq!(with_credentials(&own, Some(&credentials(false))), own);

        let both = with_credentials(&own, Some(&credentials(true)));
        assert!(both.contains("\nnode.session.auth.username_in = target\n"), "{both:?}");
        assert!(both.ends_with("node.session.auth.password_in = hush-2\n# END RECORD\n"));

        let none = with_credentials(&both, None);
        assert!(!none.contains("hush") && none.contains("auth.authmethod = None\n"), "{none:?}");
        assert_eq!(with_credentials(&none, None), none);
    }

    #[test]
    fn the_record_is_found_in_either_place_and_form() {
        let root = std::env::temp_dir().join(format!("hasan-record-{}", std::process::id()));
        let machine = Machine::recorded(&root);
        let set = |portal, credentials| set_credentials(&machine, "iqn.x", portal, credentials);
        let both = credentials(true);
        assert_eq!(set("10.1.1.1:3260", None), Ok(()));
        let fault = set("10.1.1.1:3260", Some(&both)).unwrap_err();
        assert!(fault.reason.contains("no record of iqn.x"), "{fault:?}");
        for (portal, path) in [
            ("10.1.1.1:3260", "/etc/iscsi/nodes/iqn.x/10.1.1.1,3260"),
            ("10.1.1.2:3260", "/etc/iscsi/nodes/iqn.x/10.1.1.2,3260,1/default"),
            ("[fd00::1]:3260", "/var/lib/iscsi/nodes/iqn.x/fd00::1,3260,1/default"),
        ] {
            machine.replace_file(Path::new(path), BARE).unwrap();
            set(portal, Some(&both)).unwrap();
            let text = machine.read_required(Path::new(path)).unwrap();
            assert!(text.contains("hush-2"), "{path}");
        }
        std::fs::remove_dir_all(root).unwrap();
    }
}
