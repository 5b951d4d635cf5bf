//! The password: from the configuration, a file or a program. It is in no argument, environment,
//! message or log.

use crate::family::Family;
use crate::options::Options;
use hasan::chap::Secret;
use hasan::machine::Machine;
use std::path::Path;
use std::time::{Duration, Instant};

/// A program that prints a password may take so long.
const TIME: Duration = Duration::from_secs(10);

/// The password; the program counts before the file, and the file before what is configured.
pub(crate) fn password(options: &Options) -> Result<Option<Secret>, String> {
    let machine = Machine::local(Instant::now() + TIME);
    if let Some(script) = options.text("password_script") {
        return from_script(&machine, script).map(Some);
    }
    if let Some(path) = options.text("password_file") {
        let bytes = machine.read_private(Path::new(path)).map_err(|fault| fault.reason)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| format!("{path} is not text"))?;
        return first_line(text, path).map(Some);
    }
    Ok(options.text("password").map(|text| Secret::new(text.to_string())))
}

/// Checks what can be checked without looking at the machine.
///
/// # Errors
/// The option that is wrong.
pub(crate) fn check(options: &Options) -> Result<(), String> {
    for name in ["password_script", "password_file"] {
        match options.text(name) {
            Some(path) if !path.starts_with('/') => {
                return Err(format!("the option {name}: {path:?} is not an absolute path"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether name and password are given where nothing works without, by whichever way; no file is read.
///
/// # Errors
/// The option that is missing.
pub(crate) fn check_login(family: Family, options: &Options) -> Result<(), String> {
    if !family.needs_login() {
        return Ok(());
    }
    let ways: [(&str, &[&str]); 2] = [
        ("username", &["username"]),
        ("password", &["password", "password_file", "password_script"]),
    ];
    for (name, ways) in ways {
        if !ways.iter().any(|way| options.text(way).is_some()) {
            return Err(family.needs(name));
        }
    }
    Ok(())
}

/// What the program says on its standard output is shown nowhere, also when it fails.
fn from_script(machine: &Machine, script: &str) -> Result<Secret, String> {
    // An absolute path is taken as it is, also below the folders of programs.
    let answer = machine.ask(script, &[]).map_err(|fault| fault.reason)?;
    match answer.code {
        Some(0) => first_line(&answer.stdout, script),
        Some(code) => Err(format!("the program {script} ended with exit {code}")),
        None => Err(format!("the program {script} was ended by a signal")),
    }
}

fn first_line(text: &str, source: &str) -> Result<Secret, String> {
    match text.lines().next().map(str::trim_end).filter(|line| !line.is_empty()) {
        Some(line) => Ok(Secret::new(line.to_string())),
        None => Err(format!("the first line from {source} is empty")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    fn of(line: &str) -> Result<Option<String>, String> {
        let secret = password(&Options::from_lines(line))?;
        Ok(secret.map(|secret| secret.expose().to_string()))
    }

    #[test]
    fn what_nothing_works_without_is_missed_by_its_name() {
        let check = |family, lines: &str| check_login(family, &Options::from_lines(lines));
        assert_eq!(check(Family::Tapo, "username=me\npassword_file=/nowhere"), Ok(()));
        assert_eq!(check(Family::Tasmota, ""), Ok(()));
        for (family, lines, want) in [
            (Family::Tapo, "username=me", "password is required with type=tapo"),
            (Family::Fritz, "password=hush", "username is required with type=fritz"),
        ] {
            let wrong = check(family, lines).unwrap_err();
            assert!(wrong.contains(want), "{wrong}");
        }
    }

    #[test]
    fn a_password_comes_from_a_private_file_or_a_program() {
        let path = std::env::temp_dir().join(format!("hasan-fence-{}", std::process::id()));
        let shown = path.display();
        #[expect(clippy::disallowed_methods, reason = "a file is made for the test")]
        fs::write(&path, "hush\nmore\n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(of(&format!("password_file={shown}")), Ok(Some("hush".to_string())));
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let wrong = of(&format!("password_file={shown}")).unwrap_err();
        assert!(wrong.contains("chmod 600") && !wrong.contains("hush"), "{wrong}");
        fs::remove_file(&path).unwrap();
        assert_eq!(of("password=p"), Ok(Some("p".to_string())));
        assert_eq!(of(""), Ok(None));
        // Programs of every system: one prints a line, one fails, one prints nothing.
        assert_eq!(of("password_script=/usr/bin/whoami").map(|word| word.is_some()), Ok(true));
        assert!(of("password_script=/bin/false").unwrap_err().contains("ended with exit 1"));
        assert!(of("password_script=/bin/true").unwrap_err().contains("is empty"));
        assert!(of("password_script=/nowhere").unwrap_err().contains("is not installed"));
    }

    #[test]
    fn a_relative_path_is_refused_without_a_look() {
        let wrong = check(&Options::from_lines("password_file=secret")).unwrap_err();
        assert_eq!(wrong, "the option password_file: \"secret\" is not an absolute path");
        assert_eq!(check(&Options::from_lines("password_script=/nowhere")), Ok(()));
    }
}
