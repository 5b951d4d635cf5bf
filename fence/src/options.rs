//! Options as they are given: on standard input or on the command line.

use crate::table::{Kind, OLD_PLUG, Opt, TABLE};
use clap::{Arg, ArgAction, Command};
use std::collections::BTreeMap;

/// Options as they were given; defaults fill in for the others. They hold a password, so they have
/// no `Debug`.
#[derive(Default)]
pub(crate) struct Options {
    given: BTreeMap<&'static str, String>,
    /// The node that Pacemaker means.
    pub(crate) nodename: Option<String>,
    /// Names on standard input that nobody knows.
    pub(crate) unknown: Vec<String>,
}

impl Options {
    /// Standard input: `key=value` in each line; the last value counts, and a current name counts
    /// more than an obsolete one.
    pub(crate) fn from_lines(text: &str) -> Options {
        let mut options = Options::default();
        let mut by_old_name = BTreeMap::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((key, value)) = line.split_once('=') else {
                // It is not shown: it may be the second line of a password.
                options.unknown.push("a line without =".to_string());
                continue;
            };
            let (key, value) = (key.trim().replace('-', "_"), unquoted(value.trim()).to_string());
            if key == "nodename" {
                options.nodename = Some(value);
            } else if let Some(opt) = TABLE.iter().find(|opt| opt.name == key) {
                options.given.insert(opt.name, value);
            } else if let Some(opt) = of_old_name(&key) {
                by_old_name.insert(opt.name, value);
            } else {
                options.unknown.push(key);
            }
        }
        for (name, value) in by_old_name {
            options.given.entry(name).or_insert(value);
        }
        options.given.retain(|_, value| !value.is_empty());
        options
    }

    /// The command line.
    ///
    /// # Errors
    /// Help, version, or what is wrong, to be printed.
    pub(crate) fn from_arguments(arguments: &[String]) -> Result<Options, clap::Error> {
        let matches = command_line().try_get_matches_from(arguments)?;
        let mut options = Options::default();
        for opt in TABLE {
            let value = match opt.kind {
                Kind::Flag => matches.get_flag(opt.name).then(|| "1".to_string()),
                _ => matches.get_one::<String>(opt.name).cloned(),
            };
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                options.given.insert(opt.name, value);
            }
        }
        Ok(options)
    }

    /// The value of an option, or its default.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        let opt = TABLE.iter().find(|opt| opt.name == name);
        debug_assert!(opt.is_some(), "{name} is no option");
        self.given.get(name).map(String::as_str).or(opt?.default)
    }

    /// Whether a boolean option is set.
    ///
    /// # Errors
    /// What is wrong with its value.
    pub(crate) fn is_set(&self, name: &str) -> Result<bool, String> {
        match self.text(name).unwrap_or("0").to_ascii_lowercase().as_str() {
            "1" | "yes" | "y" | "true" | "on" => Ok(true),
            "0" | "no" | "n" | "false" | "off" => Ok(false),
            other => Err(format!("the option {name}: {other:?} is neither true nor false")),
        }
    }

    /// The value of an option that is a whole number.
    ///
    /// # Errors
    /// What is wrong with its value.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u32>, String> {
        let Some(value) = self.text(name) else { return Ok(None) };
        let wrong = |_| format!("the option {name}: {value:?} is not a whole number");
        value.parse().map(Some).map_err(wrong)
    }

    /// Checks every value that is given against the form of its option.
    ///
    /// # Errors
    /// The first that is wrong.
    pub(crate) fn check(&self) -> Result<(), String> {
        for opt in TABLE {
            let name = opt.name;
            match opt.kind {
                Kind::Text => {}
                Kind::Number => drop(self.number(name)?),
                Kind::Seconds => drop(self.seconds(name)?),
                Kind::Flag | Kind::Boolean => drop(self.is_set(name)?),
                Kind::Choice(choices) => match self.text(name) {
                    Some(value) if !choices.contains(&value) => {
                        let choices = choices.join(", ");
                        return Err(format!("the option {name}: {value:?} is none of {choices}"));
                    }
                    _ => {}
                },
            }
            if opt.required && self.text(name).is_none() {
                return Err(format!("the option {name} is required"));
            }
        }
        Ok(())
    }

    /// The value of an option that is a time; zero if it has none.
    ///
    /// # Errors
    /// What is wrong with its value.
    pub(crate) fn seconds(&self, name: &str) -> Result<std::time::Duration, String> {
        /// A day.
        const LONGEST: f64 = 86_400.0;
        let value = self.text(name).unwrap_or("0");
        // `f64` also reads "inf" and "1e3".
        let is_plain = value.bytes().all(|c| c.is_ascii_digit() || c == b'.');
        match value.parse::<f64>() {
            Ok(seconds) if is_plain && seconds <= LONGEST => {
                Ok(std::time::Duration::from_secs_f64(seconds))
            }
            _ => Err(format!("the option {name}: {value:?} is not a number of seconds")),
        }
    }
}

fn of_old_name(key: &str) -> Option<&'static Opt> {
    let name = if key == OLD_PLUG { Some("plug") } else { None };
    TABLE.iter().find(|opt| opt.old == Some(key) || name == Some(opt.name))
}

/// One pair of double quotes around a value goes, as in other agents.
fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

fn command_line() -> Command {
    let mut command = Command::new("fence_smartplug")
        .version(env!("CARGO_PKG_VERSION"))
        .about(crate::metadata::SHORT)
        .long_about(crate::metadata::LONG);
    for opt in TABLE {
        let mut arg = Arg::new(opt.name).long(opt.name.replace('_', "-")).help(help(opt));
        if let Some(letter) = opt.letter {
            arg = arg.short(letter);
        }
        for old in opt.old.iter().chain((opt.name == "plug").then_some(&OLD_PLUG)) {
            arg = arg.alias(old.replace('_', "-"));
        }
        arg = match opt.kind {
            // Given twice it is as good as once: `-vv`.
            Kind::Flag => arg.action(ArgAction::SetTrue).overrides_with(opt.name),
            _ => arg.value_name(opt.name).overrides_with(opt.name),
        };
        command = command.arg(arg);
    }
    command
}

fn help(opt: &Opt) -> String {
    let mut text = opt.short.to_string();
    if let Kind::Choice(choices) = opt.kind {
        text = format!("{text}: {}", choices.join(", "));
    }
    match opt.default {
        Some(default) => format!("{text} [default: {default}]"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn standard_input_is_read_as_other_agents_read_it() {
        let options = Options::from_lines(
            "# a comment\n\n action = off \nipaddr=old\nip=new\nip=newer\npasswd=\"a=b\"\n\
             power-timeout=7\nport=storage-a\nplug=1\nnodename=storage-a\nstrange=1\nno line\nssl=0\n",
        );
        for (name, want) in [
            ("action", Some("off")),
            ("ip", Some("newer")),
            ("password", Some("a=b")),
            ("power_timeout", Some("7")),
            ("plug", Some("1")),
            ("hold", Some("3")),
            ("username", None),
        ] {
            assert_eq!(options.text(name), want, "{name}");
        }
        assert_eq!(options.nodename.as_deref(), Some("storage-a"));
        assert_eq!(options.unknown, ["strange", "a line without ="]);
        assert_eq!(options.is_set("ssl"), Ok(false));
        assert_eq!(Options::from_lines("port=3").text("plug"), Some("3"));
    }

    #[test]
    fn the_command_line_knows_all_options_with_their_old_names() {
        let line =
            "x -o status -a 192.0.2.1 --port 2 --login me --passwd=p -z -vv --disable-timeout true";
        let words: Vec<String> = line.split(' ').map(str::to_string).collect();
        let options = Options::from_arguments(&words).unwrap();
        for (name, want) in [
            ("action", "status"),
            ("ip", "192.0.2.1"),
            ("plug", "2"),
            ("username", "me"),
            ("password", "p"),
            ("ssl", "1"),
            ("verbose", "1"),
            ("disable_timeout", "true"),
        ] {
            assert_eq!(options.text(name), Some(want), "{name}");
        }
        assert!(Options::from_arguments(&["x".to_string(), "--nonsense".to_string()]).is_err());
        command_line().debug_assert();
    }

    #[test]
    fn a_wrong_value_is_named() {
        for (line, want) in [
            ("type=tasmota\nssl=perhaps", "the option ssl: \"perhaps\" is neither true nor false"),
            ("type=tasmota\nretry_on=-1", "the option retry_on: \"-1\" is not a whole number"),
            ("type=tasmota\nhold=1e3", "the option hold: \"1e3\" is not a number of seconds"),
            ("type=tasmota\nhold=.", "the option hold: \".\" is not a number of seconds"),
            ("type=tasmota\ndelay=inf", "the option delay: \"inf\" is not a number of seconds"),
            ("type=wemo", "the option type: \"wemo\" is none of tasmota, "),
            ("", "the option type is required"),
        ] {
            let wrong = Options::from_lines(line).check().unwrap_err();
            assert!(wrong.starts_with(want), "{wrong}");
        }
        let options = Options::from_lines("type=tasmota\nhold=0.25");
        assert_eq!(options.check(), Ok(()));
        assert_eq!(options.seconds("hold"), Ok(Duration::from_millis(250)));
    }

    #[test]
    fn every_default_passes_its_own_check_and_no_name_is_taken_twice() {
        assert_eq!(Options::from_lines("type=kasa").check(), Ok(()));
        let mut names = std::collections::BTreeSet::new();
        for opt in TABLE {
            assert!(!opt.short.is_empty(), "{}", opt.name);
            for name in std::iter::once(opt.name).chain(opt.old) {
                assert!(names.insert(name), "{name}");
            }
        }
    }
}
