//! ESPHome's `web_server`: <https://esphome.io/web-api/>.

use crate::http::{Http, Request, encoded};
use crate::json;
use crate::plug::{Plug, Power, Reading, Trouble};
use serde_json::Value;
use std::time::Instant;

/// One switch.
pub(crate) struct Esphome {
    http: Http,
    switch: String,
    sensor: Option<String>,
}

impl Esphome {
    pub(crate) fn new(http: Http, switch: String, sensor: Option<String>) -> Esphome {
        Esphome { http, switch, sensor }
    }

    /// A sub-device's switch is `DEVICE/NAME`.
    fn path(&self) -> String {
        let segments: Vec<String> = self.switch.split('/').map(encoded).collect();
        format!("/switch/{}", segments.join("/"))
    }
}

impl Plug for Esphome {
    fn label(&self) -> String {
        format!("switch {:?} of {}", self.switch, self.http.shown())
    }

    fn read(&mut self, until: Instant) -> Result<Reading, Trouble> {
        let path = format!("{}?detail=all", self.path());
        let reply = json::object(&self.http.ask(Request::get(&path), until)?)?;
        Ok(parse_switch(&reply, &self.switch)?.into())
    }

    fn read_closely(&mut self, until: Instant) -> Result<Reading, Trouble> {
        let mut reading = self.read(until)?;
        if let Some(sensor) = &self.sensor {
            let path = format!("/sensor/{}", encoded(sensor));
            match self.http.ask(Request::get(&path), until) {
                Ok(text) => reading.watts = json::number(&json::object(&text)?, "/value"),
                Err(Trouble::Lasting(text)) => tracing::warn!("no watts are read: {text}"),
                Err(other) => return Err(other),
            }
        }
        Ok(reading)
    }

    /// The command is put into a queue: the answer comes before the relay moves.
    fn switch(&mut self, to: Power, until: Instant) -> Result<(), Trouble> {
        let path = format!("{}/turn_{to}", self.path());
        let request = Request { body: None, ..Request::post(&path, "") };
        self.http.ask(request, until).map(|_| ())
    }
}

/// `{"id":"switch-relay","value":true,"state":"ON"}`. Both words must agree, and the entity must be
/// the one that was asked for: the form of `id` differs between versions.
fn parse_switch(reply: &Value, switch: &str) -> Result<Power, Trouble> {
    let id = json::text(reply, "/id")?;
    if plain(id) != format!("switch{}", plain(switch)) {
        return Err(Trouble::Passing(format!("it tells the state of {id:?}")));
    }
    if json::is_true(reply, "/assumed_state") {
        let text = "the state is assumed, not read (optimistic): it proves nothing";
        return Err(Trouble::Lasting(text.to_string()));
    }
    match (json::boolean(reply, "/value")?, json::text(reply, "/state")?) {
        (true, "ON") => Ok(Power::On),
        (false, "OFF") => Ok(Power::Off),
        (value, state) => {
            Err(Trouble::Passing(format!("it tells two states, {value} and {state:?}")))
        }
    }
}

/// What all forms of a name have in common: object ids replace everything else by underscores.
fn plain(name: &str) -> String {
    let letters = name.chars().filter(char::is_ascii_alphanumeric);
    letters.map(|letter| letter.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_switch_is_read_strictly() {
        let of =
            |id: &str, value: Value, state: &str| json!({"id": id, "value": value, "state": state});
        for (reply, want) in [
            (of("switch-relay", json!(true), "ON"), Some(Power::On)),
            (of("switch-relay", json!(false), "OFF"), Some(Power::Off)),
            (of("switch/Relay", json!(false), "OFF"), Some(Power::Off)),
            (of("switch-relay", json!(true), "OFF"), None),
            (of("switch-relay", json!(false), "ON"), None),
            (of("switch-relay_2", json!(false), "OFF"), None),
            (of("light-relay", json!(false), "OFF"), None),
            (of("switch-relay", json!(0), "OFF"), None),
            (of("switch-relay", json!("false"), "OFF"), None),
            (json!({"value": false, "state": "OFF"}), None),
            (json!({"id": "switch-relay", "state": "OFF"}), None),
        ] {
            assert_eq!(parse_switch(&reply, "Relay").ok(), want, "{reply}");
        }
        let assumed =
            json!({"id": "switch-relay", "value": false, "state": "OFF", "assumed_state": true});
        assert!(matches!(parse_switch(&assumed, "Relay"), Err(Trouble::Lasting(_))));
    }
}
