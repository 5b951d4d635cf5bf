//! TP-Link Kasa, the protocol of TCP port 9999: JSON under an XOR with itself, without a password.
//! Described by <https://github.com/softScheck/tplink-smartplug>.

use super::Reached;
use crate::address::{Limits, Place};
use crate::json;
use crate::plug::{Hazard, Plug, Power, Reading, Trouble};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// The key of the first byte.
const KEY: u8 = 171;
/// An answer may be so long, bytes.
const LONGEST: usize = 64 * 1024;

/// One outlet: a plug, or a socket of a strip.
pub(crate) struct Kasa {
    place: Place,
    limits: Limits,
    outlet: Option<String>,
    /// Pacemaker gives the node's name where no outlet is configured; then it is no outlet's.
    node: Option<String>,
}

/// What a device tells of an outlet.
#[derive(Debug, PartialEq)]
struct Outlet {
    /// On a strip: without it a command switches all sockets.
    child: Option<String>,
    power: Power,
    has_meter: bool,
}

impl Kasa {
    pub(crate) fn new(place: Place, limits: Limits) -> Kasa {
        Kasa { place, limits, outlet: None, node: None }
    }

    pub(crate) fn with_outlet(self, outlet: Option<&str>, node: Option<&str>) -> Kasa {
        let own = |text: Option<&str>| text.map(str::to_string);
        Kasa { outlet: own(outlet), node: own(node), ..self }
    }

    /// Proves the address.
    pub(crate) fn reach(&self, until: Instant) -> Result<Reached, Trouble> {
        let reply = self.ask(json!({"system": {"get_sysinfo": {}}}), None, until)?;
        let info = accepted(&reply, "system", "get_sysinfo")?;
        Ok(if is_strip(info) { Reached::Device } else { Reached::OnlyOutlet })
    }

    /// Sends a command, for one socket if it is one of a strip.
    fn ask(
        &self,
        mut command: Value,
        child: Option<&str>,
        until: Instant,
    ) -> Result<Value, Trouble> {
        if let Some(child) = child {
            command["context"] = json!({"child_ids": [child]});
        }
        let end = self.limits.end(until)?;
        json::object(&exchange(&self.place, self.limits, &command.to_string(), end)?)
    }

    fn look(&self, until: Instant) -> Result<Outlet, Trouble> {
        let reply = self.ask(json!({"system": {"get_sysinfo": {}}}), None, until)?;
        let info = accepted(&reply, "system", "get_sysinfo")?;
        parse_outlet(info, self.outlet.as_deref(), self.node.as_deref())
    }
}

impl Plug for Kasa {
    fn label(&self) -> String {
        match &self.outlet {
            Some(outlet) => format!("outlet {outlet:?} of {}", self.place.shown()),
            None => format!("the outlet at {}", self.place.shown()),
        }
    }

    fn read(&mut self, until: Instant) -> Result<Reading, Trouble> {
        Ok(self.look(until)?.power.into())
    }

    fn read_closely(&mut self, until: Instant) -> Result<Reading, Trouble> {
        let outlet = self.look(until)?;
        let mut command = json!({"count_down": {"get_rules": {}}});
        if outlet.has_meter {
            command["emeter"] = json!({"get_realtime": {}});
        }
        let evidence = self.ask(command, outlet.child.as_deref(), until)?;
        let pending = parse_countdown(&evidence);
        Ok(Reading { power: outlet.power, pending, watts: parse_watts(&evidence) })
    }

    fn switch(&mut self, to: Power, until: Instant) -> Result<(), Trouble> {
        let outlet = self.look(until)?;
        let state = u8::from(to == Power::On);
        let command = json!({"system": {"set_relay_state": {"state": state}}});
        let reply = self.ask(command, outlet.child.as_deref(), until)?;
        accepted(&reply, "system", "set_relay_state").map(|_| ())
    }

    fn hazards(&mut self, until: Instant) -> Result<Vec<Hazard>, Trouble> {
        let outlet = self.look(until)?;
        let command = json!({"schedule": {"get_rules": {}}, "anti_theft": {"get_rules": {}}});
        let rules = self.ask(command, outlet.child.as_deref(), until)?;
        Ok(parse_rules(&rules))
    }
}

/// Each answer carries an error code of its own.
fn accepted<'a>(reply: &'a Value, module: &str, command: &str) -> Result<&'a Value, Trouble> {
    let path = format!("/{module}/{command}");
    // A module that is not there answers in the place of its commands.
    let at = if reply.pointer(&path).is_some() { path } else { format!("/{module}") };
    let code = json::integer(reply, &format!("{at}/err_code"))?;
    let value = reply.pointer(&at).unwrap_or(reply);
    if code == 0 {
        return Ok(value);
    }
    let said = value.get("err_msg").and_then(Value::as_str).unwrap_or_default();
    Err(Trouble::Lasting(format!("it answers error {code} {said:?}")))
}

fn is_strip(info: &Value) -> bool {
    ["children", "child_num"].iter().any(|name| info.get(*name).is_some())
}

/// The outlet in a `get_sysinfo`.
fn parse_outlet(info: &Value, outlet: Option<&str>, node: Option<&str>) -> Result<Outlet, Trouble> {
    let children = json::list(info, "/children");
    if is_strip(info) {
        let outlet = outlet.ok_or_else(|| {
            Trouble::Lasting("it has several outlets, and no plug is given".to_string())
        })?;
        let child = find_child(children, outlet)?;
        let id = json::text(child, "/id")?.to_string();
        return Ok(Outlet {
            child: Some(id),
            power: json::relay(child, "/state")?,
            has_meter: true,
        });
    }
    let alias = info.get("alias").and_then(Value::as_str);
    let is_it = |outlet: &str| outlet == "1" || [alias, node].contains(&Some(outlet));
    if let Some(outlet) = outlet.filter(|outlet| !is_it(outlet)) {
        let text =
            format!("it has one outlet, {:?}, and none named {outlet:?}", alias.unwrap_or("1"));
        return Err(Trouble::Lasting(text));
    }
    let has_meter =
        info.get("feature").and_then(Value::as_str).is_some_and(|all| all.contains("ENE"));
    Ok(Outlet { child: None, power: json::relay(info, "/relay_state")?, has_meter })
}

/// A socket by its name or its position from 1; never by both at once.
fn find_child<'a>(children: &'a [Value], outlet: &str) -> Result<&'a Value, Trouble> {
    let is_it = |(at, child): &(usize, &Value)| {
        let alias = child.get("alias").and_then(Value::as_str);
        alias == Some(outlet) || outlet == (at + 1).to_string()
    };
    let found: Vec<&Value> =
        children.iter().enumerate().filter(is_it).map(|(_, child)| child).collect();
    match found.as_slice() {
        [child] => Ok(child),
        [] => Err(Trouble::Lasting(format!(
            "it has no outlet {outlet:?} among its {}",
            children.len()
        ))),
        _ => Err(Trouble::Lasting(format!("it has two outlets that may be {outlet:?}"))),
    }
}

/// A rule of `count_down` with `act` 1 switches on when its time is over.
fn parse_countdown(reply: &Value) -> Option<String> {
    let is_on = |rule: &&Value| is_one(rule, "enable") && is_one(rule, "act");
    let rule = json::list(reply, "/count_down/get_rules/rule_list").iter().find(is_on)?;
    let seconds = rule.get("remain").and_then(Value::as_i64).filter(|seconds| *seconds > 0);
    let when = seconds.map(|seconds| format!(" in {seconds} s")).unwrap_or_default();
    Some(format!("a timer switches it on{when}"))
}

/// Older devices tell watts, newer ones milliwatts.
fn parse_watts(reply: &Value) -> Option<f64> {
    let meter = reply.pointer("/emeter/get_realtime")?;
    json::number(meter, "/power").or_else(|| Some(json::number(meter, "/power_mw")? / 1000.0))
}

fn parse_rules(reply: &Value) -> Vec<Hazard> {
    let rules = |module: &str| json::list(reply, &format!("/{module}/get_rules/rule_list"));
    let mut hazards = Vec::new();
    let is_on = |rule: &&Value| is_one(rule, "enable") && is_one(rule, "sact");
    for rule in rules("schedule").iter().filter(is_on) {
        hazards.push(Hazard {
            setting: format!("the schedule {} switches on by the clock", name(rule)),
            mend: "delete it in the plug's app".to_string(),
        });
    }
    for rule in rules("anti_theft").iter().filter(|rule| is_one(rule, "enable")) {
        hazards.push(Hazard {
            setting: format!("the away mode {} switches on at random", name(rule)),
            mend: "end it in the plug's app".to_string(),
        });
    }
    hazards
}

fn is_one(rule: &Value, name: &str) -> bool {
    rule.get(name).and_then(Value::as_i64) == Some(1)
}

fn name(rule: &Value) -> String {
    let text = |name: &str| rule.get(name).and_then(Value::as_str);
    format!("{:?}", text("name").or_else(|| text("id")).unwrap_or_default())
}

/// One connection, one command, one answer: four bytes of length, big-endian, then the text.
fn exchange(place: &Place, limits: Limits, text: &str, end: Instant) -> Result<String, Trouble> {
    let mut stream = connect(place, limits, end)?;
    let lost = |what: &str| Trouble::Passing(what.to_string());
    let length = u32::try_from(text.len()).map_err(|_| lost("the command is too long"))?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend(encrypted(text.as_bytes()));
    stream.set_write_timeout(Some(left(end)?)).map_err(|_| lost("no time is left"))?;
    stream.write_all(&frame).map_err(|_| lost("it takes no command"))?;
    let mut head = [0; 4];
    read_exact(&mut stream, &mut head, end)?;
    let length = usize::try_from(u32::from_be_bytes(head)).unwrap_or(usize::MAX);
    if length > LONGEST {
        return Err(Trouble::Passing(format!("its answer is longer than {LONGEST} bytes")));
    }
    let mut body = vec![0; length];
    read_exact(&mut stream, &mut body, end)?;
    String::from_utf8(decrypted(&body)).map_err(|_| lost("its answer is not text"))
}

fn connect(place: &Place, limits: Limits, end: Instant) -> Result<TcpStream, Trouble> {
    let mut trouble = Trouble::Passing("it takes no connection".to_string());
    for address in place.resolve(limits.connect)? {
        match TcpStream::connect_timeout(&address, limits.connect.min(left(end)?)) {
            Ok(stream) => return Ok(stream),
            Err(error) => {
                trouble = Trouble::Passing(format!("it takes no connection: {error}"));
            }
        }
    }
    Err(trouble)
}

/// Fills the buffer; the time is looked at after each piece, so that a slow drip ends too.
fn read_exact(stream: &mut TcpStream, buffer: &mut [u8], end: Instant) -> Result<(), Trouble> {
    let mut at = 0;
    while at < buffer.len() {
        let time = left(end)?;
        stream.set_read_timeout(Some(time)).map_err(|_| late())?;
        match stream.read(&mut buffer[at..]) {
            Ok(0) => return Err(Trouble::Passing("its answer is cut off".to_string())),
            Ok(count) => at += count,
            Err(_) if Instant::now() >= end => return Err(late()),
            Err(error) => return Err(Trouble::Passing(format!("its answer is cut off: {error}"))),
        }
    }
    Ok(())
}

/// The time until then; never zero, which a socket takes for "for ever".
fn left(end: Instant) -> Result<Duration, Trouble> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(late()) } else { Ok(left) }
}

fn late() -> Trouble {
    Trouble::Passing("it does not answer in time".to_string())
}

fn encrypted(bytes: &[u8]) -> Vec<u8> {
    let mut key = KEY;
    let next = |byte: &u8| {
        key ^= byte;
        key
    };
    bytes.iter().map(next).collect()
}

fn decrypted(bytes: &[u8]) -> Vec<u8> {
    let mut key = KEY;
    let next = |byte: &u8| {
        let plain = key ^ byte;
        key = *byte;
        plain
    };
    bytes.iter().map(next).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cipher_goes_there_and_back() {
        // The known frame of {"system":{}}: 171 ^ '{' and so on.
        let frame = encrypted(b"{\"s");
        assert_eq!(frame, [0xd0, 0xf2, 0x81]);
        assert_eq!(decrypted(&frame), b"{\"s");
    }

    fn strip() -> Value {
        json!({"err_code": 0, "child_num": 3, "children": [
            {"id": "A00", "state": 1, "alias": "node a"},
            {"id": "A01", "state": 0, "alias": "node b"},
            {"id": "A02", "state": 1, "alias": "1"}]})
    }

    #[test]
    fn a_socket_of_a_strip_is_found_by_one_name_alone() {
        for (outlet, want) in [
            ("node a", Some(("A00", Power::On))),
            ("node b", Some(("A01", Power::Off))),
            ("A01", None),
            ("2", Some(("A01", Power::Off))),
            ("3", Some(("A02", Power::On))),
            // The position of one and the name of another.
            ("1", None),
            ("4", None),
            ("0", None),
            ("01", None),
            ("Node A", None),
        ] {
            let found = parse_outlet(&strip(), Some(outlet), None).ok();
            let found = found.as_ref().map(|found| (found.child.as_deref().unwrap(), found.power));
            assert_eq!(found, want, "{outlet}");
        }
        assert!(matches!(parse_outlet(&strip(), None, None), Err(Trouble::Lasting(_))));
        let empty = json!({"err_code": 0, "child_num": 6, "relay_state": 0});
        assert!(parse_outlet(&empty, None, None).is_err());
        assert!(parse_outlet(&empty, Some("1"), None).is_err());
    }

    #[test]
    fn a_single_plug_has_a_relay_and_perhaps_a_name() {
        let plug =
            |state: Value| json!({"relay_state": state, "alias": "node a", "feature": "TIM:ENE"});
        let want = Outlet { child: None, power: Power::Off, has_meter: true };
        for outlet in [None, Some("1"), Some("node a")] {
            assert_eq!(parse_outlet(&plug(json!(0)), outlet, None).unwrap(), want);
        }
        assert!(parse_outlet(&plug(json!(0)), Some("2"), None).is_err());
        assert!(parse_outlet(&plug(json!(0)), Some("storage-a"), Some("storage-a")).is_ok());
        assert!(parse_outlet(&strip(), Some("storage-a"), Some("storage-a")).is_err());
        for state in [json!(2), json!("0"), json!(false), json!(null), json!(0.5)] {
            assert!(parse_outlet(&plug(state.clone()), None, None).is_err(), "{state}");
        }
        assert!(parse_outlet(&json!({"light_state": {"on_off": 0}}), None, None).is_err());
    }

    #[test]
    fn every_answer_has_its_error_code() {
        let reply =
            json!({"system": {"set_relay_state": {"err_code": -14, "err_msg": "entry not exist"}}});
        let trouble = accepted(&reply, "system", "set_relay_state").unwrap_err();
        assert_eq!(trouble.text(), "it answers error -14 \"entry not exist\"");
        let reply = json!({"system": {"err_code": -1, "err_msg": "module not support"}});
        assert!(accepted(&reply, "system", "set_relay_state").is_err());
        for reply in [json!({}), json!({"system": {"set_relay_state": {}}}), json!({"system": 1})] {
            assert!(accepted(&reply, "system", "set_relay_state").is_err(), "{reply}");
        }
    }

    #[test]
    fn rules_that_switch_on_are_found() {
        let countdown = |enable: u8, act: u8| {
            let rule = json!({"id": "x", "enable": enable, "act": act, "remain": 9});
            json!({"count_down": {"get_rules": {"rule_list": [rule], "err_code": 0}}})
        };
        assert_eq!(parse_countdown(&countdown(1, 1)).unwrap(), "a timer switches it on in 9 s");
        assert_eq!(parse_countdown(&countdown(0, 1)), None);
        assert_eq!(parse_countdown(&countdown(1, 0)), None);
        let rule = json!({"name": "evening", "enable": 1, "sact": 1});
        let away = json!({"id": "y", "enable": 1});
        let rules = json!({"schedule": {"get_rules": {"rule_list": [rule]}},
            "anti_theft": {"get_rules": {"rule_list": [away]}}});
        assert_eq!(parse_rules(&rules).len(), 2);
        assert_eq!(parse_rules(&json!({"schedule": {"err_code": -1}})), []);
    }

    #[test]
    fn watts_of_old_and_new_hardware() {
        let meter = |meter: Value| json!({"emeter": {"get_realtime": meter}});
        assert_eq!(parse_watts(&meter(json!({"power": 42.5}))), Some(42.5));
        assert_eq!(parse_watts(&meter(json!({"power_mw": 63499}))), Some(63.499));
        assert_eq!(parse_watts(&meter(json!({"err_code": -1}))), None);
    }
}
