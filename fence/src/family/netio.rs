//! NETIO: the JSON API, <https://www.netio-products.com/en/developers>.

use super::plain_number;
use crate::http::{Http, Request};
use crate::json;
use crate::plug::{Hazard, Plug, Power, Reading, Trouble};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const PATH: &str = "/netio.json";

/// An off that has to wait for longer ends too late, milliseconds.
const LONG: u64 = 15_000;

/// One output.
pub(crate) struct Netio {
    http: Http,
    output: u8,
    /// When it took the last command.
    commanded: Option<Instant>,
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
    fn ask(&mut self, until: Instant) -> Result<Value, Trouble> {
        json::object(&self.http.ask(Request::get(PATH), until)?)
    }

    pub(crate) fn new(http: Http, output: u8) -> Netio {
        Netio { http, output, commanded: None }
    }
}

impl Plug for Netio {
    fn label(&self) -> String {
        format!("output {} of {}", self.output, self.http.shown())
    }

    fn read(&mut self, until: Instant) -> Result<Reading, Trouble> {
        parse(&self.ask(until)?, self.output).map(|(reading, _)| reading)
    }

    /// A "short off" that somebody else has begun looks like an off, and ends after the output's delay, whatever was sent.
    fn read_closely(&mut self, until: Instant) -> Result<Reading, Trouble> {
        let (reading, delay) = parse(&self.ask(until)?, self.output)?;
        let since = self.commanded.map(|at| at.elapsed());
        match since {
            Some(since) if reading.power == Power::Off && since < Duration::from_millis(delay) => {
                Err(Trouble::Passing(format!("a short off of {delay} ms may still run")))
            }
            _ => Ok(reading),
        }
    }

    /// While a "short on" or "short off" runs, the device takes commands and ignores them.
    fn switch(&mut self, to: Power, until: Instant) -> Result<(), Trouble> {
        let action = u8::from(to == Power::On);
        let body = json!({"Outputs": [{"ID": self.output, "Action": action}]}).to_string();
        json::object(&self.http.ask(Request::post(PATH, &body), until)?)?;
        self.commanded = Some(Instant::now());
        Ok(())
    }

    fn hazards(&mut self, until: Instant) -> Result<Vec<Hazard>, Trouble> {
        let (_, delay) = parse(&self.ask(until)?, self.output)?;
        let hazard = || Hazard {
            setting: format!(
                "Delay {delay} ms, for which an off has to be waited for, is too long"
            ),
            mend: "Output Delay on its web page, 5 s for instance".to_string(),
        };
        Ok((delay > LONG).then(hazard).into_iter().collect())
    }
}

/// `{"Outputs":[{"ID":1,"State":0,"Load":0,"Delay":5000,…}]}`; `Load` is in watts, `Delay` in milliseconds.
fn parse(reply: &Value, output: u8) -> Result<(Reading, u64), Trouble> {
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
    let delay = found.get("Delay").and_then(Value::as_u64).unwrap_or_default();
    Ok((Reading { power, pending: None, watts: json::number(found, "/Load") }, delay))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_is_found_by_its_id_and_read_strictly() {
        let of = |id: Value, state: Value| json!({"Outputs": [{"ID": id, "State": state, "Load": 7, "Delay": 5000}]});
        let want = Reading { power: Power::Off, pending: None, watts: Some(7.0) };
        assert_eq!(parse(&of(json!(2), json!(0)), 2), Ok((want, 5000)));
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
