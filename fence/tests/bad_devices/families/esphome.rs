//! ESPHome.

use super::{Family, not_found, ok, strange};
use crate::device::{Carrier, Fault, Relay, Request};

pub(super) const FAMILY: Family = Family {
    name: "esphome",
    options: "plug=Node A\npower_sensor=Power\nusername=me\npassword=hush",
    carrier: Carrier::Http,
    answer,
    strange: &[
        ("another outlet", r#"{"id":"switch-node_b","value":false,"state":"OFF"}"#),
        ("a light", r#"{"id":"light-node_a","value":false,"state":"OFF"}"#),
        ("no id", r#"{"value":false,"state":"OFF"}"#),
        ("two states", r#"{"id":"switch-node_a","value":true,"state":"OFF"}"#),
        ("two states, the other way", r#"{"id":"switch-node_a","value":false,"state":"ON"}"#),
        ("a number", r#"{"id":"switch-node_a","value":0,"state":"OFF"}"#),
        ("a text", r#"{"id":"switch-node_a","value":"false","state":"OFF"}"#),
        ("null", r#"{"id":"switch-node_a","value":null,"state":null}"#),
        ("assumed", r#"{"id":"switch-node_a","value":false,"state":"OFF","assumed_state":true}"#),
    ],
    has_timer: false,
    has_meter: true,
};

fn answer(relay: &mut Relay, fault: Fault, request: &Request) -> (u16, String) {
    if request.authorization.as_deref() != Some("Basic bWU6aHVzaA==") {
        return (401, String::new());
    }
    match request.line.as_str() {
        "POST /switch/Node%20A/turn_off" => relay.switch(fault, false),
        "POST /switch/Node%20A/turn_on" => relay.switch(fault, true),
        "GET /switch/Node%20A?detail=all" => {
            if let Some(body) = strange(fault) {
                return ok(body);
            }
            let value = relay.tell(fault);
            let state = if value { "ON" } else { "OFF" };
            return ok(&format!(r#"{{"id":"switch-node_a","value":{value},"state":"{state}"}}"#));
        }
        "GET /sensor/Power" => {
            let watts = if fault == Fault::Load || relay.is_on { 85.2 } else { 0.0 };
            return ok(&format!(r#"{{"id":"sensor-power","value":{watts},"state":"{watts} W"}}"#));
        }
        _ => return not_found(),
    }
    ok("")
}
