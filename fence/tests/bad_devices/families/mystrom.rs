//! myStrom.

use super::{Family, not_found, ok, strange};
use crate::device::{Carrier, Fault, Relay, Request};

pub(super) const FAMILY: Family = Family {
    name: "mystrom",
    options: "password=hush",
    carrier: Carrier::Http,
    answer,
    strange: &[
        ("no state", r#"{"power":0}"#),
        ("a number", r#"{"power":0,"relay":0}"#),
        ("a text", r#"{"power":0,"relay":"false"}"#),
        ("null", r#"{"power":0,"relay":null}"#),
    ],
    has_timer: false,
    has_meter: true,
};

fn answer(relay: &mut Relay, fault: Fault, request: &Request) -> (u16, String) {
    if request.authorization.as_deref() != Some("hush") {
        return (401, String::new());
    }
    match request.line.as_str() {
        "GET /relay?state=0" => relay.switch(fault, false),
        "GET /relay?state=1" => relay.switch(fault, true),
        "GET /report" => {
            if let Some(body) = strange(fault) {
                return ok(body);
            }
            let state = relay.tell(fault);
            let power = if fault == Fault::Load || state { 85.2 } else { 0.0 };
            return ok(&format!(r#"{{"power":{power},"Ws":{power},"relay":{state}}}"#));
        }
        _ => return not_found(),
    }
    ok("")
}
