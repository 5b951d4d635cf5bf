//! What the host needs: Debian packages.

use crate::command::run;
use anyhow::{Context, Result};
use std::fs;
use std::time::Duration;

const APT: Duration = Duration::from_secs(900);

/// Installs what is missing: each program, or other file below /usr, with the package that brings it.
///
/// # Errors
/// apt-get fails.
pub fn install(needs: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> = needs
        .iter()
        .filter(|(program, _)| !is_there(program))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing {}", missing.join(" "));
    run(APT, "apt-get", &["update", "-q"])?;
    // Parts of QEMU from backports do not go with the release's own: all from the release.
    let release = codename()?;
    let exact = |package: &&str| match package.starts_with("qemu-") {
        true => format!("{package}/{release}"),
        false => package.to_string(),
    };
    let packages: Vec<String> = missing.iter().map(exact).collect();
    let mut arguments =
        vec!["install", "-q", "-y", "--no-install-recommends", "--allow-downgrades"];
    arguments.extend(packages.iter().map(String::as_str));
    run(APT, "apt-get", &arguments).map(|_| ())
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

/// The Debian mirror that this host uses, from its apt sources in either format.
///
/// # Errors
/// They name none.
pub fn mirror() -> Result<String> {
    let mut texts = vec![fs::read_to_string("/etc/apt/sources.list").unwrap_or_default()];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        texts.extend(paths.iter().map(|path| fs::read_to_string(path).unwrap_or_default()));
    }
    let words = texts.iter().flat_map(|text| text.lines()).filter(|line| !line.starts_with('#'));
    words
        .flat_map(str::split_whitespace)
        .find(|word| word.starts_with("http") && word.trim_end_matches('/').ends_with("/debian"))
        .map(str::to_string)
        .context("the apt sources of this host name no Debian mirror")
}
