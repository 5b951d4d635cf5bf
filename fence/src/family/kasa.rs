//! TP-Link Kasa: JSON by TCP port 9999, or on newer firmware by KLAP. Described by
//! <https://github.com/softScheck/tplink-smartplug>.

use super::{Reached, socket};
use crate::json;
use crate::klap::{Klap, in_touch_with_the_cloud};
use crate::plug::{Hazard, Plug, Power, Reading, Trouble};
use crate::port9999::Port9999;
use serde_json::{Value, json};
use std::time::Instant;

/// What carries the JSON.
pub(crate) enum Way {
    /// Everyone in the network is let in.
    Port9999(Port9999),
    /// Who knows the account is let in.
    Klap(Box<Klap>),
}

/// One outlet: a plug, or a socket of a strip.
pub(crate) struct Kasa {
    way: Way,
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
    pub(crate) fn new(way: Way) -> Kasa {
        Kasa { way, outlet: None, node: None }
    }

    pub(crate) fn with_outlet(self, outlet: Option<&str>, node: Option<&str>) -> Kasa {
        let own = |text: Option<&str>| text.map(str::to_string);
        Kasa { outlet: own(outlet), node: own(node), ..self }
    }

    /// Proves the address.
    pub(crate) fn reach(&mut self, until: Instant) -> Result<Reached, Trouble> {
        let reply = self.ask(json!({"system": {"get_sysinfo": {}}}), None, until)?;
        let info = accepted(&reply, "system", "get_sysinfo")?;
        Ok(if is_strip(info) { Reached::Device } else { Reached::OnlyOutlet })
    }

    /// Sends a command, for one socket if it is one of a strip.
    fn ask(
        &mut self,
        mut command: Value,
        child: Option<&str>,
        until: Instant,
    ) -> Result<Value, Trouble> {
        if let Some(child) = child {
            command["context"] = json!({"child_ids": [child]});
        }
        match &mut self.way {
            Way::Port9999(port) => port.ask(&command, until),
            Way::Klap(klap) => klap.ask(&command, until),
        }
    }

    fn look(&mut self, until: Instant) -> Result<Outlet, Trouble> {
        let reply = self.ask(json!({"system": {"get_sysinfo": {}}}), None, until)?;
        let info = accepted(&reply, "system", "get_sysinfo")?;
        parse_outlet(info, self.outlet.as_deref(), self.node.as_deref())
    }
}

impl Plug for Kasa {
    fn label(&self) -> String {
        let host = match &self.way {
            Way::Port9999(port) => port.shown(),
            Way::Klap(klap) => klap.shown(),
        };
        socket::label(self.outlet.as_deref(), &host)
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
        let mut hazards = parse_rules(&self.ask(command, outlet.child.as_deref(), until)?);
        if matches!(self.way, Way::Klap(_)) {
            let cloud = self.ask(json!({"cnCloud": {"get_info": {}}}), None, until)?;
            hazards.extend(parse_cloud(&cloud));
        }
        Ok(hazards)
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
        let child = socket::only(children, outlet, has_name)?;
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

/// A socket is known by its name and its position from 1.
fn has_name(outlet: &str, at: usize, child: &Value) -> bool {
    let alias = child.get("alias").and_then(Value::as_str);
    alias == Some(outlet) || outlet == (at + 1).to_string()
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

fn parse_cloud(reply: &Value) -> Option<Hazard> {
    let is_connected = is_one(reply.pointer("/cnCloud/get_info")?, "cld_connection");
    is_connected.then(in_touch_with_the_cloud)
}

fn is_one(rule: &Value, name: &str) -> bool {
    rule.get(name).and_then(Value::as_i64) == Some(1)
}

fn name(rule: &Value) -> String {
    let text = |name: &str| rule.get(name).and_then(Value::as_str);
    format!("{:?}", text("name").or_else(|| text("id")).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let cloud =
            |is_connected: u8| json!({"cnCloud": {"get_info": {"cld_connection": is_connected}}});
        assert!(parse_cloud(&cloud(1)).is_some() && parse_cloud(&cloud(0)).is_none());
        assert!(parse_cloud(&json!({"cnCloud": {"err_code": -1}})).is_none());
    }

    #[test]
    fn watts_of_old_and_new_hardware() {
        let meter = |meter: Value| json!({"emeter": {"get_realtime": meter}});
        assert_eq!(parse_watts(&meter(json!({"power": 42.5}))), Some(42.5));
        assert_eq!(parse_watts(&meter(json!({"power_mw": 63499}))), Some(63.499));
        assert_eq!(parse_watts(&meter(json!({"err_code": -1}))), None);
    }
}
