//! Shelly from the second generation on: <https://shelly-api-docs.shelly.cloud/gen2/>.

use crate::http::{Http, Request};
use crate::json;
use crate::plug::{Hazard, Plug, Power, Reading, Trouble};
use serde_json::{Value, json};
use std::time::Instant;

/// One switch component.
pub(crate) struct Shelly2 {
    http: Http,
    channel: u8,
    calls: i64,
}

/// Proves address and credentials.
pub(crate) fn reach(http: Http, until: Instant) -> Result<(), Trouble> {
    let status = Shelly2::new(http, 0).call("Sys.GetStatus", json!({}), until)?;
    json::text(&status, "/mac").map(|_| ())
}

impl Shelly2 {
    pub(crate) fn new(http: Http, channel: u8) -> Shelly2 {
        Shelly2 { http, channel, calls: 0 }
    }

    /// Calls a method (JSON-RPC 2.0 over HTTP); returns its result.
    fn call(&mut self, method: &str, params: Value, until: Instant) -> Result<Value, Trouble> {
        self.calls += 1;
        let frame =
            json!({"id": self.calls, "src": "fence_smartplug", "method": method, "params": params});
        let frame = frame.to_string();
        let request = Request { name: method, ..Request::post("/rpc", &frame) };
        parse_frame(&self.http.ask(request, until)?, self.calls)
    }
}

impl Plug for Shelly2 {
    fn label(&self) -> String {
        format!("switch {} of {}", self.channel, self.http.shown())
    }

    fn read(&mut self, until: Instant) -> Result<Reading, Trouble> {
        let status = self.call("Switch.GetStatus", json!({"id": self.channel}), until)?;
        parse_status(&status, self.channel)
    }

    fn switch(&mut self, to: Power, until: Instant) -> Result<(), Trouble> {
        let params = json!({"id": self.channel, "on": to == Power::On});
        let result = self.call("Switch.Set", params, until)?;
        json::boolean(&result, "/was_on").map(|_| ())
    }

    fn hazards(&mut self, until: Instant) -> Result<Vec<Hazard>, Trouble> {
        let config = self.call("Switch.GetConfig", json!({"id": self.channel}), until)?;
        let mut hazards = parse_config(&config, &self.http.shown(), self.channel);
        match self.call("Schedule.List", json!({}), until) {
            Ok(schedules) => hazards.extend(parse_schedules(&schedules, self.channel)),
            // A device that has no schedules cannot switch by them.
            Err(Trouble::Lasting(_)) => {}
            Err(other) => return Err(other),
        }
        Ok(hazards)
    }
}

/// Errors come with HTTP 200 too.
fn parse_frame(text: &str, id: i64) -> Result<Value, Trouble> {
    let frame = json::object(text)?;
    if json::integer(&frame, "/id")? != id {
        return Err(Trouble::Passing("it answers another request".to_string()));
    }
    if let Some(error) = frame.get("error") {
        let code = json::integer(error, "/code")?;
        let said = error.get("message").and_then(Value::as_str).unwrap_or_default();
        let text = format!("it answers error {code} {said:?}");
        return Err(match code {
            401 | 403 => Trouble::Refused(text),
            // Deadline exceeded, resource exhausted (ComponentsAndServices, "Common Errors").
            -104 | -108 => Trouble::Passing(text),
            _ => Trouble::Lasting(text),
        });
    }
    match frame.get("result") {
        Some(result @ Value::Object(_)) => Ok(result.clone()),
        _ => Err(Trouble::Passing("its answer has no \"result\"".to_string())),
    }
}

/// `timer_started_at` and `timer_duration` are there only while a timer runs.
fn parse_status(status: &Value, channel: u8) -> Result<Reading, Trouble> {
    let id = json::integer(status, "/id")?;
    if id != i64::from(channel) {
        return Err(Trouble::Passing(format!("it tells the state of switch {id}")));
    }
    let power = Power::from_bool(json::boolean(status, "/output")?);
    let has_timer = ["timer_started_at", "timer_duration"]
        .iter()
        .any(|name| status.get(*name).is_some_and(|value| !value.is_null()));
    let pending = has_timer.then(|| "a timer runs that switches it on".to_string());
    Ok(Reading { power, pending, watts: json::number(status, "/apower") })
}

fn parse_config(config: &Value, address: &str, channel: u8) -> Vec<Hazard> {
    let mend = |name: &str, value: &str| {
        let config = format!(r#"{{"id":{channel},"config":{{"{name}":{value}}}}}"#);
        format!("curl -d '{config}' http://{address}/rpc/Switch.SetConfig")
    };
    let mut hazards = Vec::new();
    if json::is_true(config, "/auto_on") {
        let delay = json::number(config, "/auto_on_delay").unwrap_or_default();
        hazards.push(Hazard {
            setting: format!("auto_on true switches on again after {delay} s"),
            mend: mend("auto_on", "false"),
        });
    }
    if json::is_true(config, "/autorecover_voltage_errors") {
        hazards.push(Hazard {
            setting: "autorecover_voltage_errors true switches on after a voltage error"
                .to_string(),
            mend: mend("autorecover_voltage_errors", "false"),
        });
    }
    if let Some(state @ ("on" | "match_input")) =
        config.get("initial_state").and_then(Value::as_str)
    {
        hazards.push(Hazard {
            setting: format!("initial_state {state} may switch on when the plug itself restarts"),
            mend: mend("initial_state", r#""restore_last""#),
        });
    }
    hazards
}

/// `{"jobs":[{"id":1,"enable":true,"calls":[{"method":"switch.set","params":{"id":0,"on":true}}]}]}`.
fn parse_schedules(schedules: &Value, channel: u8) -> Option<Hazard> {
    let switches_on = |call: &Value| {
        let method = call.get("method").and_then(Value::as_str).unwrap_or_default();
        let is_ours = json::number(call, "/params/id") == Some(f64::from(channel));
        is_ours
            && (method.eq_ignore_ascii_case("switch.toggle")
                || (method.eq_ignore_ascii_case("switch.set") && json::is_true(call, "/params/on")))
    };
    let job = json::list(schedules, "/jobs").iter().find(|job| {
        json::is_true(job, "/enable") && json::list(job, "/calls").iter().any(switches_on)
    })?;
    let id = job.get("id").cloned().unwrap_or_default();
    let setting = format!("the schedule {id} switches on by the clock");
    Some(Hazard { setting, mend: format!("Schedule.Delete with the id {id}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_the_answer_to_its_request() {
        let ok = r#"{"id":3,"src":"s","result":{"was_on":true}}"#;
        assert_eq!(parse_frame(ok, 3), Ok(json!({"was_on": true})));
        assert!(parse_frame(ok, 4).is_err());
        let error = |code: i64| format!(r#"{{"id":3,"error":{{"code":{code},"message":"m"}}}}"#);
        assert!(matches!(parse_frame(&error(-105), 3), Err(Trouble::Lasting(_))));
        assert!(matches!(parse_frame(&error(404), 3), Err(Trouble::Lasting(_))));
        assert!(matches!(parse_frame(&error(401), 3), Err(Trouble::Refused(_))));
        assert!(matches!(parse_frame(&error(-108), 3), Err(Trouble::Passing(_))));
        for text in [r#"{"id":3}"#, r#"{"id":"3","result":{}}"#, r#"{"id":3,"result":[]}"#] {
            assert!(parse_frame(text, 3).is_err(), "{text}");
        }
    }

    #[test]
    fn a_status_is_that_of_the_switch_that_was_asked_for() {
        let status = json!({"id": 0, "source": "init", "output": false, "apower": 2.7});
        let reading = parse_status(&status, 0).unwrap();
        let want = Reading { power: Power::Off, pending: None, watts: Some(2.7) };
        assert_eq!(reading, want);
        assert!(parse_status(&status, 1).is_err());
        let timed = json!({"id": 0, "output": false, "timer_started_at": 1.0, "timer_duration": 5});
        assert!(parse_status(&timed, 0).unwrap().pending.is_some());
        for status in
            [json!({}), json!({"id": 0}), json!({"id": 0, "output": 0}), json!({"output": false})]
        {
            assert!(parse_status(&status, 0).is_err(), "{status}");
        }
    }

    #[test]
    fn settings_that_switch_on_are_hazards() {
        let config = json!({"auto_on": true, "auto_on_delay": 60.0});
        let hazards = parse_config(&config, "192.0.2.1", 0);
        assert_eq!(hazards[0].setting, "auto_on true switches on again after 60 s");
        let want = r#"curl -d '{"id":0,"config":{"auto_on":false}}' http://192.0.2.1/rpc/Switch.SetConfig"#;
        assert_eq!(hazards[0].mend, want);
        assert!(parse_config(&json!({"auto_on": false}), "x", 0).is_empty());
        for (state, want) in [("restore_last", 0), ("off", 0), ("on", 1), ("match_input", 1)] {
            let hazards = parse_config(&json!({"initial_state": state}), "x", 0);
            assert_eq!(hazards.len(), want, "{state}");
        }

        let job = |enable: bool, method: &str, id: u8, on: bool| {
            json!({"jobs": [{"id": 1, "enable": enable,
                "calls": [{"method": method, "params": {"id": id, "on": on}}]}]})
        };
        for (schedules, is_hazard) in [
            (job(true, "switch.set", 0, true), true),
            (job(true, "Switch.Toggle", 0, false), true),
            (job(false, "switch.set", 0, true), false),
            (job(true, "switch.set", 1, true), false),
            (job(true, "switch.set", 0, false), false),
            (json!({}), false),
        ] {
            assert_eq!(parse_schedules(&schedules, 0).is_some(), is_hazard, "{schedules}");
        }
    }
}
