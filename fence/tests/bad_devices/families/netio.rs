//! NETIO.

use super::{Family, not_found, ok, strange};
use crate::device::{Carrier, Fault, Relay, Request};

pub(super) const FAMILY: Family = Family {
    name: "netio",
    options: "plug=2\nusername=me\npassword=hush",
    carrier: Carrier::Http,
    answer,
    strange: &[
        ("the outlet is not there", r#"{"Outputs":[{"ID":1,"State":0,"Load":0}]}"#),
        ("no outputs", r#"{"Outputs":[]}"#),
        ("twice", r#"{"Outputs":[{"ID":2,"State":0},{"ID":2,"State":1}]}"#),
        ("a text", r#"{"Outputs":[{"ID":2,"State":"0"}]}"#),
        ("a boolean", r#"{"Outputs":[{"ID":2,"State":false}]}"#),
        ("null", r#"{"Outputs":[{"ID":2,"State":null}]}"#),
        ("a text for the outlet", r#"{"Outputs":[{"ID":"2","State":0}]}"#),
        ("2", r#"{"Outputs":[{"ID":2,"State":2}]}"#),
        ("no state", r#"{"Outputs":[{"ID":2}]}"#),
    ],
    has_timer: false,
    has_meter: true,
};

fn answer(relay: &mut Relay, fault: Fault, request: &Request) -> (u16, String) {
    if request.authorization.as_deref() != Some("Basic bWU6aHVzaA==") {
        return (401, String::new());
    }
    let is_question = match (request.line.as_str(), request.body.as_str()) {
        ("GET /netio.json", "") => true,
        ("POST /netio.json", r#"{"Outputs":[{"Action":0,"ID":2}]}"#) => {
            relay.switch(fault, false);
            false
        }
        ("POST /netio.json", r#"{"Outputs":[{"Action":1,"ID":2}]}"#) => {
            relay.switch(fault, true);
            false
        }
        _ => return not_found(),
    };
    if let Some(body) = strange(fault) {
        return ok(body);
    }
    let state = if is_question { relay.tell(fault) } else { relay.is_on };
    let (state, load) = (u8::from(state), if fault == Fault::Load || state { 85 } else { 0 });
    ok(&format!(
        r#"{{"Outputs":[{{"ID":1,"State":1,"Load":85}},{{"ID":2,"State":{state},"Load":{load}}}]}}"#
    ))
}
