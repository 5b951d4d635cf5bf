//! The families: how a good device of each answers, and what a strange one may say.

mod esphome;
mod fritz;
mod homeassistant;
mod kasa;
mod mystrom;
mod netio;
mod shelly1;
mod shelly2;
mod tapo;
mod tasmota;
mod template;

use crate::device::{Answer, Carrier, Fault};

/// A family under test.
#[derive(Clone, Copy)]
pub(crate) struct Family<'a> {
    /// What `type=` says.
    pub(crate) name: &'static str,
    /// Further options.
    pub(crate) options: &'a str,
    /// Its protocol.
    pub(crate) carrier: Carrier,
    /// How a device answers.
    pub(crate) answer: Answer,
    /// Answers to the question for the state from which nobody may conclude "off".
    pub(crate) strange: &'static [(&'static str, &'static str)],
    /// Whether its devices report timers.
    pub(crate) has_timer: bool,
    /// Whether its devices measure.
    pub(crate) has_meter: bool,
}

/// All of them. The password is "hush" everywhere.
pub(crate) const ALL: &[Family<'static>] = &[
    tasmota::FAMILY,
    shelly1::FAMILY,
    shelly2::FAMILY,
    kasa::PORT9999,
    kasa::KLAP,
    tapo::STRIP,
    tapo::PLUG,
    esphome::FAMILY,
    homeassistant::FAMILY,
    netio::FAMILY,
    mystrom::FAMILY,
    fritz::FAMILY,
    template::FAMILY,
];

fn ok(body: &str) -> (u16, String) {
    (200, body.to_string())
}

/// The strange answer to the question for the state, where the fault is one.
fn strange(fault: Fault) -> Option<&'static str> {
    match fault {
        Fault::State(body) => Some(body),
        _ => None,
    }
}

fn not_found() -> (u16, String) {
    (404, "not found".to_string())
}
