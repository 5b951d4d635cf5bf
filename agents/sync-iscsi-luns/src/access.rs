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
    /// Whether the list of initiators may lack some: a line of the file is wrong, or it names nobody.
    pub(crate) is_doubtful: bool,
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
            is_doubtful: false,
        }
    }

    /// Those who get the LUNs now, and whom the list does not name, keep them as they have them.
    fn keep_others(&mut self, tpg: &Tpg) {
        for initiator in tpg.acls.keys() {
            if self.initiators.insert(initiator.clone()) {
                let who = Who::Initiator(initiator.clone());
                let there = tpg.credentials.get(&who).cloned();
                self.credentials.extend(there.map(|some| (who, some)));
            }
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
        let is_nobody = lines.is_empty() && source.initiators.is_empty();
        access.is_doubtful = !wrong.is_empty() || is_nobody;
        let nobody = is_nobody.then(|| "it names no initiator".to_string());
        let wrong = wrong.into_iter().chain(nobody);
        access.troubles.extend(wrong.map(|wrong| format!("{}: {wrong}", path.display())));
        if lines.values().any(Option::is_some) {
            // Passwords are in it: it is read once more, with a look at its mode.
            machine.read_private(path).map_err(|fault| Fault::generic(fault.reason))?;
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

/// As [`read`], but what cannot be read leaves what is there as it is. A list with a wrong line, or that is just being written,
/// takes the LUNs from nobody who has them.
pub(crate) fn read_or_keep(machine: &Machine, source: &Source, number: u64, tpg: &Tpg) -> Access {
    match read(machine, source, number) {
        Err(fault) => Access::as_it_is(tpg, vec![fault.reason]),
        Ok(mut access) => {
            if access.is_doubtful {
                access.keep_others(tpg);
            }
            access
        }
    }
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
        let checked = credentials.as_ref().map_or(Ok(()), Credentials::check);
        if names::iqn(name).is_err() {
            wrong.push(format!("line {number}: does not begin with an iSCSI name"));
        } else if let Err(why) = checked {
            wrong.push(format!("line {number}: {why}"));
        } else if initiators.contains_key(name) {
            wrong.push(format!("line {number}: {name} stands here a second time"));
        } else {
            initiators.insert(name.to_string(), credentials);
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
    fn a_line_that_stands_there_twice_takes_no_password_away() {
        let (initiators, wrong) = parse(&format!("{ONE} user hidden\n{ONE}\n"));
        assert!(initiators[ONE].is_some());
        assert_eq!(wrong.len(), 1, "{wrong:?}");
    }

    #[test]
    fn credentials_that_the_kernel_would_misread_are_no_credentials() {
        let long = "x".repeat(256);
        for (pairs, want) in [
            ("user NULLhidden", "the password begins with NULL"),
            (&*format!("user {long}"), "the password is longer"),
            ("user hidden NULL answer", "the target's name begins"),
            ("user hidden other hidden", "must differ"),
        ] {
            let (initiators, wrong) = parse(&format!("{ONE} {pairs}\n"));
            assert!(initiators.is_empty(), "{pairs}");
            assert!(wrong[0].starts_with("line 1: ") && wrong[0].contains(want), "{wrong:?}");
            assert!(!wrong[0].contains("hidden"), "{wrong:?}");
        }
    }

    #[test]
    fn a_list_with_a_wrong_line_or_none_takes_the_luns_from_nobody() {
        let root = std::env::temp_dir().join(format!("hasan-doubtful-{}", std::process::id()));
        let machine = Machine::recorded(&root);
        let path = PathBuf::from("/acls.conf");
        let source = Source {
            everyone: false,
            initiators: BTreeSet::new(),
            acl_file: Some(path.clone()),
            chap_file: None,
        };
        let who = |name: &str| Who::Initiator(name.to_string());
        let pair = parse(&format!("{ONE} user password")).0[ONE].clone().unwrap();
        let tpg = Tpg {
            acls: [ONE, TWO].map(|name| (name.to_string(), BTreeMap::new())).into(),
            credentials: BTreeMap::from([(who(ONE), pair.clone())]),
            ..Tpg::default()
        };
        let keep = |text: &str| {
            machine.replace_file(&path, text).unwrap();
            read_or_keep(&machine, &source, 1, &tpg)
        };
        for text in [format!("{TWO}\n{ONE} user\n"), "# nobody yet\n".to_string()] {
            let access = keep(&text);
            assert_eq!(access.initiators.len(), 2, "{text}");
            assert_eq!(access.credentials, BTreeMap::from([(who(ONE), pair.clone())]), "{text}");
            assert_eq!(access.troubles.len(), 1, "{text}");
        }
        let access = keep(&format!("{TWO}\n"));
        assert_eq!((access.initiators.len(), access.troubles.len()), (1, 0));
        // Beside the parameter the file may be empty.
        keep("");
        let both = Source { initiators: BTreeSet::from([TWO.to_string()]), ..source.clone() };
        let access = read_or_keep(&machine, &both, 1, &tpg);
        assert_eq!((access.initiators.len(), access.troubles.len()), (1, 0));
        std::fs::remove_dir_all(root).unwrap();
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
