//! Tasmota: <https://tasmota.github.io/docs/Commands/>; and OpenBeken, which speaks the same.

use super::plain_number;
use crate::http::{Http, Request};
use crate::json;
use crate::plug::{Hazard, Plug, Power, Reading, Trouble};
use serde_json::Value;
use std::time::Instant;

/// One relay.
pub(crate) struct Tasmota {
    http: Http,
    relay: u8,
}

/// A relay's number: they count from 1, and 0 would be all of them.
pub(crate) fn relay(outlet: &str) -> Result<u8, String> {
    let wrong =
        || format!("the plug {outlet:?} is not a relay's number: Tasmota counts from 1 to 32");
    plain_number(outlet).filter(|relay| (1..=32).contains(relay)).ok_or_else(wrong)
}

/// Proves address and credentials.
pub(crate) fn reach(http: &mut Http, until: Instant) -> Result<(), Trouble> {
    let reply = accepted(&http.ask(Request::get("/cm?cmnd=Status"), until)?)?;
    let has_status = reply.get("Status").is_some_and(Value::is_object);
    has_status.then_some(()).ok_or_else(|| Trouble::Passing("it tells no status".to_string()))
}

impl Tasmota {
    pub(crate) fn new(http: Http, relay: u8) -> Tasmota {
        Tasmota { http, relay }
    }

    /// Sends a command, which is encoded.
    fn command(&mut self, command: &str, until: Instant) -> Result<Value, Trouble> {
        let text = self.http.ask(Request::get(&format!("/cm?cmnd={command}")), until)?;
        accepted(&text)
    }

    /// Everything that a device tells of itself at once.
    fn everything(&mut self, until: Instant) -> Result<Value, Trouble> {
        self.command("Status%200", until)
    }
}

impl Plug for Tasmota {
    fn label(&self) -> String {
        format!("relay {} of {}", self.relay, self.http.shown())
    }

    fn read(&mut self, until: Instant) -> Result<Reading, Trouble> {
        let reply = self.command(&format!("Power{}", self.relay), until)?;
        Ok(parse_power(&reply, self.relay)?.into())
    }

    /// `StatusSTS` names each relay as the command `Power` does, so that one request tells state and evidence of one
    /// moment. Where it does not, as in some versions of OpenBeken, the relay is asked itself.
    fn read_closely(&mut self, until: Instant) -> Result<Reading, Trouble> {
        let all = match self.everything(until) {
            Ok(all) => all,
            Err(Trouble::Lasting(_)) => return self.read(until),
            Err(other) => return Err(other),
        };
        let told = all.get("StatusSTS").and_then(|states| parse_power(states, self.relay).ok());
        let reading = told.map_or_else(|| self.read(until), |power| Ok(power.into()))?;
        let watts = parse_watts(&all, self.relay);
        Ok(Reading { watts, pending: inverted_pulse(&all), ..reading })
    }

    fn switch(&mut self, to: Power, until: Instant) -> Result<(), Trouble> {
        let word = if to == Power::On { "ON" } else { "OFF" };
        self.command(&format!("Power{}%20{word}", self.relay), until).map(|_| ())
    }

    fn hazards(&mut self, until: Instant) -> Result<Vec<Hazard>, Trouble> {
        let all = self.everything(until)?;
        // OpenBeken takes what begins with "Power" for a power command; its settings are others.
        if all.pointer("/StatusFWR/SDK").and_then(Value::as_str) == Some("obk") {
            return Ok(Vec::new());
        }
        let pulse = self.command(&format!("PulseTime{}", self.relay), until)?;
        Ok(power_on_state(&all).into_iter().chain(pulse_time(&pulse, self.relay)).collect())
    }
}

/// Errors come with HTTP 200 too.
fn accepted(text: &str) -> Result<Value, Trouble> {
    let reply = json::object(text)?;
    if reply.get("WARNING").is_some() {
        return Err(Trouble::Refused("the user or password is rejected".to_string()));
    }
    match reply.get("Command").and_then(Value::as_str) {
        Some(word @ ("Error" | "Unknown")) => {
            Err(Trouble::Lasting(format!("it answers \"Command: {word}\": it has no such relay")))
        }
        _ => Ok(reply),
    }
}

/// The state of exactly this relay. `POWER` without a number is that of a device with one relay;
/// OpenBeken answers so for relays that it does not have, so it counts for relay 1 alone.
fn parse_power(reply: &Value, relay: u8) -> Result<Power, Trouble> {
    let numbered = reply.get(format!("POWER{relay}"));
    let plain = reply.get("POWER").filter(|_| relay == 1);
    let value = match (numbered, plain) {
        (Some(one), Some(other)) if one != other => {
            return Err(Trouble::Passing("it tells two states of one relay".to_string()));
        }
        (Some(value), _) | (None, Some(value)) => value,
        (None, None) => {
            return Err(Trouble::Passing(format!("it does not tell the state of relay {relay}")));
        }
    };
    match value.as_str() {
        Some("ON") => Ok(Power::On),
        Some("OFF") => Ok(Power::Off),
        _ => Err(Trouble::Passing(format!("the state {value} is neither \"ON\" nor \"OFF\""))),
    }
}

/// A single number counts only where there is one relay: else it is the sum of all.
fn parse_watts(all: &Value, relay: u8) -> Option<f64> {
    let power = all.pointer("/StatusSNS/ENERGY/Power")?;
    match power.as_array() {
        Some(each) => each.get(usize::from(relay) - 1)?.as_f64(),
        None if relay == 1 && all.pointer("/StatusSTS/POWER").is_some() => power.as_f64(),
        None => None,
    }
}

/// PowerOnState 5 is a PulseTime the other way round: it switches on.
fn inverted_pulse(all: &Value) -> Option<String> {
    let state = all.pointer("/Status/PowerOnState").and_then(Value::as_i64);
    (state == Some(5)).then(|| "PowerOnState 5 switches on again by itself".to_string())
}

fn power_on_state(all: &Value) -> Option<Hazard> {
    let what = match all.pointer("/Status/PowerOnState")?.as_i64()? {
        4 => "PowerOnState 4 ignores every off",
        5 => "PowerOnState 5 switches on again by itself",
        _ => return None,
    };
    Some(Hazard { setting: what.to_string(), mend: "PowerOnState 3".to_string() })
}

/// `{"PulseTime1":{"Set":0,"Remaining":0}}`, in older versions `{"PulseTime1":"0 (0)"}`.
fn pulse_time(reply: &Value, relay: u8) -> Option<Hazard> {
    let name = format!("PulseTime{relay}");
    let value = reply.get(&name)?;
    let is_set = match value.get("Set").unwrap_or(value) {
        Value::Number(set) => set.as_i64() != Some(0),
        Value::String(text) => !text.starts_with('0'),
        _ => false,
    };
    let setting = format!("{name} {value} switches by itself");
    is_set.then(|| Hazard { setting, mend: format!("{name} 0") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_the_word_of_this_very_relay_is_a_state() {
        for (reply, relay, want) in [
            (json!({"POWER": "ON"}), 1, Some(Power::On)),
            (json!({"POWER": "OFF"}), 1, Some(Power::Off)),
            (json!({"POWER1": "OFF", "POWER2": "ON"}), 1, Some(Power::Off)),
            (json!({"POWER1": "OFF", "POWER2": "ON"}), 2, Some(Power::On)),
            (json!({"POWER1": "OFF", "Time": "x"}), 1, Some(Power::Off)),
            (json!({"POWER": "OFF", "POWER1": "ON"}), 1, None),
            // What OpenBeken with one relay answers for relay 2, and one with two for relay 9.
            (json!({"POWER": "OFF"}), 2, None),
            (json!({"POWER1": "OFF", "POWER2": "OFF"}), 9, None),
            (json!({"POWER11": "OFF"}), 1, None),
            (json!({}), 1, None),
            (json!({"POWER": "off"}), 1, None),
            (json!({"POWER": "AUS"}), 1, None),
            (json!({"POWER": 0}), 1, None),
            (json!({"POWER": false}), 1, None),
            (json!({"POWER": null}), 1, None),
        ] {
            assert_eq!(parse_power(&reply, relay).ok(), want, "{reply}");
        }
    }

    #[test]
    fn errors_with_status_200_are_errors() {
        for (text, is_refused) in [
            (r#"{"WARNING":"Need user=<username>&password=<password>"}"#, true),
            (r#"{"Command":"Error"}"#, false),
            (r#"{"Command":"Unknown"}"#, false),
        ] {
            let trouble = accepted(text).unwrap_err();
            assert_eq!(matches!(trouble, Trouble::Refused(_)), is_refused, "{text}");
        }
    }

    #[test]
    fn watts_of_one_relay_and_of_several() {
        let of = |power: Value, states: Value| json!({"StatusSNS": {"ENERGY": {"Power": power}}, "StatusSTS": states});
        let one = json!({"POWER": "OFF"});
        let two = json!({"POWER1": "OFF", "POWER2": "ON"});
        assert_eq!(parse_watts(&of(json!(85), one.clone()), 1), Some(85.0));
        assert_eq!(parse_watts(&of(json!(85), two.clone()), 1), None);
        assert_eq!(parse_watts(&of(json!([0, 85]), two), 2), Some(85.0));
        assert_eq!(parse_watts(&json!({}), 1), None);
        assert_eq!(parse_watts(&of(json!("85"), one), 1), None);
    }

    #[test]
    fn settings_that_switch_by_themselves_are_hazards() {
        let state = |state: u8| json!({"Status": {"PowerOnState": state}});
        for (number, is_hazard) in [(0, false), (1, false), (3, false), (4, true), (5, true)] {
            assert_eq!(power_on_state(&state(number)).is_some(), is_hazard, "{number}");
            assert_eq!(inverted_pulse(&state(number)).is_some(), number == 5);
        }
        for (reply, is_hazard) in [
            (json!({"PulseTime1": {"Set": 0, "Remaining": 0}}), false),
            (json!({"PulseTime1": {"Set": 111, "Remaining": 0}}), true),
            (json!({"PulseTime1": "0 (0)"}), false),
            (json!({"PulseTime1": "11 (0)"}), true),
            (json!({}), false),
        ] {
            assert_eq!(pulse_time(&reply, 1).is_some(), is_hazard, "{reply}");
        }
    }
}
