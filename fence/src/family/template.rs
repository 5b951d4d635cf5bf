//! Whatever three URLs and two expressions can switch and read.

use crate::http::{Http, Method, Request};
use crate::plug::{Plug, Power, Reading, Trouble};
use regex_lite::Regex;
use std::time::Instant;

/// The URLs and expressions. A URL may hold secrets: messages do not show it.
#[derive(Clone)]
pub(crate) struct Template {
    /// Switches off.
    pub(crate) off_url: String,
    /// Switches on.
    pub(crate) on_url: String,
    /// Tells the state.
    pub(crate) status_url: String,
    /// Matches what a plug that is on tells, alone.
    pub(crate) on: Regex,
    /// Matches what a plug that is off tells, alone.
    pub(crate) off: Regex,
    /// Of the two power URLs.
    pub(crate) method: Method,
}

impl Template {
    /// The one that matters most first.
    pub(crate) fn urls(&self) -> [&String; 3] {
        [&self.off_url, &self.status_url, &self.on_url]
    }

    /// Whether one of the URLs asks for TLS.
    pub(crate) fn has_tls(&self) -> bool {
        self.urls().iter().any(|url| url.to_ascii_lowercase().starts_with("https:"))
    }
}

/// The only outlet of such a device.
pub(crate) struct Templated {
    http: Http,
    template: Template,
}

impl Templated {
    pub(crate) fn new(http: Http, template: Template) -> Templated {
        Templated { http, template }
    }
}

impl Plug for Templated {
    fn label(&self) -> String {
        format!("the outlet at {}", self.http.shown())
    }

    fn read(&mut self, until: Instant) -> Result<Reading, Trouble> {
        let path = self.template.status_url.clone();
        let request = Request { name: "status_url", ..Request::get(&path) };
        let text = self.http.ask(request, until)?;
        Ok(parse(&text, &self.template.on, &self.template.off)?.into())
    }

    fn switch(&mut self, to: Power, until: Instant) -> Result<(), Trouble> {
        let (url, name) = match to {
            Power::On => (self.template.on_url.clone(), "power_on_url"),
            Power::Off => (self.template.off_url.clone(), "power_off_url"),
        };
        let request = Request { method: self.template.method, name, ..Request::get(&url) };
        self.http.ask(request, until).map(|_| ())
    }
}

/// Exactly one of the two has to match.
fn parse(text: &str, on: &Regex, off: &Regex) -> Result<Power, Trouble> {
    match (on.is_match(text), off.is_match(text)) {
        (true, false) => Ok(Power::On),
        (false, true) => Ok(Power::Off),
        (true, true) => {
            let text = "both status_on_regex and status_off_regex match its answer";
            Err(Trouble::Passing(text.to_string()))
        }
        (false, false) => {
            let text = "neither status_on_regex nor status_off_regex matches its answer";
            Err(Trouble::Passing(text.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_expression_matches() {
        let (on, off) =
            (Regex::new("\"relay\": *true").unwrap(), Regex::new("\"relay\": *false").unwrap());
        assert_eq!(parse(r#"{"relay": true}"#, &on, &off), Ok(Power::On));
        assert_eq!(parse(r#"{"relay":false}"#, &on, &off), Ok(Power::Off));
        for text in ["", "<html>", r#"{"relay": null}"#, r#"[{"relay":true},{"relay":false}]"#] {
            assert!(parse(text, &on, &off).is_err(), "{text}");
        }
    }
}
