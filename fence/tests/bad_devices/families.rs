//! The families: how a good device of each answers, and what a strange one may say.

use super::device::{Answer, Carrier, Fault, Relay, Request};
use super::klap::Version;

/// A family under test.
#[derive(Clone, Copy)]
pub(crate) struct Family<'a> {
    /// What `type=` says.
    pub(crate) name: &'static str,
    /// Further options.
    pub(crate) options: &'a str,
    /// Its protocol.
    pub(crate) carrier: Carrier,
    /// How a device answers.
    pub(crate) answer: Answer,
    /// Answers to the question for the state from which nobody may conclude "off".
    pub(crate) strange: &'static [(&'static str, &'static str)],
    /// Whether its devices report timers.
    pub(crate) has_timer: bool,
    /// Whether its devices measure.
    pub(crate) has_meter: bool,
}

/// What a FRITZ!Box is sent for its challenge.
const FRITZ_LOGIN: &str =
    "username=me&response=5A18%24f70d180404694c3b55dac7a2f6d151db59bfbc374d06a5588aafa620f9799fea";

/// Of Kasa, by whatever way.
const KASA_STRANGE: &[(&str, &str)] = &[
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

/// All of them. The password is "hush" everywhere.
pub(crate) const ALL: &[Family<'static>] = &[
    Family {
        name: "tasmota",
        options: "plug=2\npassword=hush",
        carrier: Carrier::Http,
        answer: tasmota,
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
    },
    Family {
        name: "shelly1",
        options: "plug=0\nusername=me\npassword=hush",
        carrier: Carrier::Http,
        answer: shelly1,
        strange: &[
            ("an error", r#"{"error":"no such relay"}"#),
            ("a number", r#"{"ison":0}"#),
            ("a text", r#"{"ison":"false"}"#),
            ("null", r#"{"ison":null}"#),
            ("a list", r#"[{"ison":false}]"#),
        ],
        has_timer: true,
        has_meter: true,
    },
    Family {
        name: "shelly2",
        options: "plug=1\npassword=hush",
        carrier: Carrier::HttpDigest,
        answer: shelly2,
        strange: &[
            (
                "the outlet is not there",
                r#"{"id":ID,"error":{"code":-105,"message":"Argument 'id', value 1 not found!"}}"#,
            ),
            (
                "no such method",
                r#"{"id":ID,"error":{"code":404,"message":"No handler for Switch.GetStatus"}}"#,
            ),
            ("busy", r#"{"id":ID,"error":{"code":-108,"message":"Resource exhausted"}}"#),
            (
                "an error without a code",
                r#"{"id":ID,"error":"x","result":{"id":1,"output":false}}"#,
            ),
            ("another outlet", r#"{"id":ID,"result":{"id":0,"output":false}}"#),
            ("another request", r#"{"id":77,"result":{"id":1,"output":false}}"#),
            ("a number", r#"{"id":ID,"result":{"id":1,"output":0}}"#),
            ("a text", r#"{"id":ID,"result":{"id":1,"output":"off"}}"#),
            ("null", r#"{"id":ID,"result":null}"#),
            ("params", r#"{"id":ID,"params":{"id":1,"output":false}}"#),
        ],
        has_timer: true,
        has_meter: true,
    },
    Family {
        name: "kasa",
        options: "plug=node a",
        carrier: Carrier::Kasa,
        answer: kasa,
        strange: KASA_STRANGE,
        has_timer: true,
        has_meter: true,
    },
    Family {
        name: "klap",
        options: "plug=node a\nusername=me@example.org\npassword=hush",
        carrier: Carrier::Klap(Version::V1),
        answer: kasa,
        strange: KASA_STRANGE,
        has_timer: true,
        has_meter: true,
    },
    Family {
        name: "tapo",
        options: "plug=node a\nusername=me@example.org\npassword=hush",
        carrier: Carrier::Klap(Version::V2),
        answer: tapo_strip,
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
    },
    Family {
        name: "tapo",
        options: "username=me@example.org\npassword=hush",
        carrier: Carrier::Klap(Version::V2),
        answer: tapo_plug,
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
    },
    Family {
        name: "esphome",
        options: "plug=Node A\npower_sensor=Power\nusername=me\npassword=hush",
        carrier: Carrier::Http,
        answer: esphome,
        strange: &[
            ("another outlet", r#"{"id":"switch-node_b","value":false,"state":"OFF"}"#),
            ("a light", r#"{"id":"light-node_a","value":false,"state":"OFF"}"#),
            ("no id", r#"{"value":false,"state":"OFF"}"#),
            ("two states", r#"{"id":"switch-node_a","value":true,"state":"OFF"}"#),
            ("two states, the other way", r#"{"id":"switch-node_a","value":false,"state":"ON"}"#),
            ("a number", r#"{"id":"switch-node_a","value":0,"state":"OFF"}"#),
            ("a text", r#"{"id":"switch-node_a","value":"false","state":"OFF"}"#),
            ("null", r#"{"id":"switch-node_a","value":null,"state":null}"#),
            (
                "assumed",
                r#"{"id":"switch-node_a","value":false,"state":"OFF","assumed_state":true}"#,
            ),
        ],
        has_timer: false,
        has_meter: true,
    },
    Family {
        name: "homeassistant",
        options: "plug=switch.node_a\npower_sensor=sensor.node_a\npassword=hush",
        carrier: Carrier::Http,
        answer: homeassistant,
        strange: &[
            ("another outlet", r#"{"entity_id":"switch.node_b","state":"off","attributes":{}}"#),
            ("no outlet", r#"{"message":"Entity not found."}"#),
            (
                "unavailable",
                r#"{"entity_id":"switch.node_a","state":"unavailable","attributes":{}}"#,
            ),
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
    },
    Family {
        name: "netio",
        options: "plug=2\nusername=me\npassword=hush",
        carrier: Carrier::Http,
        answer: netio,
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
    },
    Family {
        name: "mystrom",
        options: "password=hush",
        carrier: Carrier::Http,
        answer: mystrom,
        strange: &[
            ("no state", r#"{"power":0}"#),
            ("a number", r#"{"power":0,"relay":0}"#),
            ("a text", r#"{"power":0,"relay":"false"}"#),
            ("null", r#"{"power":0,"relay":null}"#),
        ],
        has_timer: false,
        has_meter: true,
    },
    Family {
        name: "fritz",
        options: "plug=08761 0000434\nusername=me\npassword=hush",
        carrier: Carrier::Http,
        answer: fritz,
        strange: &[
            ("the radio is lost", "inval\n"),
            ("another word", "off\n"),
            ("another number", "2\n"),
            ("two numbers", "0 1\n"),
            ("a list of outlets", "087610000434,116570240192\n"),
            ("JSON", r#"{"state":0}"#),
        ],
        has_timer: false,
        has_meter: false,
    },
    Family {
        name: "http",
        options: "power_off_url=/set?relay=0&key=hush\npower_on_url=/set?relay=1&key=hush\nstatus_url=/state?key=hush\n\
            status_on_regex=\"relay\": *true\nstatus_off_regex=\"relay\": *false\nusername=me\npassword=hush",
        carrier: Carrier::Http,
        answer: template,
        strange: &[
            ("neither", r#"{"relay": null}"#),
            ("both", r#"[{"relay": false}, {"relay": true}]"#),
            ("a text", r#"{"relay": "false"}"#),
        ],
        has_timer: false,
        has_meter: false,
    },
];

fn ok(body: &str) -> (u16, String) {
    (200, body.to_string())
}

/// The strange answer to the question for the state, where the fault is one.
fn strange(fault: Fault) -> Option<&'static str> {
    match fault {
        Fault::State(body) => Some(body),
        _ => None,
    }
}

fn not_found() -> (u16, String) {
    (404, "not found".to_string())
}

fn tasmota(relay: &mut Relay, fault: Fault, request: &Request) -> (u16, String) {
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
            let watts = if fault == Fault::Load || relay.is_on { 85 } else { 0 };
            return ok(&format!(
                r#"{{"Status":{{"PowerOnState":{power_on_state}}},"StatusFWR":{{"SDK":"2.2"}},
                "StatusSNS":{{"ENERGY":{{"Power":[85,{watts}]}}}},"StatusSTS":{{"POWER1":"ON","POWER2":"ON"}}}}"#
            ));
        }
        "GET /cm?cmnd=PulseTime2" => return ok(r#"{"PulseTime2":{"Set":0,"Remaining":0}}"#),
        _ => return ok(r#"{"Command":"Unknown"}"#),
    }
    ok("{}")
}

fn shelly1(relay: &mut Relay, fault: Fault, request: &Request) -> (u16, String) {
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

fn shelly2(relay: &mut Relay, fault: Fault, request: &Request) -> (u16, String) {
    if request.line == "GET /shelly" {
        return ok(r#"{"id":"x","mac":"AABB","gen":2}"#);
    }
    if !is_digest_right(request) {
        return (401, "{}".to_string());
    }
    let call: serde_json::Value = serde_json::from_str(&request.body).unwrap_or_default();
    let id = call["id"].to_string();
    if call["method"] == "Sys.GetStatus" {
        return ok(&format!(r#"{{"id":{id},"result":{{"mac":"AABB"}}}}"#));
    }
    if call["params"]["id"] != 1 && call["method"] != "Schedule.List" {
        return ok(&format!(r#"{{"id":{id},"error":{{"code":-105,"message":"not found"}}}}"#));
    }
    let result = match call["method"].as_str().unwrap_or_default() {
        "Switch.Set" => {
            let was_on = relay.is_on;
            relay.switch(fault, call["params"]["on"] == true);
            format!(r#"{{"was_on":{was_on}}}"#)
        }
        "Switch.GetStatus" => {
            if let Some(body) = strange(fault) {
                return ok(&body.replace("ID", &id));
            }
            let state = relay.tell(fault);
            let watts = if fault == Fault::Load || state { 85.2 } else { 0.0 };
            let timer = if fault == Fault::Timer { r#","timer_duration":9"# } else { "" };
            format!(r#"{{"id":1,"output":{state},"apower":{watts}{timer}}}"#)
        }
        "Switch.GetConfig" => r#"{"id":1,"auto_on":false,"auto_on_delay":60.0}"#.to_string(),
        "Schedule.List" => r#"{"jobs":[],"rev":0}"#.to_string(),
        _ => return ok(&format!(r#"{{"id":{id},"error":{{"code":404,"message":"No handler"}}}}"#)),
    };
    ok(&format!(r#"{{"id":{id},"result":{result}}}"#))
}

/// RFC 7616 section 3.4, with SHA-256.
fn is_digest_right(request: &Request) -> bool {
    use digest_auth::{AuthContext, AuthorizationHeader, HttpMethod};
    let header = request.authorization.as_deref().unwrap_or_default();
    let Ok(mut header) = AuthorizationHeader::parse(header) else { return false };
    let told = header.response.clone();
    let cnonce = header.cnonce.clone().unwrap_or_default();
    let body = Option::<&[u8]>::None;
    let mut context = AuthContext::new_with_method("admin", "hush", "/rpc", body, HttpMethod::POST);
    context.set_custom_cnonce(cnonce);
    header.digest(&context);
    header.nonce == "5" && header.response == told
}

fn kasa(relay: &mut Relay, fault: Fault, request: &Request) -> (u16, String) {
    let command: serde_json::Value = serde_json::from_str(&request.line).unwrap_or_default();
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

/// A strip of two sockets, which it lists from the last to the first.
fn tapo_strip(relay: &mut Relay, fault: Fault, request: &Request) -> (u16, String) {
    let asked: serde_json::Value = serde_json::from_str(&request.line).unwrap_or_default();
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
            let reply = tapo(relay, fault, &params["requestData"]);
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

fn tapo_plug(relay: &mut Relay, fault: Fault, request: &Request) -> (u16, String) {
    let asked: serde_json::Value = serde_json::from_str(&request.line).unwrap_or_default();
    match (asked["method"].as_str().unwrap_or_default(), strange(fault)) {
        ("component_nego", _) => {
            ok(r#"{"error_code":0,"result":{"component_list":[{"id":"device"}]}}"#)
        }
        ("get_device_info", Some(body)) => ok(body),
        _ => ok(&tapo(relay, fault, &asked)),
    }
}

/// What a plug answers, and a socket.
fn tapo(relay: &mut Relay, fault: Fault, asked: &serde_json::Value) -> String {
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

fn esphome(relay: &mut Relay, fault: Fault, request: &Request) -> (u16, String) {
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

fn homeassistant(relay: &mut Relay, fault: Fault, request: &Request) -> (u16, String) {
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

fn netio(relay: &mut Relay, fault: Fault, request: &Request) -> (u16, String) {
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

fn mystrom(relay: &mut Relay, fault: Fault, request: &Request) -> (u16, String) {
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

/// The challenge of one round each; the answer was reckoned by Python's hashlib.
fn fritz(relay: &mut Relay, fault: Fault, request: &Request) -> (u16, String) {
    let session = |sid: &str| {
        ok(&format!(
            "<?xml version=\"1.0\"?><SessionInfo><SID>{sid}</SID><Challenge>2$1$5A17$1$5A18</Challenge>\
             <BlockTime>0</BlockTime></SessionInfo>"
        ))
    };
    match (request.line.as_str(), request.body.as_str()) {
        ("GET /login_sid.lua?version=2", _) => return session("0000000000000000"),
        ("POST /login_sid.lua?version=2", FRITZ_LOGIN) => return session("1234567890abcdef"),
        ("POST /login_sid.lua?version=2", _) => return session("0000000000000000"),
        _ => {}
    }
    let head = "GET /webservices/homeautoswitch.lua?switchcmd=";
    let tail = "&ain=08761%200000434&sid=1234567890abcdef";
    let command = request.line.strip_prefix(head).and_then(|line| line.strip_suffix(tail));
    match command {
        Some("setswitchoff") => relay.switch(fault, false),
        Some("setswitchon") => relay.switch(fault, true),
        Some("getswitchpresent") => return ok("1\n"),
        Some("getswitchstate") => {
            if let Some(body) = strange(fault) {
                return ok(body);
            }
            return ok(if relay.tell(fault) { "1\n" } else { "0\n" });
        }
        _ => return (403, String::new()),
    }
    ok(if relay.is_on { "1\n" } else { "0\n" })
}

fn template(relay: &mut Relay, fault: Fault, request: &Request) -> (u16, String) {
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
