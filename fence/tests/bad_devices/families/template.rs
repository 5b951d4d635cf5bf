//! A device of three URLs.

use super::{Family, not_found, ok, strange};
use crate::device::{Carrier, Fault, Relay, Request};

pub(super) const FAMILY: Family = Family {
    name: "http",
    options: "power_off_url=/set?relay=0&key=hush\npower_on_url=/set?relay=1&key=hush\nstatus_url=/state?key=hush\n\
        status_on_regex=\"relay\": *true\nstatus_off_regex=\"relay\": *false\nusername=me\npassword=hush",
    carrier: Carrier::Http,
    answer,
    strange: &[
        ("neither", r#"{"relay": null}"#),
        ("both", r#"[{"relay": false}, {"relay": true}]"#),
        ("a text", r#"{"relay": "false"}"#),
    ],
    has_timer: false,
    has_meter: false,
};

fn answer(relay: &mut Relay, fault: Fault, request: &Request) -> (u16, String) {
    if request.authorization.as_deref() != Some("Basic bWU6aHVzaA==") {
        return (401, String::new());
    }
    match request.line.as_str() {
        "GET /set?relay=0&key=hush" => relay.switch(fault, false),
        "GET /set?relay=1&key=hush" => relay.switch(fault, true),
        "GET /state?key=hush" => {
            if let Some(body) = strange(fault) {
                return ok(body);
            }
            let state = relay.tell(fault);
            return ok(&format!(r#"{{"relay": {state}}}"#));
        }
        _ => return not_found(),
    }
    ok("ok")
}
