//! The first kind of file: one JSON object, every key of which is known.

use super::{Credentials, Secret, Secrets, check};
use crate::names;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

pub(super) type Object = Map<String, Value>;

/// Reads `{"user": …, "password": …, "mutual_user": …, "mutual_password": …, "initiators": {IQN:
/// {the same four}}}`. A user goes with its password; either users or initiators can be left out.
pub(super) fn parse(text: &str) -> Result<Secrets, String> {
    let mut keys = document(text)?;
    let mut initiators = BTreeMap::new();
    if let Some(value) = keys.remove("initiators") {
        for (iqn, value) in object(value, "the key \"initiators\"")? {
            names::iqn(&iqn).map_err(|wrong| format!("the initiator {iqn:?} {wrong}"))?;
            let of = format!(" of {iqn}");
            let mut keys = object(value, &format!("the initiator {iqn:?}"))?;
            let own = credentials(&mut keys, &of)?.ok_or_else(|| missing("user", &of))?;
            none_left(&keys, &of)?;
            initiators.insert(iqn, own);
        }
    }
    let secrets = Secrets { everyone: credentials(&mut keys, "")?, initiators };
    none_left(&keys, "")?;
    if secrets.everyone.is_none() && secrets.initiators.is_empty() {
        return Err("it names neither a user nor an initiator".to_string());
    }
    check_directions(&secrets)?;
    Ok(secrets)
}

/// The whole text as one object. What serde_json says of an error could quote a secret: only the
/// place is told.
pub(super) fn document(text: &str) -> Result<Object, String> {
    let value = serde_json::from_str(text).map_err(|error| {
        format!("line {}, column {}: this is not JSON", error.line(), error.column())
    })?;
    object(value, "the file")
}

pub(super) fn object(value: Value, what: &str) -> Result<Object, String> {
    match value {
        Value::Object(keys) => Ok(keys),
        _ => Err(format!("{what} is not an object in braces")),
    }
}

/// Takes a name and its password out of an object; `None` if neither is there. `of` says whose they
/// are.
pub(super) fn login(
    keys: &mut Object,
    [user, password]: [&str; 2],
    of: &str,
) -> Result<Option<(String, Secret)>, String> {
    match (text(keys, user, of)?, text(keys, password, of)?) {
        (None, None) => Ok(None),
        (Some(name), Some(secret)) => Ok(Some((name.expose().to_string(), secret))),
        (None, Some(_)) => Err(missing(user, of)),
        (Some(_), None) => Err(missing(password, of)),
    }
}

pub(super) fn none_left(keys: &Object, of: &str) -> Result<(), String> {
    match keys.keys().next() {
        Some(key) => Err(format!("the key {key:?}{of} is unknown")),
        None => Ok(()),
    }
}

pub(super) fn missing(key: &str, of: &str) -> String {
    format!("the key {key:?}{of} is missing")
}

fn text(keys: &mut Object, key: &str, of: &str) -> Result<Option<Secret>, String> {
    let text = match keys.remove(key) {
        None => return Ok(None),
        Some(Value::String(text)) => Secret::new(text),
        Some(_) => return Err(format!("the key {key:?}{of} is not a text in quotes")),
    };
    check(text.expose()).map_err(|wrong| format!("the key {key:?}{of} {wrong}"))?;
    Ok(Some(text))
}

fn credentials(keys: &mut Object, of: &str) -> Result<Option<Credentials>, String> {
    let own = login(keys, ["user", "password"], of)?;
    let mutual = login(keys, ["mutual_user", "mutual_password"], of)?;
    match (own, mutual) {
        (Some((user, password)), mutual) => Ok(Some(Credentials { user, password, mutual })),
        (None, Some(_)) => Err(missing("user", of)),
        (None, None) => Ok(None),
    }
}

/// No password of an initiator may be one of a target (RFC 7143 section 9.2.1): whoever is asked
/// for one could have the other side compute the answer.
fn check_directions(secrets: &Secrets) -> Result<(), String> {
    let own = secrets.initiators.iter().map(|(iqn, each)| (format!(" of {iqn}"), each));
    let all: Vec<_> =
        secrets.everyone.iter().map(|each| (String::new(), each)).chain(own).collect();
    for (of, each) in &all {
        let Some((_, mutual)) = &each.mutual else { continue };
        if let Some((whose, _)) = all.iter().find(|(_, other)| other.password == *mutual) {
            return Err(format!(
                "the keys \"mutual_password\"{of} and \"password\"{whose} must differ"
            ));
        }
    }
    Ok(())
}

/// What [`parse`] reads.
pub(super) fn write(secrets: &Secrets) -> Secret {
    let mut keys = secrets.everyone.as_ref().map(object_of).unwrap_or_default();
    if !secrets.initiators.is_empty() {
        let each = |(iqn, own): (&String, &Credentials)| (iqn.clone(), object_of(own).into());
        let initiators: Object = secrets.initiators.iter().map(each).collect();
        keys.insert("initiators".to_string(), initiators.into());
    }
    Secret::new(format!("{:#}\n", Value::Object(keys)))
}

fn object_of(credentials: &Credentials) -> Object {
    let mut keys = Object::new();
    keys.insert("user".to_string(), json!(credentials.user));
    keys.insert("password".to_string(), json!(credentials.password.expose()));
    if let Some((user, password)) = &credentials.mutual {
        keys.insert("mutual_user".to_string(), json!(user));
        keys.insert("mutual_password".to_string(), json!(password.expose()));
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"user": "u", "password": "hush-1", "mutual_user": "t",
        "mutual_password": "hush-2", "initiators": {"iqn.2025-01.lab.home:x":
        {"user": "x", "password": "hush-3", "mutual_user": "tx", "mutual_password": "hush-4"}}}"#;

    #[test]
    fn a_good_file_is_read() {
        let secrets = parse(GOOD).unwrap();
        let everyone = secrets.everyone.as_ref().unwrap();
        assert_eq!((everyone.user.as_str(), everyone.password.expose()), ("u", "hush-1"));
        let (target, password) = everyone.mutual.as_ref().unwrap();
        assert_eq!((target.as_str(), password.expose()), ("t", "hush-2"));
        let own = secrets.of("iqn.2025-01.lab.home:x").unwrap();
        assert_eq!((own.user.as_str(), own.password.expose()), ("x", "hush-3"));
    }

    #[test]
    fn what_is_written_is_read_back() {
        for text in [
            GOOD,
            r#"{"user": "a \" b", "password": "\\ \u0041 / '"}"#,
            r#"{"initiators": {"iqn.2025-01.lab.home:x": {"user": "x", "password": "p"}}}"#,
        ] {
            let secrets = parse(text).unwrap();
            assert_eq!(parse(secrets.to_json().expose()).as_ref(), Ok(&secrets));
        }
    }

    #[test]
    fn a_bad_file_is_refused_with_the_key_and_without_the_secret() {
        let x = "of iqn.2025-01.lab.home:x";
        for (from, to, want) in [
            ("\"hush-1\",", "\"hush-1\"", "line 1, column"),
            ("{\"user\": \"u\"", "{\"colour\": 1, \"user\": \"u\"", "\"colour\" is unknown"),
            (
                "{\"user\": \"x\"",
                "{\"pass\": 1, \"user\": \"x\"",
                &format!("\"pass\" {x} is unknown"),
            ),
            ("\"user\": \"u\",", "", "the key \"user\" is missing"),
            ("\"password\": \"hush-1\",", "", "the key \"password\" is missing"),
            ("\"user\": \"u\", \"password\": \"hush-1\",", "", "the key \"user\" is missing"),
            ("\"mutual_user\": \"t\",", "", "the key \"mutual_user\" is missing"),
            (
                ", \"mutual_password\": \"hush-4\"",
                "",
                &format!("\"mutual_password\" {x} is missing"),
            ),
            ("\"user\": \"x\",", "", &format!("the key \"user\" {x} is missing")),
            ("\"hush-1\"", "1234", "the key \"password\" is not a text"),
            ("\"hush-3\"", "[\"hush\"]", &format!("the key \"password\" {x} is not a text")),
            ("\"hush-1\"", "\"\"", "the key \"password\" is empty"),
            ("\"hush-1\"", "\"hush\\n\"", "the key \"password\" holds something else"),
            ("\"hush-2\"", "\"NULLhush\"", "the key \"mutual_password\" begins with NULL"),
            ("\"u\"", "\"\u{1}\"", "line 1, column"),
            ("\"hush-2\"", "\"hush-1\"", "\"mutual_password\" and \"password\" must differ"),
            ("\"hush-4\"", "\"hush-1\"", &format!("\"mutual_password\" {x} and \"password\" must")),
            ("\"hush-3\"", "\"hush-2\"", &format!("\"mutual_password\" and \"password\" {x} must")),
            ("iqn.2025-01.lab.home:x", "host-x", "\"host-x\" is not an iSCSI name"),
            ("{\"iqn", "[{\"iqn", "this is not JSON"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let wrong = parse(&GOOD.replacen(from, to, 1)).unwrap_err();
            assert!(wrong.contains(want), "{wrong}");
            assert!(!wrong.contains("hush") && !wrong.contains("1234"), "{wrong}");
        }
        for (text, want) in [
            ("{}", "neither a user nor an initiator"),
            ("{\"initiators\": {}}", "neither a user nor an initiator"),
            ("{\"initiators\": [\"hush\"]}", "\"initiators\" is not an object"),
            ("{\"initiators\": {\"iqn.2025-01.lab.home:x\": \"hush\"}}", ":x\" is not an object"),
            ("{\"initiators\": {\"iqn.2025-01.lab.home:x\": {}}}", "\"user\" of iqn"),
            ("{} hush", "line 1, column 4: this is not JSON"),
        ] {
            let wrong = parse(text).unwrap_err();
            assert!(wrong.contains(want), "{wrong}");
            assert!(!wrong.contains("hush"), "{wrong}");
        }
    }
}
