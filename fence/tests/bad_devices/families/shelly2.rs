//! Shelly, from the second generation on.

use super::{Family, ok, strange};
use crate::device::{Carrier, Fault, Relay, Request};
use serde_json::Value;

pub(super) const FAMILY: Family = Family {
    name: "shelly2",
    options: "plug=1\npassword=hush",
    carrier: Carrier::HttpDigest,
    answer,
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
        ("an error without a code", r#"{"id":ID,"error":"x","result":{"id":1,"output":false}}"#),
        ("another outlet", r#"{"id":ID,"result":{"id":0,"output":false}}"#),
        ("another request", r#"{"id":77,"result":{"id":1,"output":false}}"#),
        ("a number", r#"{"id":ID,"result":{"id":1,"output":0}}"#),
        ("a text", r#"{"id":ID,"result":{"id":1,"output":"off"}}"#),
        ("null", r#"{"id":ID,"result":null}"#),
        ("params", r#"{"id":ID,"params":{"id":1,"output":false}}"#),
    ],
    has_timer: true,
    has_meter: true,
};

fn answer(relay: &mut Relay, fault: Fault, request: &Request) -> (u16, String) {
    if request.line == "GET /shelly" {
        return ok(r#"{"id":"x","mac":"AABB","gen":2}"#);
    }
    if !is_digest_right(request) {
        return (401, "{}".to_string());
    }
    let call: Value = serde_json::from_str(&request.body).unwrap_or_default();
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
