//! Shelly, first generation.

use super::{Family, not_found, ok, strange};
use crate::device::{Carrier, Fault, Relay, Request};

pub(super) const FAMILY: Family = Family {
    name: "shelly1",
    options: "plug=0\nusername=me\npassword=hush",
    carrier: Carrier::Http,
    answer,
    strange: &[
        ("an error", r#"{"error":"no such relay"}"#),
        ("a number", r#"{"ison":0}"#),
        ("a text", r#"{"ison":"false"}"#),
        ("null", r#"{"ison":null}"#),
        ("a list", r#"[{"ison":false}]"#),
    ],
    has_timer: true,
    has_meter: true,
};

fn answer(relay: &mut Relay, fault: Fault, request: &Request) -> (u16, String) {
    if request.line == "GET /shelly" {
        return ok(r#"{"type":"SHPLG-S","mac":"AABB","auth":true}"#);
    }
    if request.authorization.as_deref() != Some("Basic bWU6aHVzaA==") {
        return (401, "401 Unauthorized".to_string());
    }
    match request.line.as_str() {
        "GET /relay/0?turn=off" => relay.switch(fault, false),
        "GET /relay/0?turn=on" => relay.switch(fault, true),
        "GET /relay/0" | "GET /status" => {}
        "GET /settings/relay/0" => return ok(r#"{"auto_on":0.0,"schedule":false}"#),
        _ => return not_found(),
    }
    let is_question = !request.line.contains("turn=");
    let state = if is_question { relay.tell(fault) } else { relay.is_on };
    let watts = if fault == Fault::Load || relay.is_on { 85.2 } else { 0.0 };
    let timer = fault == Fault::Timer;
    let told = format!(r#"{{"ison":{state},"has_timer":{timer},"timer_remaining":9}}"#);
    let told = strange(fault).filter(|_| is_question).unwrap_or(&told);
    if request.line == "GET /status" {
        return ok(&format!(
            r#"{{"relays":[{told}],"meters":[{{"power":{watts},"is_valid":true}}]}}"#
        ));
    }
    ok(told)
}
