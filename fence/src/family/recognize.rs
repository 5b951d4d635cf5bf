//! What kind of device is at an address: for the message of a monitor that fails. No credentials
//! are shown to a device that is not known.

use super::Family;
use super::kasa::{Kasa, Way};
use crate::http::{Auth, Http, Request};
use crate::klap;
use crate::plug::{Plug, Trouble};
use crate::port9999::Port9999;
use crate::settings::Settings;
use crate::tls::Tls;
use serde_json::Value;
use std::time::Instant;

/// The families that the device may be of; none if it does not tell.
pub(crate) fn recognize(settings: &Settings, until: Instant) -> &'static [&'static str] {
    let mut http = settings.http(Auth::None);
    if let Some(reply) = ask(&mut http, "/shelly", until) {
        return match (reply.get("mac"), reply.get("gen")) {
            (None, _) => &[],
            (Some(_), None) => &["shelly1"],
            (Some(_), Some(_)) => &["shelly2"],
        };
    }
    if ask(&mut http, "/cm?cmnd=Status", until).is_some_and(|reply| is_tasmota(&reply)) {
        return &["tasmota"];
    }
    if ask(&mut http, "/netio.json", until).is_some_and(|reply| reply.get("Outputs").is_some()) {
        return &["netio"];
    }
    if ask(&mut http, "/report", until).is_some_and(|reply| reply.get("relay").is_some()) {
        return &["mystrom"];
    }
    let login = Request::get("/login_sid.lua?version=2");
    if http.ask(login, until).is_ok_and(|text| text.contains("<SessionInfo>")) {
        return &["fritz"];
    }
    if speaks_klap(settings, until) {
        // Which of the two it tells to who knows the account.
        return &["klap", "tapo"];
    }
    let mut place = settings.place.clone();
    place.port = 9999;
    match Kasa::new(Way::Port9999(Port9999::new(place, settings.limits))).read(until) {
        // Only a device of this family finds fault with an outlet.
        Ok(_) | Err(Trouble::Lasting(_)) => &["kasa"],
        Err(_) => &[],
    }
}

/// A seed of zeros shows nothing. Who asked at Kasa's old port is told where new firmware went.
fn speaks_klap(settings: &Settings, until: Instant) -> bool {
    let mut place = settings.place.clone();
    if settings.family == Family::Kasa {
        place.port = Family::Klap.port(false);
    }
    let mut http = Http::new(place, Tls::None, Auth::None, settings.limits);
    let answer = http.exchange(Request::bytes(klap::HANDSHAKE, &[0; 16]), until);
    answer.is_ok_and(|reply| reply.body.len() == klap::ANSWER)
}

fn is_tasmota(reply: &Value) -> bool {
    ["Status", "WARNING"].iter().any(|name| reply.get(*name).is_some())
}

fn ask(http: &mut Http, path: &str, until: Instant) -> Option<Value> {
    let text = http.ask(Request::get(path), until).ok()?;
    serde_json::from_str(&text).ok().filter(Value::is_object)
}
