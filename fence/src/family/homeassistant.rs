//! A switch of Home Assistant: <https://developers.home-assistant.io/docs/api/rest/>.

use crate::http::{Http, Request};
use crate::json;
use crate::plug::{Plug, Power, Reading, Trouble};
use serde_json::{Value, json};
use std::time::Instant;

/// One switch entity.
pub(crate) struct HomeAssistant {
    http: Http,
    entity: String,
    sensor: Option<String>,
}

/// Says what is wrong with an entity's name.
pub(crate) fn check_entity(entity: &str, domain: &str) -> Result<(), String> {
    let is_id_letter = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_';
    match entity.split_once('.') {
        Some((of, id)) if of == domain && !id.is_empty() && id.bytes().all(is_id_letter) => Ok(()),
        _ => Err(format!("{entity:?} is not an entity such as {domain}.node_a")),
    }
}

/// Proves address and token.
pub(crate) fn reach(http: &mut Http, until: Instant) -> Result<(), Trouble> {
    let reply = json::object(&http.ask(Request::get("/api/"), until)?)?;
    json::text(&reply, "/message").map(|_| ())
}

impl HomeAssistant {
    pub(crate) fn new(http: Http, entity: String, sensor: Option<String>) -> HomeAssistant {
        HomeAssistant { http, entity, sensor }
    }

    fn service(&mut self, path: &str, entities: &[&str], until: Instant) -> Result<(), Trouble> {
        let body = json!({"entity_id": entities}).to_string();
        self.http.ask(Request::post(path, &body), until).map(|_| ())
    }

    fn state(&mut self, entity: &str, until: Instant) -> Result<Value, Trouble> {
        let reply = self.http.ask(Request::get(&format!("/api/states/{entity}")), until)?;
        json::object(&reply)
    }
}

impl Plug for HomeAssistant {
    fn label(&self) -> String {
        format!("{} at {}", self.entity, self.http.shown())
    }

    fn read(&mut self, until: Instant) -> Result<Reading, Trouble> {
        let entity = self.entity.clone();
        Ok(parse_state(&self.state(&entity, until)?, &entity)?.into())
    }

    /// States are a cache, so the integration is told to look at the device first: the watts of before an off would disprove it.
    fn read_closely(&mut self, until: Instant) -> Result<Reading, Trouble> {
        let (entity, sensor) = (self.entity.clone(), self.sensor.clone());
        let entities: Vec<&str> =
            std::iter::once(entity.as_str()).chain(sensor.as_deref()).collect();
        self.service("/api/services/homeassistant/update_entity", &entities, until)?;
        let mut reading = self.read(until)?;
        if let Some(sensor) = sensor {
            match self.state(&sensor, until) {
                Ok(state) => reading.watts = parse_watts(&state),
                Err(Trouble::Lasting(text)) => tracing::warn!("no watts are read: {text}"),
                Err(other) => return Err(other),
            }
        }
        Ok(reading)
    }

    /// Also a switch that does not exist is "switched" with HTTP 200 and an empty list.
    fn switch(&mut self, to: Power, until: Instant) -> Result<(), Trouble> {
        let entity = self.entity.clone();
        self.service(&format!("/api/services/switch/turn_{to}"), &[&entity], until)
    }
}

/// `{"entity_id":"switch.x","state":"off","attributes":{…}}`; without the device the state is
/// `unavailable` or `unknown`.
fn parse_state(reply: &Value, entity: &str) -> Result<Power, Trouble> {
    let told = json::text(reply, "/entity_id")?;
    if told != entity {
        return Err(Trouble::Passing(format!("it tells the state of {told:?}")));
    }
    if json::is_true(reply, "/attributes/assumed_state") {
        let text = "the state is assumed, not read: it proves nothing";
        return Err(Trouble::Lasting(text.to_string()));
    }
    match json::text(reply, "/state")? {
        "on" => Ok(Power::On),
        "off" => Ok(Power::Off),
        other => Err(Trouble::Passing(format!("the state {other:?} is neither on nor off"))),
    }
}

fn parse_watts(reply: &Value) -> Option<f64> {
    let value: f64 = reply.get("state")?.as_str()?.parse().ok()?;
    match reply.pointer("/attributes/unit_of_measurement")?.as_str()? {
        "W" => Some(value),
        "kW" => Some(value * 1000.0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_that_of_the_entity_and_known() {
        let of = |entity: &str, state: Value| json!({"entity_id": entity, "state": state, "attributes": {}});
        for (reply, want) in [
            (of("switch.a", json!("on")), Some(Power::On)),
            (of("switch.a", json!("off")), Some(Power::Off)),
            (of("switch.b", json!("off")), None),
            (of("switch.a", json!("unavailable")), None),
            (of("switch.a", json!("unknown")), None),
            (of("switch.a", json!("OFF")), None),
            (of("switch.a", json!(false)), None),
            (json!({"state": "off"}), None),
            (json!({"message": "Entity not found."}), None),
        ] {
            assert_eq!(parse_state(&reply, "switch.a").ok(), want, "{reply}");
        }
        let assumed =
            json!({"entity_id": "switch.a", "state": "off", "attributes": {"assumed_state": true}});
        assert!(matches!(parse_state(&assumed, "switch.a"), Err(Trouble::Lasting(_))));
    }

    #[test]
    fn watts_have_their_unit() {
        let of = |state: &str, unit: &str| json!({"state": state, "attributes": {"unit_of_measurement": unit}});
        assert_eq!(parse_watts(&of("85.5", "W")), Some(85.5));
        assert_eq!(parse_watts(&of("0.5", "kW")), Some(500.0));
        assert_eq!(parse_watts(&of("85", "V")), None);
        assert_eq!(parse_watts(&of("unavailable", "W")), None);
    }
}
