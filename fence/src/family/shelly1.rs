//! Shelly, first generation: <https://shelly-api-docs.shelly.cloud/gen1/>.

use crate::http::{Http, Request};
use crate::json;
use crate::plug::{Hazard, Plug, Power, Reading, Trouble};
use serde_json::Value;
use std::time::Instant;

/// One relay.
pub(crate) struct Shelly1 {
    http: Http,
    channel: u8,
}

/// Proves address and credentials.
pub(crate) fn reach(http: &mut Http, until: Instant) -> Result<(), Trouble> {
    let status = json::object(&http.ask(Request::get("/status"), until)?)?;
    let has_relays = !json::list(&status, "/relays").is_empty();
    has_relays.then_some(()).ok_or_else(|| Trouble::Passing("it has no relays".to_string()))
}

impl Shelly1 {
    pub(crate) fn new(http: Http, channel: u8) -> Shelly1 {
        Shelly1 { http, channel }
    }
}

impl Plug for Shelly1 {
    fn label(&self) -> String {
        format!("relay {} of {}", self.channel, self.http.shown())
    }

    fn read(&mut self, until: Instant) -> Result<Reading, Trouble> {
        let path = format!("/relay/{}", self.channel);
        parse_relay(&json::object(&self.http.ask(Request::get(&path), until)?)?)
    }

    fn read_closely(&mut self, until: Instant) -> Result<Reading, Trouble> {
        let status = json::object(&self.http.ask(Request::get("/status"), until)?)?;
        parse_status(&status, self.channel)
    }

    fn switch(&mut self, to: Power, until: Instant) -> Result<(), Trouble> {
        let path = format!("/relay/{}?turn={to}", self.channel);
        let reply = self.http.ask(Request::get(&path), until)?;
        json::boolean(&json::object(&reply)?, "/ison").map(|_| ())
    }

    fn hazards(&mut self, until: Instant) -> Result<Vec<Hazard>, Trouble> {
        let path = format!("/settings/relay/{}", self.channel);
        let settings = json::object(&self.http.ask(Request::get(&path), until)?)?;
        Ok(parse_settings(&settings, &format!("http://{}{path}", self.http.shown())))
    }
}

/// `{"ison":false,"has_timer":false,"timer_remaining":0,…}`.
fn parse_relay(relay: &Value) -> Result<Reading, Trouble> {
    let power = Power::from_bool(json::boolean(relay, "/ison")?);
    let pending = json::is_true(relay, "/has_timer").then(|| {
        let seconds = json::number(relay, "/timer_remaining").unwrap_or_default();
        format!("a timer switches it on in {seconds} s")
    });
    Ok(Reading { power, pending, watts: None })
}

/// Some devices have one meter for two relays: it counts only where each has its own.
fn parse_status(status: &Value, channel: u8) -> Result<Reading, Trouble> {
    let (relays, meters) = (json::list(status, "/relays"), json::list(status, "/meters"));
    let at = usize::from(channel);
    let no_relay = || Trouble::Passing(format!("its status has no relay {channel}"));
    let mut reading = parse_relay(relays.get(at).ok_or_else(no_relay)?)?;
    if let Some(meter) = meters.get(at).filter(|_| meters.len() == relays.len()) {
        reading.watts = json::number(meter, "/power").filter(|_| json::is_true(meter, "/is_valid"));
    }
    Ok(reading)
}

fn parse_settings(settings: &Value, url: &str) -> Vec<Hazard> {
    let mut hazards = Vec::new();
    if let Some(seconds) = json::number(settings, "/auto_on").filter(|seconds| *seconds > 0.0) {
        hazards.push(Hazard {
            setting: format!("auto_on {seconds} switches on again after so many seconds"),
            mend: format!("curl {url}?auto_on=0"),
        });
    }
    if json::is_true(settings, "/schedule") {
        hazards.push(Hazard {
            setting: "schedule true may switch on by the clock".to_string(),
            mend: format!("curl {url}?schedule=false"),
        });
    }
    if let Some(state @ ("on" | "switch")) = settings.get("default_state").and_then(Value::as_str) {
        hazards.push(Hazard {
            setting: format!("default_state {state} may switch on when the plug itself restarts"),
            mend: format!("curl {url}?default_state=last"),
        });
    }
    hazards
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_relay_is_read_strictly() {
        let read = |relay| parse_relay(&relay).map(|reading| (reading.power, reading.pending));
        assert_eq!(read(json!({"ison": false, "has_timer": false})), Ok((Power::Off, None)));
        assert_eq!(read(json!({"ison": true})), Ok((Power::On, None)));
        let timed = read(json!({"ison": false, "has_timer": true, "timer_remaining": 7})).unwrap();
        assert_eq!(timed.1.unwrap(), "a timer switches it on in 7 s");
        for relay in
            [json!({}), json!({"ison": 0}), json!({"ison": "false"}), json!({"ison": null})]
        {
            assert!(parse_relay(&relay).is_err(), "{relay}");
        }
    }

    #[test]
    fn watts_count_where_each_relay_has_a_valid_meter() {
        let relay = json!({"ison": false});
        let meter = |is_valid: bool| json!({"power": 85.2, "is_valid": is_valid});
        for (relays, meters, want) in [
            (vec![&relay], vec![meter(true)], Some(85.2)),
            (vec![&relay], vec![meter(false)], None),
            (vec![&relay, &relay], vec![meter(true)], None),
            (vec![&relay], vec![], None),
        ] {
            let status = json!({"relays": relays, "meters": meters});
            assert_eq!(parse_status(&status, 0).unwrap().watts, want, "{status}");
        }
        assert!(parse_status(&json!({"relays": [relay]}), 1).is_err());
        assert!(parse_status(&json!({"relays": {}}), 0).is_err());
    }

    #[test]
    fn timers_and_schedules_are_hazards() {
        let count = |settings| parse_settings(&settings, "http://x/settings/relay/0").len();
        assert_eq!(count(json!({"auto_on": 0.0, "auto_off": 0.0, "schedule": false})), 0);
        assert_eq!(count(json!({"auto_on": 5.0, "schedule": true})), 2);
        for (state, want) in [("last", 0), ("off", 0), ("on", 1), ("switch", 1)] {
            assert_eq!(count(json!({"default_state": state})), want, "{state}");
        }
        let mend = &parse_settings(&json!({"auto_on": 5}), "http://x/settings/relay/0")[0].mend;
        assert_eq!(mend, "curl http://x/settings/relay/0?auto_on=0");
    }
}
