//! Tasmota.

use super::{Family, ok, strange};
use crate::device::{Carrier, Fault, Relay, Request};

pub(super) const FAMILY: Family = Family {
    name: "tasmota",
    options: "plug=2\npassword=hush",
    carrier: Carrier::Http,
    answer,
    strange: &[
        ("the outlet is not there", r#"{"Command":"Error"}"#),
        ("an unknown command", r#"{"Command":"Unknown"}"#),
        ("one relay, off (OpenBeken)", r#"{"POWER":"OFF"}"#),
        ("another outlet", r#"{"POWER1":"OFF"}"#),
        ("a longer number", r#"{"POWER22":"OFF"}"#),
        ("a password is wanted", r#"{"WARNING":"Need user=<username>&password=<password>"}"#),
        ("a number", r#"{"POWER2":0}"#),
        ("a boolean", r#"{"POWER2":false}"#),
        ("null", r#"{"POWER2":null}"#),
        ("a list", r#"{"POWER2":["OFF"]}"#),
        ("another word", r#"{"POWER2":"AUS"}"#),
        ("nothing", "{}"),
    ],
    has_timer: true,
    has_meter: true,
};

fn answer(relay: &mut Relay, fault: Fault, request: &Request) -> (u16, String) {
    if request.authorization.as_deref() != Some("Basic YWRtaW46aHVzaA==") {
        return (401, r#"{"WARNING":"Need user=<username>&password=<password>"}"#.to_string());
    }
    let word = |is_on: bool| if is_on { "ON" } else { "OFF" };
    match request.line.as_str() {
        "GET /cm?cmnd=Power2%20OFF" => relay.switch(fault, false),
        "GET /cm?cmnd=Power2%20ON" => relay.switch(fault, true),
        "GET /cm?cmnd=Power2" => {
            if let Some(body) = strange(fault) {
                return ok(body);
            }
            let state = word(relay.tell(fault));
            return ok(&format!(r#"{{"POWER2":"{state}"}}"#));
        }
        "GET /cm?cmnd=Status%200" | "GET /cm?cmnd=Status" => {
            let power_on_state = if fault == Fault::Timer { 5 } else { 3 };
            // What is strange about the relay's own answer is strange here too.
            let state = word(relay.tell(fault));
            let states =
                strange(fault).map_or(format!(r#"{{"POWER2":"{state}"}}"#), str::to_string);
            let watts = if fault == Fault::Load || relay.is_on { 85 } else { 0 };
            return ok(&format!(
                r#"{{"Status":{{"PowerOnState":{power_on_state}}},"StatusFWR":{{"SDK":"2.2"}},
                "StatusSNS":{{"ENERGY":{{"Power":[85,{watts}]}}}},"StatusSTS":{states}}}"#
            ));
        }
        "GET /cm?cmnd=PulseTime2" => return ok(r#"{"PulseTime2":{"Set":0,"Remaining":0}}"#),
        _ => return ok(r#"{"Command":"Unknown"}"#),
    }
    ok("{}")
}
