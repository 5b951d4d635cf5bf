//! TP-Link Tapo, and Kasa plugs that speak as Tapo does: JSON by KLAP. Facts by python-kasa and the
//! devices that it has recorded.

use super::{Reached, socket};
use crate::json;
use crate::klap::{Klap, in_touch_with_the_cloud};
use crate::plug::{Hazard, Plug, Power, Reading, Trouble};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::time::Instant;

/// Where watts are told, and in which part of a watt. Each device has some of them.
const METERS: [(&str, &str, f64); 3] = [
    ("get_energy_usage", "/current_power", 1000.0),
    ("get_emeter_data", "/power_mw", 1000.0),
    ("get_current_power", "/current_power", 1.0),
];

/// One outlet: a plug, or a socket of a strip.
pub(crate) struct Tapo {
    klap: Klap,
    outlet: Option<String>,
    /// Pacemaker gives the node's name where no outlet is configured; then it is no outlet's.
    node: Option<String>,
    /// Where the outlet is, when the device has told.
    socket: Option<Socket>,
}

/// The part of a device that a command is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Socket {
    /// The device itself.
    Whole,
    /// The socket with this id.
    Child(String),
}

impl Tapo {
    pub(crate) fn new(klap: Klap) -> Tapo {
        Tapo { klap, outlet: None, node: None, socket: None }
    }

    pub(crate) fn with_outlet(self, outlet: Option<&str>, node: Option<&str>) -> Tapo {
        let own = |text: Option<&str>| text.map(str::to_string);
        Tapo { outlet: own(outlet), node: own(node), ..self }
    }

    /// Proves address and account.
    pub(crate) fn reach(&mut self, until: Instant) -> Result<Reached, Trouble> {
        Ok(if self.is_strip(until)? { Reached::Device } else { Reached::OnlyOutlet })
    }

    fn is_strip(&mut self, until: Instant) -> Result<bool, Trouble> {
        is_strip(&self.call(&Socket::Whole, "component_nego", Value::Null, until)?)
    }

    /// Where the outlet is. Ids do not change, so that is asked once.
    fn socket(&mut self, until: Instant) -> Result<Socket, Trouble> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        let socket = if self.is_strip(until)? {
            let name = ("get_child_device_list", "/child_device_list");
            let children = self.whole_list(&Socket::Whole, name, until)?;
            Socket::Child(find_child(&children, self.outlet.as_deref())?)
        } else {
            Socket::Whole
        };
        self.socket = Some(socket.clone());
        Ok(socket)
    }

    /// What the outlet tells of itself.
    fn info(&mut self, until: Instant) -> Result<(Socket, Value), Trouble> {
        let socket = self.socket(until)?;
        let info = self.call(&socket, "get_device_info", Value::Null, until)?;
        check_socket(&info, &socket, self.outlet.as_deref(), self.node.as_deref())?;
        Ok((socket, info))
    }

    /// Calls a method of the device or of one socket; returns its result.
    fn call(
        &mut self,
        socket: &Socket,
        method: &str,
        params: Value,
        until: Instant,
    ) -> Result<Value, Trouble> {
        let reply = self.send(socket, method, params, until)?;
        accepted(&reply)
    }

    /// The same of a method that not every device has. Only the method's own refusal says so: a socket
    /// that cannot be asked is trouble.
    fn call_if_there(
        &mut self,
        socket: &Socket,
        method: &str,
        until: Instant,
    ) -> Result<Option<Value>, Trouble> {
        let reply = self.send(socket, method, Value::Null, until)?;
        match accepted(&reply) {
            Ok(result) => Ok(Some(result)),
            Err(Trouble::Lasting(_)) => Ok(None),
            Err(other) => Err(other),
        }
    }

    fn send(
        &mut self,
        socket: &Socket,
        method: &str,
        params: Value,
        until: Instant,
    ) -> Result<Value, Trouble> {
        let mut request = json!({"method": method});
        if !params.is_null() {
            request["params"] = params;
        }
        let Socket::Child(id) = socket else { return self.klap.ask(&request, until) };
        let params = json!({"device_id": id, "requestData": request});
        let request = json!({"method": "control_child", "params": params});
        let result = accepted(&self.klap.ask(&request, until)?)?;
        let reply = result.get("responseData").cloned();
        reply.ok_or_else(|| Trouble::Passing("the socket does not answer".to_string()))
    }

    /// A list, which comes in pages.
    fn whole_list(
        &mut self,
        socket: &Socket,
        (method, path): (&str, &str),
        until: Instant,
    ) -> Result<Vec<Value>, Trouble> {
        let mut all = Vec::new();
        loop {
            let page = self.call(socket, method, json!({"start_index": all.len()}), until)?;
            let count = usize::try_from(json::integer(&page, "/sum")?).unwrap_or_default();
            let elements = json::list(&page, path);
            all.extend_from_slice(elements);
            if all.len() == count {
                return Ok(all);
            }
            if elements.is_empty() || all.len() > count {
                let text = format!("it tells {} of {count} elements of a list", all.len());
                return Err(Trouble::Passing(text));
            }
        }
    }

    fn watts(&mut self, socket: &Socket, until: Instant) -> Result<Option<f64>, Trouble> {
        for (method, path, parts) in METERS {
            // A device without the first has no meter.
            let Some(meter) = self.call_if_there(socket, method, until)? else { return Ok(None) };
            if let Some(power) = json::number(&meter, path) {
                return Ok(Some(power / parts));
            }
        }
        Ok(None)
    }

    fn countdown(&mut self, socket: &Socket, until: Instant) -> Result<Option<String>, Trouble> {
        let rules = self.call_if_there(socket, "get_countdown_rules", until)?;
        Ok(rules.as_ref().and_then(parse_countdown))
    }
}

impl Plug for Tapo {
    fn label(&self) -> String {
        socket::label(self.outlet.as_deref(), &self.klap.shown())
    }

    fn read(&mut self, until: Instant) -> Result<Reading, Trouble> {
        let (_, info) = self.info(until)?;
        Ok(parse_power(&info)?.into())
    }

    fn read_closely(&mut self, until: Instant) -> Result<Reading, Trouble> {
        let (socket, info) = self.info(until)?;
        let power = parse_power(&info)?;
        let pending = self.countdown(&socket, until)?;
        Ok(Reading { power, pending, watts: self.watts(&socket, until)? })
    }

    fn switch(&mut self, to: Power, until: Instant) -> Result<(), Trouble> {
        // The name of the outlet is looked at before anything is switched.
        let (socket, _) = self.info(until)?;
        let params = json!({"device_on": to == Power::On});
        self.call(&socket, "set_device_info", params, until).map(|_| ())
    }

    fn hazards(&mut self, until: Instant) -> Result<Vec<Hazard>, Trouble> {
        let (socket, info) = self.info(until)?;
        let mut hazards: Vec<Hazard> = parse_default(&info).into_iter().collect();
        hazards
            .extend(self.countdown(&socket, until)?.map(|text| in_app(&text, "delete the timer")));
        let auto_off = self.call_if_there(&socket, "get_auto_off_config", until)?;
        hazards.extend(auto_off.as_ref().and_then(parse_auto_off));
        let schedules = self.call_if_there(&socket, "get_schedule_rules", until)?;
        if schedules.as_ref().is_some_and(is_enabled) {
            let name = ("get_schedule_rules", "/rule_list");
            hazards.extend(parse_schedules(&self.whole_list(&socket, name, until)?));
        }
        let away = self.call_if_there(&socket, "get_antitheft_rules", until)?;
        hazards.extend(away.as_ref().and_then(parse_away));
        let update = self.call_if_there(&Socket::Whole, "get_auto_update_info", until)?;
        hazards.extend(update.as_ref().and_then(parse_update));
        let cloud = self.call_if_there(&Socket::Whole, "get_connect_cloud_state", until)?;
        hazards.extend(cloud.as_ref().and_then(parse_cloud));
        Ok(hazards)
    }
}

/// Each answer carries an error code of its own; a command has no result.
fn accepted(reply: &Value) -> Result<Value, Trouble> {
    let code = json::integer(reply, "/error_code")?;
    let text = format!("it answers error {code}");
    match code {
        0 => Ok(reply.get("result").cloned().unwrap_or_default()),
        // Not ready, not carried out, not specified, session over (python-kasa, `exceptions.py`).
        1002 | 1112 | -1001 | 9999 | -40401 => Err(Trouble::Passing(text)),
        _ => Err(Trouble::Lasting(text)),
    }
}

/// `{"component_list":[{"id":"control_child","ver_code":2}, …]}`.
fn is_strip(components: &Value) -> Result<bool, Trouble> {
    let all = json::list(components, "/component_list");
    if all.is_empty() {
        return Err(Trouble::Passing("it does not tell what it is made of".to_string()));
    }
    let id =
        |component: &Value| component.get("id").and_then(Value::as_str) == Some("control_child");
    Ok(all.iter().any(id))
}

/// The id of a socket.
fn find_child(children: &[Value], outlet: Option<&str>) -> Result<String, Trouble> {
    let child = socket::only(children, outlet, has_name)?;
    Ok(json::text(child, "/device_id")?.to_string())
}

/// A socket is known by its name, its id and the position that it tells: the list has an order of its own.
fn has_name(outlet: &str, _: usize, child: &Value) -> bool {
    let text = |key: &str| child.get(key).and_then(Value::as_str);
    let position = child.get("position").and_then(Value::as_i64);
    text("nickname") == Some(&STANDARD.encode(outlet))
        || text("device_id") == Some(outlet)
        || position.map(|position| position.to_string()).as_deref() == Some(outlet)
}

/// Whether this is the outlet that is meant, and an outlet at all.
fn check_socket(
    info: &Value,
    socket: &Socket,
    outlet: Option<&str>,
    node: Option<&str>,
) -> Result<(), Trouble> {
    let kind = json::text(info, "/type")?;
    if !["PLUG", "SWITCH"].iter().any(|word| kind.contains(word)) {
        return Err(Trouble::Lasting(format!("it is no plug but a {kind:?}")));
    }
    let id = json::text(info, "/device_id")?;
    match (socket, outlet) {
        (Socket::Child(child), _) if child == id => Ok(()),
        (Socket::Child(_), _) => {
            Err(Trouble::Passing(format!("it answers for another socket, {id:?}")))
        }
        (Socket::Whole, None) => Ok(()),
        (Socket::Whole, Some(outlet)) => {
            let nickname = info.get("nickname").and_then(Value::as_str);
            let is_it = outlet == "1"
                || outlet == id
                || node == Some(outlet)
                || nickname == Some(&STANDARD.encode(outlet));
            let text = format!("it has one outlet, and it is not named {outlet:?}");
            if is_it { Ok(()) } else { Err(Trouble::Lasting(text)) }
        }
    }
}

fn parse_power(info: &Value) -> Result<Power, Trouble> {
    Ok(Power::from_bool(json::boolean(info, "/device_on")?))
}

/// A rule that does not say what it wants may want power.
fn parse_countdown(rules: &Value) -> Option<String> {
    let is_on = |rule: &&Value| is_enabled(rule) && wants_power(rule) != Some(false);
    let rule = json::list(rules, "/rule_list").iter().find(is_on)?;
    let seconds = rule.get("remain").and_then(Value::as_i64).filter(|seconds| *seconds > 0);
    let when = seconds.map(|seconds| format!(" in {seconds} s")).unwrap_or_default();
    Some(format!("a timer switches it on{when}"))
}

/// What comes after a loss of the plug's own power: the last state is what a fence needs.
fn parse_default(info: &Value) -> Option<Hazard> {
    let states = info.get("default_states")?;
    let text = |key: &str| states.get(key).and_then(Value::as_str);
    let is_on = text("re_power_type") == Some("always_on")
        || (text("type") == Some("custom") && json::is_true(states, "/state/on"));
    let setting = "default_states switches on when the plug itself restarts";
    is_on.then(|| in_app(setting, "set the status after a power failure to the last one"))
}

/// It undoes no fence, but takes a node's power for no reason.
fn parse_auto_off(config: &Value) -> Option<Hazard> {
    let minutes = json::number(config, "/delay_min").unwrap_or_default();
    let setting = format!("auto_off takes the node's power after {minutes} min");
    json::is_true(config, "/enable").then(|| in_app(&setting, "end it"))
}

fn parse_schedules(rules: &[Value]) -> Vec<Hazard> {
    let switches_on = |rule: &&Value| is_enabled(rule) && wants_power(rule) != Some(false);
    let hazard = |rule: &Value| {
        let id = rule.get("id").and_then(Value::as_str).unwrap_or_default();
        in_app(&format!("the schedule {id:?} switches on by the clock"), "delete it")
    };
    rules.iter().filter(switches_on).map(hazard).collect()
}

fn parse_away(rules: &Value) -> Option<Hazard> {
    let is_on = is_enabled(rules) && json::list(rules, "/rule_list").iter().any(is_enabled);
    is_on.then(|| in_app("the away mode switches on at random", "end it"))
}

fn parse_update(update: &Value) -> Option<Hazard> {
    let setting = "the firmware updates itself, which has shut out local commands before";
    is_enabled(update).then(|| in_app(setting, "end automatic updates"))
}

/// 0 is "connected".
fn parse_cloud(state: &Value) -> Option<Hazard> {
    (json::number(state, "/status") == Some(0.0)).then(in_touch_with_the_cloud)
}

fn in_app(setting: &str, mend: &str) -> Hazard {
    Hazard { setting: setting.to_string(), mend: format!("{mend} in the plug's app") }
}

fn is_enabled(rule: &Value) -> bool {
    json::is_true(rule, "/enable")
}

fn wants_power(rule: &Value) -> Option<bool> {
    rule.pointer("/desired_states/on").and_then(Value::as_bool)
}

#[cfg(test)]
#[path = "tapo_tests.rs"]
mod tests;
