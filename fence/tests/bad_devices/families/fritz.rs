//! FRITZ!Box.

use super::{Family, ok, strange};
use crate::device::{Carrier, Fault, Relay, Request};

/// What a FRITZ!Box is sent for its challenge.
const LOGIN: &str =
    "username=me&response=5A18%24f70d180404694c3b55dac7a2f6d151db59bfbc374d06a5588aafa620f9799fea";

pub(super) const FAMILY: Family = Family {
    name: "fritz",
    options: "plug=08761 0000434\nusername=me\npassword=hush",
    carrier: Carrier::Http,
    answer,
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
};

/// The challenge of one round each; the answer was reckoned by Python's hashlib.
fn answer(relay: &mut Relay, fault: Fault, request: &Request) -> (u16, String) {
    let session = |sid: &str| {
        ok(&format!(
            "<?xml version=\"1.0\"?><SessionInfo><SID>{sid}</SID><Challenge>2$1$5A17$1$5A18</Challenge>\
             <BlockTime>0</BlockTime></SessionInfo>"
        ))
    };
    match (request.line.as_str(), request.body.as_str()) {
        ("GET /login_sid.lua?version=2", _) => return session("0000000000000000"),
        ("POST /login_sid.lua?version=2", LOGIN) => return session("1234567890abcdef"),
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
