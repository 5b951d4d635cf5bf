//! myStrom Switch: <https://api.mystrom.ch/>.

use crate::http::{Http, Request};
use crate::json;
use crate::plug::{Plug, Power, Reading, Trouble};
use serde_json::Value;
use std::time::Instant;

/// The only outlet of such a device.
pub(crate) struct Mystrom {
    http: Http,
}

impl Mystrom {
    pub(crate) fn new(http: Http) -> Mystrom {
        Mystrom { http }
    }
}

impl Plug for Mystrom {
    fn label(&self) -> String {
        format!("the outlet at {}", self.http.shown())
    }

    fn read(&mut self, until: Instant) -> Result<Reading, Trouble> {
        parse(&json::object(&self.http.ask(Request::get("/report"), until)?)?)
    }

    fn switch(&mut self, to: Power, until: Instant) -> Result<(), Trouble> {
        let path = format!("/relay?state={}", u8::from(to == Power::On));
        self.http.ask(Request::get(&path), until).map(|_| ())
    }
}

/// `{"power":0,"relay":false,…}`.
fn parse(report: &Value) -> Result<Reading, Trouble> {
    let power = Power::from_bool(json::boolean(report, "/relay")?);
    Ok(Reading { power, pending: None, watts: json::number(report, "/power") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_report_is_read_strictly() {
        let report = json!({"power": 7.5, "Ws": 7.5, "relay": false, "temperature": 20});
        let want = Reading { power: Power::Off, pending: None, watts: Some(7.5) };
        assert_eq!(parse(&report), Ok(want));
        for report in
            [json!({}), json!({"relay": 0}), json!({"relay": "false"}), json!({"relay": null})]
        {
            assert!(parse(&report).is_err(), "{report}");
        }
    }
}
