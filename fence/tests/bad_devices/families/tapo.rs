//! TP-Link Tapo: a strip and a plug.

use super::{Family, ok, strange};
use crate::device::{Carrier, Fault, Relay, Request};
use crate::klap::Version;
use serde_json::Value;

pub(super) const STRIP: Family = Family {
    name: "tapo",
    options: "plug=node a\nusername=me@example.org\npassword=hush",
    carrier: Carrier::Klap(Version::V2),
    answer: strip,
    strange: &[
        ("an error of the strip", r#"{"error_code":-1008}"#),
        (
            "an error of the socket",
            r#"{"error_code":0,"result":{"responseData":{"error_code":-1008,"result":{"device_id":"A01","type":"SMART.TAPOPLUG","device_on":false}}}}"#,
        ),
        ("busy", r#"{"error_code":0,"result":{"responseData":{"error_code":-1001}}}"#),
        (
            "the strip itself",
            r#"{"error_code":0,"result":{"device_id":"A01","type":"SMART.TAPOPLUG","device_on":false}}"#,
        ),
        (
            "another socket",
            r#"{"error_code":0,"result":{"responseData":{"error_code":0,"result":{"device_id":"A02","type":"SMART.TAPOPLUG","device_on":false}}}}"#,
        ),
        (
            "no socket's id",
            r#"{"error_code":0,"result":{"responseData":{"error_code":0,"result":{"type":"SMART.TAPOPLUG","device_on":false}}}}"#,
        ),
        (
            "no error code",
            r#"{"error_code":0,"result":{"responseData":{"result":{"device_id":"A01","type":"SMART.TAPOPLUG","device_on":false}}}}"#,
        ),
        (
            "no error code of the strip",
            r#"{"result":{"responseData":{"error_code":0,"result":{"device_id":"A01","type":"SMART.TAPOPLUG","device_on":false}}}}"#,
        ),
        (
            "a bulb",
            r#"{"error_code":0,"result":{"responseData":{"error_code":0,"result":{"device_id":"A01","type":"SMART.TAPOBULB","device_on":false}}}}"#,
        ),
        (
            "no state",
            r#"{"error_code":0,"result":{"responseData":{"error_code":0,"result":{"device_id":"A01","type":"SMART.TAPOPLUG","on_off":0}}}}"#,
        ),
        (
            "a number",
            r#"{"error_code":0,"result":{"responseData":{"error_code":0,"result":{"device_id":"A01","type":"SMART.TAPOPLUG","device_on":0}}}}"#,
        ),
        (
            "a text",
            r#"{"error_code":0,"result":{"responseData":{"error_code":0,"result":{"device_id":"A01","type":"SMART.TAPOPLUG","device_on":"false"}}}}"#,
        ),
        (
            "null",
            r#"{"error_code":0,"result":{"responseData":{"error_code":0,"result":{"device_id":"A01","type":"SMART.TAPOPLUG","device_on":null}}}}"#,
        ),
    ],
    has_timer: true,
    has_meter: true,
};

pub(super) const PLUG: Family = Family {
    name: "tapo",
    options: "username=me@example.org\npassword=hush",
    carrier: Carrier::Klap(Version::V2),
    answer: plug,
    strange: &[
        (
            "an error",
            r#"{"error_code":-1301,"result":{"device_id":"B","type":"SMART.TAPOPLUG","device_on":false}}"#,
        ),
        ("a strip", r#"{"error_code":0,"result":{"device_id":"B","type":"SMART.TAPOPLUG"}}"#),
        (
            "a hub",
            r#"{"error_code":0,"result":{"device_id":"B","type":"SMART.TAPOHUB","device_on":false}}"#,
        ),
        (
            "a number",
            r#"{"error_code":0,"result":{"device_id":"B","type":"SMART.TAPOPLUG","device_on":0}}"#,
        ),
        (
            "a socket",
            r#"{"error_code":0,"result":{"responseData":{"error_code":0,"result":{"device_id":"B","type":"SMART.TAPOPLUG","device_on":false}}}}"#,
        ),
    ],
    has_timer: true,
    has_meter: true,
};

/// A strip of two sockets, which it lists from the last to the first.
fn strip(relay: &mut Relay, fault: Fault, request: &Request) -> (u16, String) {
    let asked: Value = serde_json::from_str(&request.line).unwrap_or_default();
    let params = &asked["params"];
    match asked["method"].as_str().unwrap_or_default() {
        "component_nego" => ok(
            r#"{"error_code":0,"result":{"component_list":[{"id":"device"},{"id":"control_child"}]}}"#,
        ),
        "get_child_device_list" if params["start_index"] == 0 => {
            ok(r#"{"error_code":0,"result":{"start_index":0,"sum":2,"child_device_list":[
            {"device_id":"A02","position":2,"nickname":"bm9kZSBi","device_on":true}]}}"#)
        }
        "get_child_device_list" => {
            ok(r#"{"error_code":0,"result":{"start_index":1,"sum":2,"child_device_list":[
            {"device_id":"A01","position":1,"nickname":"bm9kZSBh","device_on":true}]}}"#)
        }
        "get_auto_update_info" => ok(r#"{"error_code":0,"result":{"enable":false}}"#),
        "control_child" if params["device_id"] == "A01" => {
            let method = params["requestData"]["method"].as_str().unwrap_or_default();
            if let (Some(body), "get_device_info") = (strange(fault), method) {
                return ok(body);
            }
            let reply = outlet(relay, fault, &params["requestData"]);
            ok(&format!(r#"{{"error_code":0,"result":{{"responseData":{reply}}}}}"#))
        }
        // Whatever else is switched is not the node's.
        "control_child" | "set_device_info" => {
            relay.commands.push("all");
            ok(r#"{"error_code":0,"result":{"responseData":{"error_code":0}}}"#)
        }
        _ => ok(r#"{"error_code":-1008}"#),
    }
}

fn plug(relay: &mut Relay, fault: Fault, request: &Request) -> (u16, String) {
    let asked: Value = serde_json::from_str(&request.line).unwrap_or_default();
    match (asked["method"].as_str().unwrap_or_default(), strange(fault)) {
        ("component_nego", _) => {
            ok(r#"{"error_code":0,"result":{"component_list":[{"id":"device"}]}}"#)
        }
        ("get_device_info", Some(body)) => ok(body),
        _ => ok(&outlet(relay, fault, &asked)),
    }
}

/// What a plug answers, and a socket.
fn outlet(relay: &mut Relay, fault: Fault, asked: &Value) -> String {
    let result = match asked["method"].as_str().unwrap_or_default() {
        "set_device_info" => {
            relay.switch(fault, asked["params"]["device_on"] == true);
            return r#"{"error_code":0}"#.to_string();
        }
        "get_device_info" => {
            let state = relay.tell(fault);
            format!(r#"{{"device_id":"A01","type":"SMART.TAPOPLUG","device_on":{state}}}"#)
        }
        "get_countdown_rules" => {
            let is_on = fault == Fault::Timer;
            format!(
                r#"{{"enable":{is_on},"rule_list":[{{"enable":{is_on},"remain":9,"desired_states":{{"on":true}}}}]}}"#
            )
        }
        // As of a P304M: its watts are elsewhere.
        "get_energy_usage" => r#"{"today_energy":1}"#.to_string(),
        "get_emeter_data" => {
            let power = if fault == Fault::Load || relay.is_on { 85_200 } else { 0 };
            format!(r#"{{"power_mw":{power}}}"#)
        }
        "get_schedule_rules" => {
            r#"{"enable":false,"rule_list":[],"start_index":0,"sum":0}"#.to_string()
        }
        _ => return r#"{"error_code":-1008}"#.to_string(),
    };
    format!(r#"{{"error_code":0,"result":{result}}}"#)
}
