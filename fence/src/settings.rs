//! What the options mean: checked once, and nothing is sent or read for it.

use crate::address::{Limits, Network, Place};
use crate::family::{Family, Template, check_sensor};
use crate::fencing::Rules;
use crate::http::{Auth, Http, Method};
use crate::options::Options;
use crate::secret;
use crate::tls::{Tls, fingerprint};
use regex_lite::Regex;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// What a monitor does about settings of the plug that undo a fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsafe {
    /// Tells them.
    Warn,
    /// Fails.
    Fail,
    /// Does not look.
    Ignore,
}

/// Everything that was configured, except the password.
pub(crate) struct Settings {
    pub(crate) family: Family,
    pub(crate) place: Place,
    pub(crate) tls: Tls,
    pub(crate) username: Option<String>,
    /// The node's name, where Pacemaker has put it in the place of an outlet.
    pub(crate) node: Option<String>,
    /// The outlets of the node; none is the only one of its device.
    pub(crate) outlets: Vec<String>,
    pub(crate) limits: Limits,
    pub(crate) rules: Rules,
    pub(crate) delay: Duration,
    pub(crate) unsafe_settings: Unsafe,
    pub(crate) power_sensor: Option<String>,
    pub(crate) template: Option<Template>,
    pub(crate) separator: String,
}

impl Settings {
    /// Reads the options.
    ///
    /// # Errors
    /// The first option that is wrong or missing, with its value.
    pub(crate) fn new(options: &Options) -> Result<Settings, String> {
        options.check()?;
        secret::check(options)?;
        let family = options.text("type").and_then(Family::named);
        let family = family.ok_or_else(|| "the option type is required".to_string())?;
        let template = match family {
            Family::Template => Some(template(options)?),
            _ => None,
        };
        let has_tls = has_tls(options)? || template.as_ref().is_some_and(Template::has_tls);
        if has_tls && !family.knows_tls() {
            return Err(format!("the option ssl: type={} knows no TLS", family.name()));
        }
        let text = |name: &str| options.text(name).map(str::to_string);
        let place = place(options, family, has_tls, template.as_ref())?;
        for (host, _) in template.iter().flat_map(Template::urls).filter_map(|url| url_parts(url)) {
            if host != place.host {
                // The password would go to both.
                let (one, other) = (&place.host, &host);
                return Err(format!(
                    "the URLs of type=http are at two hosts, {one:?} and {other:?}"
                ));
            }
        }
        let settings = Settings {
            family,
            place,
            tls: if has_tls { tls(options)? } else { no_tls(options)? },
            username: text("username"),
            node: options.nodename.clone().filter(|node| options.text("plug") == Some(node)),
            outlets: outlets(options, family)?,
            limits: Limits {
                connect: limit(options, "login_timeout")?,
                request: limit(options, "shell_timeout")?,
            },
            rules: rules(options)?,
            delay: options.seconds("delay")?,
            unsafe_settings: match options.text("unsafe_settings") {
                Some("fail") => Unsafe::Fail,
                Some("ignore") => Unsafe::Ignore,
                _ => Unsafe::Warn,
            },
            power_sensor: text("power_sensor"),
            template,
            separator: text("separator").unwrap_or_default(),
        };
        settings.check_sensor()?;
        Ok(settings)
    }

    /// The device, to be asked by HTTP; nothing is sent yet.
    pub(crate) fn http(&self, auth: Auth) -> Http {
        Http::new(self.place.clone(), self.tls.clone(), auth, self.limits)
    }

    fn check_sensor(&self) -> Result<(), String> {
        let Some(sensor) = &self.power_sensor else { return Ok(()) };
        match self.family {
            Family::Homeassistant => check_sensor(sensor),
            Family::Esphome => Ok(()),
            _ => Err(format!("the option power_sensor: type={} needs none", self.family.name())),
        }
    }

    /// Whether it is not known yet which outlet is meant.
    pub(crate) fn has_no_outlet(&self) -> bool {
        self.outlets.is_empty() || self.node.is_some()
    }

    /// The outlets, each of which its family may have; `None` is the only one.
    ///
    /// # Errors
    /// If there is none where one is needed, or one that cannot be.
    pub(crate) fn checked_outlets(&self) -> Result<Vec<Option<&str>>, String> {
        if self.outlets.is_empty() && !self.family.may_have_one_outlet() {
            let name = self.family.name();
            return Err(format!(
                "the option plug is required with type={name}: which outlet is the node's?"
            ));
        }
        for outlet in &self.outlets {
            self.family.check_outlet(outlet).map_err(|wrong| {
                format!("{wrong}; if it is the node's name: plug or pcmk_host_map has to tell the outlet")
            })?;
        }
        if self.outlets.is_empty() {
            return Ok(vec![None]);
        }
        Ok(self.outlets.iter().map(|outlet| Some(outlet.as_str())).collect())
    }
}

/// Pacemaker fills in the node's name where no outlet is configured. A device that has one outlet
/// alone has no use for it.
fn outlets(options: &Options, family: Family) -> Result<Vec<String>, String> {
    let Some(text) = options.text("plug") else { return Ok(Vec::new()) };
    if options.nodename.as_deref() == Some(text) && family.has_one_outlet() {
        return Ok(Vec::new());
    }
    let separator = options.text("plug_separator").unwrap_or(",");
    let outlets: Vec<String> = text.split(separator).map(|each| each.trim().to_string()).collect();
    let mut seen = BTreeSet::new();
    for outlet in &outlets {
        if outlet.is_empty() {
            return Err(format!("the option plug: {text:?} has an outlet without a name"));
        }
        if !seen.insert(plain(outlet)) {
            return Err(format!("the option plug: {text:?} has the outlet {outlet:?} twice"));
        }
    }
    let mut ways = outlets.iter().map(|outlet| way_of_naming(outlet));
    let first = ways.next().unwrap_or_default();
    if let Some(other) = ways.find(|way| family.has_sockets() && *way != first) {
        // They might be the same outlet.
        return Err(format!("the option plug: {text:?} has {first} and {other}"));
    }
    if family.has_one_outlet() && outlets.len() > 1 {
        let name = family.name();
        return Err(format!("the option plug: {text:?}: type={name} has one outlet"));
    }
    Ok(outlets)
}

/// How a socket of a strip is named. The ids of TP-Link have at least 40 hexadecimal digits.
fn way_of_naming(outlet: &str) -> &'static str {
    let is_id = outlet.len() >= 40 && outlet.bytes().all(|c| c.is_ascii_hexdigit());
    let is_position = outlet.bytes().all(|c| c.is_ascii_digit());
    match (is_id, is_position) {
        (true, _) => "an id",
        (false, true) => "a position",
        (false, false) => "a name",
    }
}

/// What two spellings of one outlet have in common: two supplies on one outlet would be a false off.
fn plain(outlet: &str) -> String {
    outlet.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// A limit of no time at all would be no limit to some.
fn limit(options: &Options, name: &str) -> Result<Duration, String> {
    match options.seconds(name)? {
        Duration::ZERO => Err(format!("the option {name}: 0 is no time limit")),
        time => Ok(time),
    }
}

fn rules(options: &Options) -> Result<Rules, String> {
    Ok(Rules {
        power_timeout: limit(options, "power_timeout")?,
        power_wait: options.seconds("power_wait")?,
        poll: options.seconds("stonith_status_sleep")?.max(Duration::from_millis(10)),
        hold: options.seconds("hold")?,
        retry_on: options.number("retry_on")?.unwrap_or(1),
        off_watts: f64::from(options.number("off_watts")?.unwrap_or(10)),
    })
}

fn has_tls(options: &Options) -> Result<bool, String> {
    for name in ["ssl", "ssl_secure", "ssl_insecure"] {
        if options.is_set(name)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Who names a certificate believes that it is looked at.
fn no_tls(options: &Options) -> Result<Tls, String> {
    match ["ssl_ca_file", "ssl_fingerprint"].iter().find(|name| options.text(name).is_some()) {
        Some(name) => Err(format!("the option {name} is nothing without ssl=1")),
        None => Ok(Tls::None),
    }
}

fn tls(options: &Options) -> Result<Tls, String> {
    let ways = ["ssl_secure", "ssl_insecure", "ssl_ca_file", "ssl_fingerprint"];
    let is_given = |name: &str| match name {
        "ssl_secure" | "ssl_insecure" => options.is_set(name),
        _ => Ok(options.text(name).is_some()),
    };
    let mut given = Vec::new();
    for name in ways {
        if is_given(name)? {
            given.push(name);
        }
    }
    match given.as_slice() {
        [] | ["ssl_secure"] => Ok(Tls::System),
        ["ssl_insecure"] => Ok(Tls::Insecure),
        ["ssl_ca_file"] | ["ssl_secure", "ssl_ca_file"] => {
            Ok(Tls::Authority(PathBuf::from(options.text("ssl_ca_file").unwrap_or_default())))
        }
        ["ssl_fingerprint"] | ["ssl_secure", "ssl_fingerprint"] => {
            let digest = fingerprint(options.text("ssl_fingerprint").unwrap_or_default());
            Ok(Tls::Fingerprint(
                digest.map_err(|wrong| format!("the option ssl_fingerprint: {wrong}"))?,
            ))
        }
        both => Err(format!("the options {} contradict each other", both.join(" and "))),
    }
}

fn template(options: &Options) -> Result<Template, String> {
    let needed = |name: &str| {
        let text = options.text(name).map(str::to_string);
        text.ok_or_else(|| format!("the option {name} is required with type=http"))
    };
    // A URL may hold secrets, so it is not shown.
    let url = |name: &str| match needed(name)? {
        url if url.starts_with('/') || url_parts(&url).is_some() => Ok(url),
        _ => Err(format!("the option {name} is neither an http(s) URL nor a path")),
    };
    let regex = |name: &str| {
        let text = needed(name)?;
        Regex::new(&text).map_err(|error| format!("the option {name}: {text:?}: {error}"))
    };
    let template = Template {
        off_url: url("power_off_url")?,
        on_url: url("power_on_url")?,
        status_url: url("status_url")?,
        on: regex("status_on_regex")?,
        off: regex("status_off_regex")?,
        method: if options.text("power_method") == Some("POST") {
            Method::Post
        } else {
            Method::Get
        },
    };
    if template.on.as_str() == template.off.as_str() {
        return Err("the options status_on_regex and status_off_regex are the same".to_string());
    }
    Ok(template)
}

/// Host and port of a whole URL.
fn url_parts(url: &str) -> Option<(String, u16)> {
    let url =
        reqwest::Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    let host = url.host_str()?.trim_start_matches('[').trim_end_matches(']').to_string();
    Some((host, url.port_or_known_default()?))
}

fn place(
    options: &Options,
    family: Family,
    has_tls: bool,
    template: Option<&Template>,
) -> Result<Place, String> {
    let network = match (options.is_set("inet4_only")?, options.is_set("inet6_only")?) {
        (true, true) => {
            return Err("the options inet4_only and inet6_only contradict each other".to_string());
        }
        (true, false) => Network::V4,
        (false, true) => Network::V6,
        (false, false) => Network::Any,
    };
    let Some(host) = options.text("ip") else {
        let urls = template.iter().flat_map(|template| template.urls());
        let found = urls.map(String::as_str).find_map(url_parts);
        let (host, port) = found.ok_or_else(|| "the option ip is required".to_string())?;
        return Ok(Place { host, port, network });
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    // URLs have small letters.
    let host = host.to_ascii_lowercase();
    let is_letter = |c: u8| c.is_ascii_alphanumeric() || b".-_:".contains(&c);
    if !host.bytes().all(is_letter) {
        return Err(format!("the option ip: {host:?} is neither an address nor a name"));
    }
    let port = match options.number("ipport")? {
        None => family.port(has_tls),
        Some(port) => u16::try_from(port)
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| format!("the option ipport: {port} is not a port from 1 to 65535"))?,
    };
    Ok(Place { host, port, network })
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
