//! The options of the fence contract: one table, of which the command line, the metadata and the
//! checks of standard input are made.
//!
//! Source of names and letters: FenceAgentAPI.md and `lib/fencing.py` of fence-agents.

use clap::{Arg, ArgAction, Command};
use std::collections::BTreeMap;

/// One option.
pub(crate) struct Opt {
    /// Its name on standard input; on the command line with hyphens.
    pub(crate) name: &'static str,
    /// Its name in older agents, still taken.
    pub(crate) old: Option<&'static str>,
    /// Its letter on the command line.
    pub(crate) letter: Option<char>,
    /// What values it takes.
    pub(crate) kind: Kind,
    /// The value when it is not given.
    pub(crate) default: Option<&'static str>,
    /// Whether nothing works without it.
    pub(crate) required: bool,
    /// One line.
    pub(crate) short: &'static str,
    /// What more there is to say; may be empty.
    pub(crate) long: &'static str,
}

/// The form of an option's value.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// Any text.
    Text,
    /// A whole number.
    Number,
    /// A number of seconds, with a fraction if need be.
    Seconds,
    /// True by its mere presence on the command line; a boolean on standard input.
    Flag,
    /// A boolean.
    Boolean,
    /// One of these.
    Choice(&'static [&'static str]),
}

const fn opt(name: &'static str, kind: Kind, short: &'static str) -> Opt {
    Opt { name, old: None, letter: None, kind, default: None, required: false, short, long: "" }
}

/// All options, in the order of the documentation.
pub(crate) const TABLE: &[Opt] = &[
    Opt {
        letter: Some('o'),
        default: Some("reboot"),
        required: true,
        long: "on, off, reboot, status, monitor, list, list-status, validate-all, metadata or manpage.",
        ..opt("action", Kind::Text, "What to do")
    },
    Opt {
        required: true,
        long: "It is never guessed. tasmota also serves OpenBeken; shelly1 is the first generation, \
               shelly2 every later one; kasa is the protocol of TCP port 9999, klap the same by KLAP, to \
               which newer firmware moves it, and tapo that of Tapo plugs by KLAP; such plugs may \
               refuse commands without TP-Link's cloud. http takes the three URLs and two \
               expressions below.",
        ..opt("type", Kind::Choice(crate::family::NAMES), "Family of the plug")
    },
    Opt {
        old: Some("ipaddr"),
        letter: Some('a'),
        long: "An address is better than a name: a name needs a name server that answers.",
        ..opt("ip", Kind::Text, "Address of the plug")
    },
    Opt {
        letter: Some('u'),
        long: "Default: 80, with TLS 443; kasa 9999; homeassistant 8123.",
        ..opt("ipport", Kind::Number, "TCP port of the plug")
    },
    Opt {
        letter: Some('n'),
        long: "The outlet: tasmota and netio count from 1, shelly from 0; kasa, klap and tapo take the outlet's name or \
               its position from 1, tapo its id too; esphome the name of the switch; fritz the AIN; homeassistant the entity, such as \
               switch.node_a. Several, separated by plug_separator, are the supplies of one node: \
               all are off at one time before any is on again. A device with one outlet only (kasa, klap \
               and tapo without children, mystrom, http) needs none.",
        ..opt("plug", Kind::Text, "Outlet of the node")
    },
    Opt {
        default: Some(","),
        ..opt("plug_separator", Kind::Text, "What separates several outlets")
    },
    Opt {
        old: Some("login"),
        letter: Some('l'),
        long: "Default: admin, where the family knows one. klap and tapo: the e-mail address of the \
               account that the plug is bound to, written as in its app.",
        ..opt("username", Kind::Text, "User name")
    },
    Opt {
        old: Some("passwd"),
        letter: Some('p'),
        long: "For homeassistant a long-lived access token. password_file keeps it out of the \
               cluster's configuration.",
        ..opt("password", Kind::Text, "Password")
    },
    Opt {
        old: Some("passwd_script"),
        letter: Some('S'),
        long: "An absolute path. It gets no argument and ten seconds.",
        ..opt("password_script", Kind::Text, "Program that prints the password")
    },
    Opt {
        long: "The same file on every node, which root alone can read. Its first line counts.",
        ..opt("password_file", Kind::Text, "File with the password")
    },
    Opt { letter: Some('z'), ..opt("ssl", Kind::Flag, "Use TLS, and verify the certificate") },
    opt("ssl_secure", Kind::Flag, "Use TLS, and verify the certificate"),
    opt("ssl_insecure", Kind::Flag, "Use TLS, and verify nothing"),
    opt("ssl_ca_file", Kind::Text, "PEM file of the authority that is believed, with TLS"),
    Opt {
        long: "64 hexadecimal digits, colons allowed, as \"openssl x509 -noout -fingerprint -sha256\" \
               prints them. Only this certificate is believed, whatever name and dates it bears.",
        ..opt("ssl_fingerprint", Kind::Text, "SHA-256 of the plug's own certificate, with TLS")
    },
    Opt { letter: Some('4'), ..opt("inet4_only", Kind::Flag, "Use IPv4 alone") },
    Opt { letter: Some('6'), ..opt("inet6_only", Kind::Flag, "Use IPv6 alone") },
    opt("power_off_url", Kind::Text, "type=http: what switches off; a URL, or a path at ip"),
    opt("power_on_url", Kind::Text, "type=http: what switches on"),
    opt("status_url", Kind::Text, "type=http: what tells the state"),
    opt("status_on_regex", Kind::Text, "type=http: matches the answer of a plug that is on, alone"),
    opt(
        "status_off_regex",
        Kind::Text,
        "type=http: matches the answer of a plug that is off, alone",
    ),
    Opt {
        default: Some("GET"),
        ..opt(
            "power_method",
            Kind::Choice(&["GET", "POST"]),
            "type=http: method of both power URLs",
        )
    },
    Opt {
        long: "esphome: the sensor's name; homeassistant: its entity, such as sensor.node_a_power. \
               Other families tell by themselves.",
        ..opt("power_sensor", Kind::Text, "Sensor of the watts that the node draws")
    },
    Opt {
        default: Some("10"),
        long: "Watts can only disprove: none at all prove nothing. A large number lets them out.",
        ..opt("off_watts", Kind::Number, "An outlet that draws more watts than this is not off")
    },
    Opt {
        default: Some("3"),
        long: "After it, the state is read once more, and what will switch on again by itself is a \
               failure.",
        ..opt("hold", Kind::Seconds, "How long an outlet has to stay off")
    },
    Opt {
        default: Some("warn"),
        long: "Settings of the plug that undo a fence, such as a timer that switches on. monitor \
               reads them and never writes one.",
        ..opt(
            "unsafe_settings",
            Kind::Choice(&["warn", "fail", "ignore"]),
            "What monitor does about unsafe settings",
        )
    },
    Opt { default: Some("0"), ..opt("delay", Kind::Seconds, "Wait before off and reboot") },
    Opt {
        default: Some("20"),
        long: "For all outlets together; hold and power_wait come on top. An off always ends within \
               it, also with disable_timeout.",
        ..opt("power_timeout", Kind::Seconds, "Until when a change has to be read")
    },
    Opt { default: Some("0"), ..opt("power_wait", Kind::Seconds, "Wait after a command") },
    Opt { default: Some("3"), ..opt("login_timeout", Kind::Seconds, "Time for a connection") },
    Opt { default: Some("5"), ..opt("shell_timeout", Kind::Seconds, "Time for one request") },
    Opt {
        default: Some("1"),
        ..opt("stonith_status_sleep", Kind::Seconds, "Pause between two looks at the state")
    },
    Opt { default: Some("1"), ..opt("retry_on", Kind::Number, "How often an on is sent again") },
    Opt {
        long: "Taken and without effect: the limits of this agent hold always, and end below \
               Pacemaker's own.",
        ..opt("disable_timeout", Kind::Boolean, "For the sake of other agents")
    },
    Opt {
        letter: Some('C'),
        default: Some(","),
        ..opt("separator", Kind::Text, "What separates the columns of list")
    },
    Opt { letter: Some('v'), ..opt("verbose", Kind::Flag, "Tell every step on standard error") },
    opt("verbose_level", Kind::Number, "The same: above 0 every step is told"),
    Opt {
        old: Some("debug"),
        letter: Some('D'),
        ..opt("debug_file", Kind::Text, "Write every step to this file")
    },
    Opt { letter: Some('q'), ..opt("quiet", Kind::Flag, "Tell nothing on standard error") },
];

/// The outlet's name in older agents. It is not in the metadata: Pacemaker up to 2.1 would fill in
/// `port` beside a `plug` that was configured (`fenced_commands.c`).
const OLD_PLUG: &str = "port";

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
