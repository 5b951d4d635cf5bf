//! TP-Link Kasa, by port 9999 and by KLAP.

use super::{Family, ok, strange};
use crate::device::{Carrier, Fault, Relay, Request};
use crate::klap::Version;
use serde_json::Value;

/// By whatever way.
const STRANGE: &[(&str, &str)] = &[
    (
        "the outlet is not there",
        r#"{"system":{"get_sysinfo":{"err_code":0,"children":[{"id":"A01","alias":"node b","state":0}]}}}"#,
    ),
    (
        "two of that name",
        r#"{"system":{"get_sysinfo":{"err_code":0,"children":[{"id":"A00","alias":"node a","state":0},{"id":"A01","alias":"node a","state":0}]}}}"#,
    ),
    ("no outlets", r#"{"system":{"get_sysinfo":{"err_code":0,"child_num":6,"relay_state":0}}}"#),
    ("another plug", r#"{"system":{"get_sysinfo":{"err_code":0,"alias":"lamp","relay_state":0}}}"#),
    ("an error", r#"{"system":{"get_sysinfo":{"err_code":-1,"err_msg":"module not support"}}}"#),
    ("an error of the module", r#"{"system":{"err_code":-1,"err_msg":"module not support"}}"#),
    (
        "no error code",
        r#"{"system":{"get_sysinfo":{"children":[{"id":"A00","alias":"node a","state":0}]}}}"#,
    ),
    (
        "a text",
        r#"{"system":{"get_sysinfo":{"err_code":0,"children":[{"id":"A00","alias":"node a","state":"0"}]}}}"#,
    ),
    (
        "a boolean",
        r#"{"system":{"get_sysinfo":{"err_code":0,"children":[{"id":"A00","alias":"node a","state":false}]}}}"#,
    ),
    (
        "no state",
        r#"{"system":{"get_sysinfo":{"err_code":0,"children":[{"id":"A00","alias":"node a"}]}}}"#,
    ),
    (
        "2",
        r#"{"system":{"get_sysinfo":{"err_code":0,"children":[{"id":"A00","alias":"node a","state":2}]}}}"#,
    ),
    (
        "a bulb",
        r#"{"system":{"get_sysinfo":{"err_code":0,"alias":"node a","light_state":{"on_off":0}}}}"#,
    ),
];

pub(super) const PORT9999: Family = Family {
    name: "kasa",
    options: "plug=node a",
    carrier: Carrier::Kasa,
    answer,
    strange: STRANGE,
    has_timer: true,
    has_meter: true,
};

pub(super) const KLAP: Family = Family {
    name: "klap",
    options: "plug=node a\nusername=me@example.org\npassword=hush",
    carrier: Carrier::Klap(Version::V1),
    answer,
    strange: STRANGE,
    has_timer: true,
    has_meter: true,
};

fn answer(relay: &mut Relay, fault: Fault, request: &Request) -> (u16, String) {
    let command: Value = serde_json::from_str(&request.line).unwrap_or_default();
    let is_child = command["context"]["child_ids"] == serde_json::json!(["A00"]);
    if command.pointer("/system/get_sysinfo").is_some() {
        if let Some(body) = strange(fault) {
            return ok(body);
        }
        let state = u8::from(relay.tell(fault));
        return ok(&format!(
            r#"{{"system":{{"get_sysinfo":{{"err_code":0,"child_num":2,"children":[
            {{"id":"A00","alias":"node a","state":{state}}},{{"id":"A01","alias":"node b","state":1}}]}}}}}}"#
        ));
    }
    if let Some(state) = command.pointer("/system/set_relay_state/state") {
        // Without the context a strip switches all its outlets.
        if !is_child {
            relay.commands.push("all");
        }
        relay.switch(fault, state == 1);
        return ok(r#"{"system":{"set_relay_state":{"err_code":0}}}"#);
    }
    let rule = match fault {
        Fault::Timer => r#"{"id":"x","enable":1,"act":1,"remain":9}"#,
        _ => "",
    };
    let watts = if fault == Fault::Load || relay.is_on { 85_200 } else { 0 };
    ok(&format!(
        r#"{{"emeter":{{"get_realtime":{{"power_mw":{watts},"err_code":0}}}},
        "count_down":{{"get_rules":{{"rule_list":[{rule}],"err_code":0}}}},
        "schedule":{{"get_rules":{{"rule_list":[],"err_code":0}}}}}}"#
    ))
}
