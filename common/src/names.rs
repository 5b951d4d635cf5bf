//! Names of the field, checked: each function says what is wrong with a value, as the rest of a
//! sentence that begins with the value.

use std::net::SocketAddr;

/// An iSCSI qualified name that both the kernel and rtslib take: `iqn.YYYY-MM.` and a reversed
/// domain of two labels at least, no `_`, less than 224 bytes (RFC 3720 section 3.2.6.3, rtslib
/// `utils.py`).
pub fn iqn(value: &str) -> Result<(), String> {
    let wrong = || Err("is not an iSCSI name like iqn.2025-01.lab.home:storage".to_string());
    let Some(rest) = value.strip_prefix("iqn.") else { return wrong() };
    let (date, name) = (rest.get(..7), rest.get(8..).unwrap_or_default());
    let is_date = date.is_some_and(|date| {
        date.bytes().enumerate().all(|(at, c)| if at == 4 { c == b'-' } else { c.is_ascii_digit() })
    });
    let is_name = name
        .bytes()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'.' | b':'));
    let domain = name.split(':').next().unwrap_or_default();
    if !is_date || rest.as_bytes().get(7) != Some(&b'.') || !is_name || value.len() > 223 {
        return wrong();
    }
    if domain.split('.').filter(|label| !label.is_empty()).count() < 2 {
        return wrong();
    }
    Ok(())
}

/// A list of iSCSI names, separated by white space or commas.
pub fn iqns(value: &str) -> Result<(), String> {
    list(value)
        .into_iter()
        .try_for_each(|each| iqn(&each).map_err(|wrong| format!("holds {each:?}, which {wrong}")))
}

/// The items of a list parameter: separated by white space or commas.
pub fn list(value: &str) -> Vec<String> {
    let separators = |c: char| c.is_whitespace() || c == ',';
    value.split(separators).filter(|item| !item.is_empty()).map(str::to_string).collect()
}

/// A portal: `ADDRESS:PORT`, IPv6 in square brackets; never the wildcard address, which would take
/// the port from every other portal of the machine.
pub fn portal(value: &str) -> Result<(), String> {
    match value.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_unspecified() => {
            Err("is the wildcard address, which would close the other portals".to_string())
        }
        Ok(address) if address.port() == 0 => Err("has no port".to_string()),
        Ok(_) => Ok(()),
        Err(_) => Err("is not a portal like 10.0.0.1:3260 or [fd00::1]:3260".to_string()),
    }
}

/// A list of portals, separated by white space or commas; not an empty one.
pub fn portals(value: &str) -> Result<(), String> {
    let portals = list(value);
    if portals.is_empty() {
        return Err("names no portal".to_string());
    }
    portals.into_iter().try_for_each(|each| {
        portal(&each).map_err(|wrong| format!("holds {each:?}, which {wrong}"))
    })
}

/// The name of a pool (zpool-create(8)): it begins with a letter and is not a reserved word. ZFS takes blanks in
/// it, too.
pub fn pool(value: &str) -> Result<(), String> {
    let first = value.chars().next().is_some_and(|c| c.is_ascii_alphabetic());
    let reserved = ["mirror", "raidz", "draid", "spare"].iter().any(|word| value.starts_with(word));
    if value.contains(' ') {
        return Err("has a blank in it, and the list of pools in backend.conf has none".to_string());
    }
    if !first || reserved || value == "log" || !value.bytes().all(|c| is_zfs(c) && c != b'/') {
        return Err("is not the name of a pool".to_string());
    }
    Ok(())
}

/// The name of a dataset (zfs(8)): pool and components, separated by slashes.
pub fn dataset(value: &str) -> Result<(), String> {
    let mut parts = value.split('/');
    pool(parts.next().unwrap_or_default())
        .map_err(|_| "is not the name of a dataset like san-pool/iscsi".to_string())?;
    if parts.any(|part| ["", ".", ".."].contains(&part) || !part.bytes().all(is_zfs)) {
        return Err("is not the name of a dataset like san-pool/iscsi".to_string());
    }
    Ok(())
}

fn is_zfs(c: u8) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.' | b':' | b' ' | b'/')
}

/// A name that can be a device-mapper map, a file and a backstore at once.
pub fn plain(value: &str) -> Result<(), String> {
    let all = value.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'));
    let first = value.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric());
    if !all || !first || value.len() > 36 {
        return Err("is not a name of at most 36 letters, digits, '-', '_' and '.'".to_string());
    }
    Ok(())
}

/// An absolute path without characters that configfs or a list would read otherwise.
pub fn absolute_path(value: &str) -> Result<(), String> {
    if !value.starts_with('/') || value.contains([',', '\n', '\0']) {
        return Err("is not an absolute path".to_string());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_pass_and_names_that_do_not() {
        type Check = fn(&str) -> Result<(), String>;
        let table: &[(Check, &[&str], &[&str])] = &[
            (
                iqn,
                &["iqn.2025-01.lab.home:storage-a", "iqn.1993-08.org.debian:01:abc"],
                &[
                    "",
                    "iqn.2025-01.lab:x",
                    "iqn.2025_01.lab.home:x",
                    "iqn.2025-01.lab.home:a_b",
                    "naa.5",
                    "iqn.2025-0é",
                ],
            ),
            (
                iqns,
                &["", "iqn.2025-01.lab.home:a iqn.2025-01.lab.home:b"],
                &["iqn.2025-01.lab.home:a x"],
            ),
            (
                portal,
                &["10.40.40.10:3260", "[fd00::1]:3260"],
                &["10.40.40.10", "0.0.0.0:3260", "[::]:3260", "host:3260", "10.0.0.1:0", ""],
            ),
            (portals, &["10.40.40.10:3260,[fd00::1]:3260"], &["", " ", "10.40.40.10:3260 x"]),
            (
                pool,
                &["san-pool", "tank", "log1", "a:b"],
                &["", "1pool", "mirror-1", "log", "a/b", "a,b", "a b", "ab "],
            ),
            (
                dataset,
                &["san-pool/iscsi/hypervisor", "tank", "tank/a b"],
                &["", "a b/c", "tank/", "tank//a", "tank/a@s", "tank/.", "tank/../a"],
            ),
            (plain, &["data-a1", "data-a-a"], &["", "-a", "a/b", "a b", &"x".repeat(37)]),
            (absolute_path, &["/dev/vdb"], &["vdb", "/dev/a,b"]),
        ];
        for (check, good, bad) in table {
            for value in *good {
                assert_eq!(check(value), Ok(()), "{value:?}");
            }
            for value in *bad {
                assert!(check(value).is_err(), "{value:?}");
            }
        }
    }

    #[test]
    fn a_list_is_separated_by_spaces_or_commas() {
        assert_eq!(list(" a, b\tc,,"), ["a", "b", "c"]);
    }
}
