//! Who may use the LUNs: by parameter, by a file on the pool, by a file of secrets.

use hasan::chap::{self, Credentials, Secret, Secrets};
use hasan::lio::{Tpg, Who};
use hasan::machine::Machine;
use hasan::names;
use hasan::ocf::{Fault, Rc};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Where it is said who gets the LUNs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// Everyone, with one pair of credentials or none (generate_node_acls).
    pub(crate) everyone: bool,
    /// Initiators by parameter.
    pub(crate) initiators: BTreeSet<String>,
    /// A file with a line for each initiator.
    pub(crate) acl_file: Option<PathBuf>,
    /// A file of secrets.
    pub(crate) chap_file: Option<PathBuf>,
}

/// Who gets the LUNs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) everyone: bool,
    pub(crate) initiators: BTreeSet<String>,
    pub(crate) credentials: BTreeMap<Who, Credentials>,
    /// What is wrong, a sentence each; the rest holds.
    pub(crate) troubles: Vec<String>,
}

impl Access {
    /// Whether a password is asked for: credentials present means that they are needed.
    pub(crate) fn is_authenticated(&self) -> bool {
        !self.credentials.is_empty()
    }

    /// What the kernel grants now: kept while the files cannot be read.
    fn as_it_is(tpg: &Tpg, troubles: Vec<String>) -> Access {
        let is = |name: &str| tpg.attributes.get(name).is_some_and(|value| value == "1");
        Access {
            everyone: is("generate_node_acls"),
            initiators: tpg.acls.keys().cloned().collect(),
            credentials: tpg.credentials.clone(),
            troubles,
        }
    }
}

/// Reads the files.
///
/// # Errors
/// `Arguments` (2) or `Installed` (5) where the secrets, which are this node's, cannot be read; `Generic` (1) where the list
/// of initiators, which may be on the pool, cannot.
pub(crate) fn read(machine: &Machine, source: &Source, tpg: u64) -> Result<Access, Fault> {
    let secrets = match &source.chap_file {
        Some(path) => Some(chap::load(machine, path, tpg)?),
        None => None,
    };
    if source.everyone {
        return for_everyone(secrets);
    }
    let mut access = Access { initiators: source.initiators.clone(), ..Access::default() };
    let mut own = BTreeMap::new();
    if let Some(path) = &source.acl_file {
        let text = machine.read(path)?.ok_or_else(|| {
            Fault::generic(format!("the file of initiators {} is not there", path.display()))
        })?;
        let (lines, wrong) = parse(&text);
        access.troubles.extend(wrong.iter().map(|wrong| format!("{}: {wrong}", path.display())));
        if lines.values().any(Option::is_some) {
            // Passwords are in it: it is read once more, with a look at its mode.
            machine.read_private(path)?;
        }
        access.initiators.extend(lines.keys().cloned());
        own = lines;
    }
    for initiator in &access.initiators {
        let given = own.remove(initiator).flatten();
        let found = given.or_else(|| secrets.as_ref()?.of(initiator).cloned());
        access.credentials.extend(found.map(|some| (Who::Initiator(initiator.clone()), some)));
    }
    Ok(access)
}

/// As [`read`], but what cannot be read leaves what is there as it is.
pub(crate) fn read_or_keep(machine: &Machine, source: &Source, number: u64, tpg: &Tpg) -> Access {
    read(machine, source, number).unwrap_or_else(|fault| Access::as_it_is(tpg, vec![fault.reason]))
}

fn for_everyone(secrets: Option<Secrets>) -> Result<Access, Fault> {
    let credentials = match secrets {
        None => BTreeMap::new(),
        Some(Secrets { everyone: Some(everyone), .. }) => {
            BTreeMap::from([(Who::Everyone, everyone)])
        }
        Some(_) => {
            let reason =
                "generate_node_acls needs one pair of credentials for all in the chap_file";
            return Err(Fault::new(Rc::Arguments, reason));
        }
    };
    Ok(Access { everyone: true, credentials, ..Access::default() })
}

/// A line for each initiator: `IQN`, `IQN USER PASSWORD` or `IQN USER PASSWORD MUTUAL_USER MUTUAL_PASSWORD`; `#` begins
/// a comment line. Returns the initiators, and what is wrong with the other lines, without what stands in them: that may
/// be a password.
fn parse(text: &str) -> (BTreeMap<String, Option<Credentials>>, Vec<String>) {
    let mut initiators = BTreeMap::new();
    let mut wrong = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = at + 1;
        let pair = |user: &str, password: &str, mutual| Credentials {
            user: user.to_string(),
            password: Secret::new(password.to_string()),
            mutual,
        };
        let (name, credentials) = match words[..] {
            [] => continue,
            [first, ..] if first.starts_with('#') => continue,
            [name] => (name, None),
            [name, user, password] => (name, Some(pair(user, password, None))),
            [name, user, password, other, answer] => {
                let mutual = (other.to_string(), Secret::new(answer.to_string()));
                (name, Some(pair(user, password, Some(mutual))))
            }
            _ => {
                wrong.push(format!(
                    "line {number}: expected an initiator, alone or with one or two pairs of name and password"
                ));
                continue;
            }
        };
        if names::iqn(name).is_err() {
            wrong.push(format!("line {number}: does not begin with an iSCSI name"));
        } else if initiators.insert(name.to_string(), credentials).is_some() {
            wrong.push(format!("line {number}: {name} stands here a second time"));
        }
    }
    (initiators, wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const ONE: &str = "iqn.2025-01.lab.home:one";
    const TWO: &str = "iqn.2025-01.lab.home:two";

    #[test]
    fn good_lines_count_and_wrong_ones_are_named_without_their_words() {
        let text = format!(
            "# initiators\n\n{ONE}\n{TWO} user hidden other answer\nhidden1 x\niqn.bad\n{ONE}\n{ONE} hidden2\n"
        );
        let (initiators, wrong) = parse(&text);
        assert_eq!(initiators.keys().collect::<Vec<_>>(), [ONE, TWO]);
        assert_eq!(initiators[TWO].as_ref().unwrap().mutual.as_ref().unwrap().0, "other");
        assert_eq!(wrong.len(), 4, "{wrong:?}");
        for (wrong, start) in wrong.iter().zip(["line 5: ", "line 6: ", "line 7: ", "line 8: "]) {
            assert!(wrong.starts_with(start), "{wrong}");
        }
        assert!(!format!("{initiators:?} {wrong:?}").contains("hidden"));
    }

    #[test]
    fn credentials_mean_that_they_are_needed() {
        let root = std::env::temp_dir().join(format!("hasan-access-{}", std::process::id()));
        let machine = Machine::recorded(&root);
        let acls = Path::new("/acls.conf");
        let source = |everyone: bool| Source {
            everyone,
            initiators: BTreeSet::from([ONE.to_string()]),
            acl_file: Some(acls.to_path_buf()),
            chap_file: None,
        };
        let read = |everyone| read(&machine, &source(everyone), 1);
        assert_eq!(read(false).unwrap_err().rc, Rc::Generic);
        machine.replace_file(acls, TWO).unwrap();
        let access = read(false).unwrap();
        assert_eq!((access.initiators.len(), access.is_authenticated()), (2, false));
        machine.replace_file(acls, &format!("{TWO} user password")).unwrap();
        let access = read(false).unwrap();
        assert!(access.is_authenticated() && access.credentials.len() == 1);
        assert_eq!(read(true).unwrap(), Access { everyone: true, ..Access::default() });
        let tpg = Tpg { credentials: access.credentials.clone(), ..Tpg::default() };
        let gone = Source { acl_file: Some("/gone".into()), ..source(false) };
        let kept = read_or_keep(&machine, &gone, 1, &tpg);
        assert_eq!(kept.credentials, access.credentials);
        assert_eq!(kept.troubles.len(), 1);
        std::fs::remove_dir_all(root).unwrap();
    }
}
