//! Home Assistant.

use super::{Family, not_found, ok, strange};
use crate::device::{Carrier, Fault, Relay, Request};

pub(super) const FAMILY: Family = Family {
    name: "homeassistant",
    options: "plug=switch.node_a\npower_sensor=sensor.node_a\npassword=hush",
    carrier: Carrier::Http,
    answer,
    strange: &[
        ("another outlet", r#"{"entity_id":"switch.node_b","state":"off","attributes":{}}"#),
        ("no outlet", r#"{"message":"Entity not found."}"#),
        ("unavailable", r#"{"entity_id":"switch.node_a","state":"unavailable","attributes":{}}"#),
        ("unknown", r#"{"entity_id":"switch.node_a","state":"unknown","attributes":{}}"#),
        ("a boolean", r#"{"entity_id":"switch.node_a","state":false,"attributes":{}}"#),
        ("null", r#"{"entity_id":"switch.node_a","state":null,"attributes":{}}"#),
        (
            "no attributes but assumed",
            r#"{"entity_id":"switch.node_a","state":"off","attributes":{"assumed_state":true}}"#,
        ),
        ("an empty list", "[]"),
    ],
    has_timer: false,
    has_meter: true,
};

fn answer(relay: &mut Relay, fault: Fault, request: &Request) -> (u16, String) {
    if request.authorization.as_deref() != Some("Bearer hush") {
        return (401, "401: Unauthorized".to_string());
    }
    let is_ours = request.body.contains(r#""switch.node_a""#);
    match request.line.as_str() {
        "POST /api/services/switch/turn_off" if is_ours => relay.switch(fault, false),
        "POST /api/services/switch/turn_on" if is_ours => relay.switch(fault, true),
        "POST /api/services/homeassistant/update_entity" if is_ours => {}
        "GET /api/" => return ok(r#"{"message":"API running."}"#),
        "GET /api/states/switch.node_a" => {
            if let Some(body) = strange(fault) {
                return ok(body);
            }
            let state = if relay.tell(fault) { "on" } else { "off" };
            return ok(&format!(
                r#"{{"entity_id":"switch.node_a","state":"{state}","attributes":{{}}}}"#
            ));
        }
        "GET /api/states/sensor.node_a" => {
            let watts = if fault == Fault::Load || relay.is_on { 85.2 } else { 0.0 };
            return ok(&format!(
                r#"{{"entity_id":"sensor.node_a","state":"{watts}","attributes":{{"unit_of_measurement":"W"}}}}"#
            ));
        }
        _ => return not_found(),
    }
    ok("[]")
}
