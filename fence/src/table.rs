//! The options of the fence contract: one table, of which the command line, the metadata and the checks of standard input
//! are made.
//!
//! Source of names and letters: FenceAgentAPI.md and `lib/fencing.py` of fence-agents.

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
pub(crate) const OLD_PLUG: &str = "port";
