//! What the host needs: Debian packages.

use crate::command::run;
use anyhow::{Context, Result, bail};
use std::fs;
use std::time::Duration;

const APT: Duration = Duration::from_secs(900);

/// Installs what is missing: each program, or other file below /usr, with the package that brings it.
///
/// # Errors
/// apt-get fails, or something is missing still.
pub fn install(needs: &[(&str, &str)]) -> Result<()> {
    let is_missing = |(file, _): &&(&str, &str)| !is_there(file);
    let missing: Vec<&str> = needs.iter().filter(is_missing).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages = wanted(&missing, needs, &codename()?);
    println!("installing {}", packages.join(" "));
    run(APT, "apt-get", &["update", "-q"])?;
    let mut arguments =
        vec!["install", "-q", "-y", "--no-install-recommends", "--allow-downgrades"];
    arguments.extend(packages.iter().map(String::as_str));
    run(APT, "apt-get", &arguments)?;
    match needs.iter().find(is_missing) {
        None => Ok(()),
        Some((file, package)) => bail!("{package} is installed and brings no {file}"),
    }
}

/// What apt-get is asked for. Parts of QEMU from backports do not go with the release's own, and where one is there already,
/// another one of the release would remove it: so all are asked for, from the release.
fn wanted(missing: &[&str], needs: &[(&str, &str)], release: &str) -> Vec<String> {
    let is_qemu = |package: &str| package.starts_with("qemu-");
    let needs_qemu = missing.iter().any(|package| is_qemu(package));
    let mut packages: Vec<String> = missing
        .iter()
        .filter(|package| !is_qemu(package))
        .map(|package| package.to_string())
        .collect();
    let all_of_qemu = needs.iter().filter(|(_, package)| needs_qemu && is_qemu(package));
    packages.extend(all_of_qemu.map(|(_, package)| format!("{package}/{release}")));
    packages
}

fn is_there(program: &str) -> bool {
    ["/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/lib"]
        .iter()
        .any(|folder| std::path::Path::new(folder).join(program).exists())
}

fn codename() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(name.context("/etc/os-release names no release")?.trim_matches('"').to_string())
}

/// What Debian itself calls its mirrors.
const MIRROR: &str = "http://deb.debian.org/debian";

/// The Debian mirror that this host uses, from its apt sources in either format, or from the lists of mirrors that they name.
pub fn mirror() -> String {
    let mut texts = vec![fs::read_to_string("/etc/apt/sources.list").unwrap_or_default()];
    for folder in ["/etc/apt/sources.list.d", "/etc/apt/mirrors"] {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        texts.extend(paths.iter().map(|path| fs::read_to_string(path).unwrap_or_default()));
    }
    mirror_in(&texts).unwrap_or(MIRROR).to_string()
}

fn mirror_in(texts: &[String]) -> Option<&str> {
    let words = texts.iter().flat_map(|text| text.lines()).filter(|line| !line.starts_with('#'));
    words
        .flat_map(str::split_whitespace)
        .find(|word| word.starts_with("http") && word.trim_end_matches('/').ends_with("/debian"))
}

#[cfg(test)]
mod tests {
    use super::{mirror_in, wanted};

    #[test]
    fn all_parts_of_qemu_are_of_the_release() {
        let needs = [("a", "qemu-a"), ("b", "b"), ("c", "qemu-c"), ("d", "d")];
        assert_eq!(wanted(&["b"], &needs, "x"), ["b"]);
        assert_eq!(wanted(&["d", "qemu-c"], &needs, "x"), ["d", "qemu-a/x", "qemu-c/x"]);
    }

    #[test]
    fn the_mirror_is_found_in_each_form() {
        let security = "URIs: http://security.example/debian-security\n";
        for (text, want) in [
            ("deb http://one.example/debian bookworm main\n", Some("http://one.example/debian")),
            (
                "Types: deb\nURIs: https://two.example/debian/\n",
                Some("https://two.example/debian/"),
            ),
            ("URIs: mirror+file:///etc/apt/mirrors/debian.list\n", None),
            ("https://three.example/debian\n", Some("https://three.example/debian")),
            ("# deb http://four.example/debian bookworm main\n", None),
            ("", None),
        ] {
            assert_eq!(mirror_in(&[security.to_string(), text.to_string()]), want, "{text}");
        }
    }
}
