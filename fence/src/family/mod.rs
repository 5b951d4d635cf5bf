//! The families of plugs: each in a file of its own, with a parser that is pure and strict.

mod esphome;
mod fritz;
mod homeassistant;
mod kasa;
mod mystrom;
mod netio;
mod recognize;
mod shelly1;
mod shelly2;
mod socket;
mod tapo;
mod tasmota;
mod template;

pub(crate) use recognize::recognize;
pub(crate) use template::Template;

use crate::http::Auth;
use crate::klap::Klap;
use crate::plug::{Plug, Trouble};
use crate::port9999::Port9999;
use crate::settings::Settings;
use hasan::chap::Secret;
use std::time::Instant;

/// What `type=` takes.
pub(crate) const NAMES: &[&str] = &[
    "tasmota",
    "shelly1",
    "shelly2",
    "kasa",
    "klap",
    "tapo",
    "esphome",
    "homeassistant",
    "netio",
    "mystrom",
    "fritz",
    "http",
];

/// All families, in the order of their names.
const ALL: [Family; NAMES.len()] = [
    Family::Tasmota,
    Family::Shelly1,
    Family::Shelly2,
    Family::Kasa,
    Family::Klap,
    Family::Tapo,
    Family::Esphome,
    Family::Homeassistant,
    Family::Netio,
    Family::Mystrom,
    Family::Fritz,
    Family::Template,
];

/// A family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// Tasmota, OpenBeken.
    Tasmota,
    /// Shelly, first generation.
    Shelly1,
    /// Shelly, from the second generation on.
    Shelly2,
    /// TP-Link Kasa, TCP port 9999.
    Kasa,
    /// TP-Link Kasa, by KLAP.
    Klap,
    /// TP-Link Tapo, by KLAP.
    Tapo,
    /// ESPHome with `web_server`.
    Esphome,
    /// A switch of Home Assistant.
    Homeassistant,
    /// NETIO's JSON API.
    Netio,
    /// myStrom.
    Mystrom,
    /// FRITZ!DECT by a FRITZ!Box.
    Fritz,
    /// Whatever three URLs can do.
    Template,
}

/// What can be said of a device before an outlet is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reached {
    /// It is there and takes the credentials; more can be said of an outlet alone.
    Device,
    /// It has one outlet, which needs no name.
    OnlyOutlet,
}

impl Family {
    /// The family of this name.
    pub(crate) fn named(name: &str) -> Option<Family> {
        ALL.into_iter().find(|family| family.name() == name)
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Family::Tasmota => "tasmota",
            Family::Shelly1 => "shelly1",
            Family::Shelly2 => "shelly2",
            Family::Kasa => "kasa",
            Family::Klap => "klap",
            Family::Tapo => "tapo",
            Family::Esphome => "esphome",
            Family::Homeassistant => "homeassistant",
            Family::Netio => "netio",
            Family::Mystrom => "mystrom",
            Family::Fritz => "fritz",
            Family::Template => "http",
        }
    }

    /// Its TCP port where none is given.
    pub(crate) fn port(self, has_tls: bool) -> u16 {
        match self {
            Family::Kasa => 9999,
            Family::Homeassistant => 8123,
            _ if has_tls => 443,
            _ => 80,
        }
    }

    /// Whether its devices may have one outlet alone, so that `plug` can be left out.
    pub(crate) fn may_have_one_outlet(self) -> bool {
        self.has_sockets() || self.has_one_outlet()
    }

    /// Whether its strips have sockets with names and positions.
    pub(crate) fn has_sockets(self) -> bool {
        matches!(self, Family::Kasa | Family::Klap | Family::Tapo)
    }

    /// Whether each of its devices has one outlet, so that a name says nothing.
    pub(crate) fn has_one_outlet(self) -> bool {
        matches!(self, Family::Mystrom | Family::Template)
    }

    /// Whether it can be asked with TLS.
    pub(crate) fn knows_tls(self) -> bool {
        !self.has_sockets()
    }

    /// Says what is wrong with an outlet's name. Nothing is sent.
    ///
    /// # Errors
    /// One sentence that names the outlet.
    pub(crate) fn check_outlet(self, outlet: &str) -> Result<(), String> {
        match self {
            Family::Tasmota => tasmota::relay(outlet).map(|_| ()),
            Family::Shelly1 | Family::Shelly2 => channel(outlet).map(|_| ()),
            Family::Homeassistant => homeassistant::check_entity(outlet, "switch"),
            Family::Netio => netio::output(outlet).map(|_| ()),
            Family::Fritz => fritz::check_ain(outlet),
            Family::Kasa | Family::Klap | Family::Tapo => Ok(()),
            Family::Esphome | Family::Mystrom | Family::Template => Ok(()),
        }
    }

    /// The outlet, which is not asked anything yet. `None` stands for the only one.
    ///
    /// # Errors
    /// As [`Family::check_outlet`].
    pub(crate) fn open(
        self,
        settings: &Settings,
        password: Option<&Secret>,
        outlet: Option<&str>,
    ) -> Result<Box<dyn Plug>, String> {
        let http = settings.http(self.auth(settings, password));
        let name = || outlet.map(str::to_string).ok_or_else(|| "no plug is given".to_string());
        let sensor = settings.power_sensor.clone();
        Ok(match self {
            Family::Tasmota => Box::new(tasmota::Tasmota::new(http, tasmota::relay(&name()?)?)),
            Family::Shelly1 => Box::new(shelly1::Shelly1::new(http, channel(&name()?)?)),
            Family::Shelly2 => Box::new(shelly2::Shelly2::new(http, channel(&name()?)?)),
            Family::Netio => Box::new(netio::Netio::new(http, netio::output(&name()?)?)),
            Family::Mystrom => Box::new(mystrom::Mystrom::new(http)),
            Family::Fritz => {
                let ain = name()?;
                fritz::check_ain(&ain)?;
                Box::new(self.fritz(settings, password, ain)?)
            }
            Family::Esphome => Box::new(esphome::Esphome::new(http, name()?, sensor)),
            Family::Homeassistant => {
                let entity = name()?;
                homeassistant::check_entity(&entity, "switch")?;
                Box::new(homeassistant::HomeAssistant::new(http, entity, sensor))
            }
            Family::Kasa | Family::Klap => {
                let kasa = self.kasa(settings, password)?;
                Box::new(kasa.with_outlet(outlet, settings.node.as_deref()))
            }
            Family::Tapo => {
                let tapo = tapo::Tapo::new(self.klap(settings, password)?);
                Box::new(tapo.with_outlet(outlet, settings.node.as_deref()))
            }
            Family::Template => {
                let template = settings.template.clone();
                let template = template.ok_or_else(|| "type=http needs its URLs".to_string())?;
                Box::new(template::Templated::new(http, template))
            }
        })
    }

    /// Proves address, family and credentials without the name of an outlet.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn reach(
        self,
        settings: &Settings,
        password: Option<&Secret>,
        until: Instant,
    ) -> Result<Reached, Trouble> {
        let mut http = settings.http(self.auth(settings, password));
        let proven = match self {
            Family::Mystrom | Family::Template => return Ok(Reached::OnlyOutlet),
            Family::Kasa | Family::Klap => {
                let kasa = self.kasa(settings, password);
                return kasa.map_err(Trouble::Lasting)?.reach(until);
            }
            Family::Tapo => {
                let klap = self.klap(settings, password);
                return tapo::Tapo::new(klap.map_err(Trouble::Lasting)?).reach(until);
            }
            Family::Tasmota => tasmota::reach(&mut http, until),
            Family::Shelly1 => shelly1::reach(&mut http, until),
            Family::Shelly2 => shelly2::reach(http, until),
            Family::Homeassistant => homeassistant::reach(&mut http, until),
            Family::Netio => netio::reach(&mut http, until),
            Family::Fritz => {
                let fritz = self.fritz(settings, password, String::new());
                fritz.map_err(Trouble::Lasting)?.log_in(until).map(|_| ())
            }
            Family::Esphome => {
                Err(Trouble::Lasting("it can be asked for an outlet alone: give plug".to_string()))
            }
        };
        proven.map(|()| Reached::Device)
    }

    /// A FRITZ!Box knows a login of its own.
    fn fritz(
        self,
        settings: &Settings,
        password: Option<&Secret>,
        ain: String,
    ) -> Result<fritz::Fritz, String> {
        let (user, password) = self.login(settings, password)?;
        Ok(fritz::Fritz::new(settings.http(Auth::None), user, password, ain))
    }

    fn kasa(self, settings: &Settings, password: Option<&Secret>) -> Result<kasa::Kasa, String> {
        Ok(kasa::Kasa::new(match self {
            Family::Klap => kasa::Way::Klap(Box::new(self.klap(settings, password)?)),
            _ => kasa::Way::Port9999(Port9999::new(settings.place.clone(), settings.limits)),
        }))
    }

    /// What goes over the wire are hashes: HTTP's own ways to prove oneself would show the password.
    fn klap(self, settings: &Settings, password: Option<&Secret>) -> Result<Klap, String> {
        let (user, password) = self.login(settings, password)?;
        Ok(Klap::new(settings.http(Auth::None), user, password))
    }

    /// User and password, of which there are no usual ones.
    fn login(
        self,
        settings: &Settings,
        password: Option<&Secret>,
    ) -> Result<(String, Secret), String> {
        let user = settings.username.clone().ok_or_else(|| self.needs("username"))?;
        let password = password.cloned().ok_or_else(|| self.needs("password"))?;
        Ok((user, password))
    }

    /// Whether nothing works without a name and a password.
    pub(crate) fn needs_login(self) -> bool {
        matches!(self, Family::Klap | Family::Tapo | Family::Fritz)
    }

    pub(crate) fn needs(self, option: &str) -> String {
        format!("the option {option} is required with type={}", self.name())
    }

    fn auth(self, settings: &Settings, password: Option<&Secret>) -> Auth {
        let Some(password) = password else { return Auth::None };
        // Shelly's second generation knows this one user (General/Authentication), Tasmota too.
        let user = settings.username.clone().unwrap_or_else(|| "admin".to_string());
        match self {
            Family::Shelly2 => Auth::Digest(user, password.clone()),
            Family::Homeassistant => Auth::Bearer(password.clone()),
            Family::Mystrom => Auth::Token(password.clone()),
            Family::Kasa | Family::Klap | Family::Tapo | Family::Fritz => Auth::None,
            _ => Auth::Basic(user, password.clone()),
        }
    }
}

/// Says what is wrong with the name of a sensor of Home Assistant.
///
/// # Errors
/// One sentence that names it.
pub(crate) fn check_sensor(sensor: &str) -> Result<(), String> {
    homeassistant::check_entity(sensor, "sensor")
}

/// A channel of Shelly: they count from 0.
fn channel(outlet: &str) -> Result<u8, String> {
    let wrong = || format!("the plug {outlet:?} is not a channel's number: Shelly counts from 0");
    plain_number(outlet).filter(|channel| *channel <= 99).ok_or_else(wrong)
}

/// A number without sign or leading zero, so that `01` and `1` are not two outlets.
fn plain_number(text: &str) -> Option<u8> {
    text.parse::<u8>().ok().filter(|number| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_its_family() {
        assert_eq!(ALL.map(Family::name), NAMES);
        assert_eq!(Family::named("wemo"), None);
    }

    #[test]
    fn an_outlet_that_its_family_cannot_have_is_refused() {
        for (family, outlet) in [
            (Family::Tasmota, "0"),
            (Family::Tasmota, "storage-a"),
            (Family::Tasmota, "01"),
            (Family::Tasmota, "1 OFF"),
            (Family::Shelly1, "-1"),
            (Family::Shelly2, "100"),
            (Family::Shelly2, "+1"),
            (Family::Homeassistant, "node_a"),
            (Family::Homeassistant, "light.node_a"),
            (Family::Homeassistant, "switch.node a"),
            (Family::Homeassistant, "switch."),
        ] {
            let wrong = family.check_outlet(outlet).unwrap_err();
            assert!(wrong.contains(&format!("{outlet:?}")), "{wrong}");
        }
        for (family, outlet) in [
            (Family::Tasmota, "1"),
            (Family::Tasmota, "32"),
            (Family::Shelly1, "0"),
            (Family::Homeassistant, "switch.node_a"),
            (Family::Kasa, "Node A"),
        ] {
            assert_eq!(family.check_outlet(outlet), Ok(()), "{outlet}");
        }
    }
}
