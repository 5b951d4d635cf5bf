//! NETIO: the JSON API, <https://www.netio-products.com/en/developers>.

use super::plain_number;
use crate::http::{Http, Request};
use crate::json;
use crate::plug::{Plug, Power, Reading, Trouble};
use serde_json::{Value, json};
use std::time::Instant;

const PATH: &str = "/netio.json";

/// One output.
pub(crate) struct Netio {
    http: Http,
    output: u8,
}

/// An output's number: they count from 1.
pub(crate) fn output(outlet: &str) -> Result<u8, String> {
    let wrong = || format!("the plug {outlet:?} is not an output's number: NETIO counts from 1");
    plain_number(outlet).filter(|output| *output > 0).ok_or_else(wrong)
}

/// Proves address and credentials.
pub(crate) fn reach(http: &mut Http, until: Instant) -> Result<(), Trouble> {
    let reply = json::object(&http.ask(Request::get(PATH), until)?)?;
    let has_outputs = !json::list(&reply, "/Outputs").is_empty();
    has_outputs.then_some(()).ok_or_else(|| Trouble::Passing("it has no outputs".to_string()))
}

impl Netio {
    pub(crate) fn new(http: Http, output: u8) -> Netio {
        Netio { http, output }
    }
}

impl Plug for Netio {
    fn label(&self) -> String {
        format!("output {} of {}", self.output, self.http.shown())
    }

    fn read(&mut self, until: Instant) -> Result<Reading, Trouble> {
        parse(&json::object(&self.http.ask(Request::get(PATH), until)?)?, self.output)
    }

    /// While a "short on" or "short off" runs, the device takes commands and ignores them.
    fn switch(&mut self, to: Power, until: Instant) -> Result<(), Trouble> {
        let action = u8::from(to == Power::On);
        let body = json!({"Outputs": [{"ID": self.output, "Action": action}]}).to_string();
        json::object(&self.http.ask(Request::post(PATH, &body), until)?).map(|_| ())
    }
}

/// `{"Outputs":[{"ID":1,"State":0,"Load":0,…}]}`; `Load` is in watts.
fn parse(reply: &Value, output: u8) -> Result<Reading, Trouble> {
    let outputs = json::list(reply, "/Outputs");
    let is_it = |each: &&Value| each.get("ID").and_then(Value::as_i64) == Some(i64::from(output));
    let found: Vec<&Value> = outputs.iter().filter(is_it).collect();
    let found = match found.as_slice() {
        [one] => one,
        [] if outputs.is_empty() => {
            return Err(Trouble::Passing("its answer has no \"Outputs\"".to_string()));
        }
        [] => return Err(Trouble::Lasting(format!("it has no output {output}"))),
        _ => return Err(Trouble::Passing(format!("it tells output {output} twice"))),
    };
    let power = json::relay(found, "/State")?;
    Ok(Reading { power, pending: None, watts: json::number(found, "/Load") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_is_found_by_its_id_and_read_strictly() {
        let of =
            |id: Value, state: Value| json!({"Outputs": [{"ID": id, "State": state, "Load": 7}]});
        let want = Reading { power: Power::Off, pending: None, watts: Some(7.0) };
        assert_eq!(parse(&of(json!(2), json!(0)), 2), Ok(want));
        assert!(matches!(parse(&of(json!(1), json!(0)), 2), Err(Trouble::Lasting(_))));
        for (id, state) in [
            (json!("2"), json!(0)),
            (json!(2), json!(2)),
            (json!(2), json!("0")),
            (json!(2), json!(false)),
            (json!(2), json!(null)),
        ] {
            assert!(parse(&of(id.clone(), state.clone()), 2).is_err(), "{id} {state}");
        }
        let twice = json!({"Outputs": [{"ID": 2, "State": 0}, {"ID": 2, "State": 1}]});
        assert!(parse(&twice, 2).is_err());
        assert!(parse(&json!({}), 2).is_err());
        for outlet in ["0", "a", "01", "-1"] {
            assert!(output(outlet).is_err(), "{outlet}");
        }
    }
}
