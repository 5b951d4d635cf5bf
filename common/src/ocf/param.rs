//! Parameters: declared once, checked once.

use super::{Agent, Fault, Rc};
use std::collections::BTreeMap;

/// One parameter of a resource agent.
pub struct Param {
    /// Name as in `pcs resource create … NAME=VALUE`.
    pub name: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// The value when it is not given.
    pub default: Option<&'static str>,
    /// Whether a start without it is an error.
    pub required: bool,
    /// Parameters of one group must, taken together, differ between resources.
    pub unique_group: Option<&'static str>,
    /// Whether a change takes effect by `reload-agent`, without a restart of the resource.
    pub reloadable: bool,
    /// A few words.
    pub short: &'static str,
    /// What it means, in sentences.
    pub long: &'static str,
}

/// The form of a parameter's value.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Text, with the check that says what is wrong with it.
    Text(fn(&str) -> Result<(), String>),
    /// yes, true, on, 1 or no, false, off, 0.
    Boolean,
    /// A whole number in these bounds.
    Integer(u64, u64),
}

impl Param {
    fn check(&self, value: &str) -> Result<(), String> {
        match self.kind {
            Kind::Text(check) => check(value),
            Kind::Boolean => boolean(value).map(|_| ()),
            Kind::Integer(low, high) => match value.parse::<u64>() {
                Ok(number) if (low..=high).contains(&number) => Ok(()),
                _ => Err(format!("is not a whole number from {low} to {high}")),
            },
        }
    }
}

/// Parameter values that passed their checks.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Values(BTreeMap<&'static str, String>);

impl Values {
    /// For start and validate-all: every value must be right, every required one must be there.
    ///
    /// # Errors
    /// `Configured` (6) for a missing or malformed parameter: it is the same on every node.
    pub(super) fn strict(
        agent: &Agent,
        environment: &BTreeMap<String, String>,
    ) -> Result<Values, Fault> {
        let mut values = BTreeMap::new();
        for param in agent.params {
            match given(param, environment) {
                Some(value) => {
                    param.check(value).map_err(|wrong| malformed(param, value, &wrong))?;
                    values.insert(param.name, value.to_string());
                }
                None if param.required => return Err(missing(param)),
                None => insert_default(&mut values, param),
            }
        }
        Ok(Values(values))
    }

    /// For stop and monitor, which must work with a broken configuration: in the place of a value
    /// that is missing or malformed stands the one that the last start recorded on this node.
    pub(super) fn lenient(
        agent: &Agent,
        environment: &BTreeMap<String, String>,
        recorded: &BTreeMap<String, String>,
    ) -> Values {
        let mut values = BTreeMap::new();
        for param in agent.params {
            let usable = |value: &&str| param.check(value).is_ok();
            let value = given(param, environment)
                .filter(usable)
                .or_else(|| recorded.get(param.name).map(String::as_str).filter(usable));
            match value {
                Some(value) => {
                    values.insert(param.name, value.to_string());
                }
                None => insert_default(&mut values, param),
            }
        }
        Values(values)
    }

    /// The value of a parameter, or its default.
    pub fn text(&self, param: &Param) -> Option<&str> {
        self.0.get(param.name).map(String::as_str)
    }

    /// The value of a parameter that the action cannot do without.
    ///
    /// # Errors
    /// `Configured` (6) where it is not given.
    pub fn required(&self, param: &Param) -> Result<&str, Fault> {
        self.text(param).ok_or_else(|| missing(param))
    }

    /// The value of a boolean parameter; false where it is not given.
    pub fn is_set(&self, param: &Param) -> bool {
        self.text(param).is_some_and(|value| boolean(value) == Ok(true))
    }

    /// The value of an integer parameter that has a default.
    pub fn number(&self, param: &Param) -> Option<u64> {
        self.text(param).and_then(|value| value.parse().ok())
    }

    /// All values, for the record.
    pub(super) fn all(&self) -> &BTreeMap<&'static str, String> {
        &self.0
    }
}

fn given<'a>(param: &Param, environment: &'a BTreeMap<String, String>) -> Option<&'a str> {
    let value = environment.get(&format!("OCF_RESKEY_{}", param.name))?;
    (!value.is_empty()).then_some(value.as_str())
}

fn insert_default(values: &mut BTreeMap<&'static str, String>, param: &Param) {
    if let Some(default) = param.default {
        values.insert(param.name, default.to_string());
    }
}

fn missing(param: &Param) -> Fault {
    Fault::new(Rc::Configured, format!("the parameter {:?} is required", param.name))
}

fn malformed(param: &Param, value: &str, wrong: &str) -> Fault {
    Fault::new(Rc::Configured, format!("the parameter {:?}: {value:?} {wrong}", param.name))
}

/// Booleans as Pacemaker reads them (`crm_str_to_boolean`).
fn boolean(value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "on" => Ok(true),
        "0" | "no" | "n" | "false" | "off" => Ok(false),
        _ => Err("is neither true nor false".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn not_bad(value: &str) -> Result<(), String> {
        if value == "bad" { Err("is bad".to_string()) } else { Ok(()) }
    }

    const fn param(name: &'static str, kind: Kind, required: bool) -> Param {
        Param {
            name,
            kind,
            default: None,
            required,
            unique_group: None,
            reloadable: false,
            short: "",
            long: "",
        }
    }
    const POOL: Param = param("pool", Kind::Text(not_bad), true);
    const LIMIT: Param = param("limit", Kind::Integer(1, 9), false);
    const MOUNT: Param = Param { default: Some("true"), ..param("mount", Kind::Boolean, false) };
    const AGENT: Agent = Agent {
        name: "test",
        short: "",
        long: "",
        params: &[&POOL, &LIMIT, &MOUNT],
        operations: &[],
        run: |_, _, _| Ok(Rc::Success),
        explain: None,
    };

    fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(name, value)| (format!("OCF_RESKEY_{name}"), value.to_string()))
            .collect()
    }

    #[test]
    fn strict_names_the_parameter_and_the_value() {
        for (pairs, reason) in [
            (&[][..], "the parameter \"pool\" is required"),
            (&[("pool", "")][..], "the parameter \"pool\" is required"),
            (&[("pool", "bad")][..], "the parameter \"pool\": \"bad\" is bad"),
            (
                &[("pool", "p"), ("limit", "10")][..],
                "the parameter \"limit\": \"10\" is not a whole number from 1 to 9",
            ),
            (
                &[("pool", "p"), ("mount", "maybe")][..],
                "the parameter \"mount\": \"maybe\" is neither true nor false",
            ),
        ] {
            let fault = Values::strict(&AGENT, &environment(pairs)).unwrap_err();
            assert_eq!(fault, Fault::new(Rc::Configured, reason));
        }
    }

    #[test]
    fn strict_takes_values_and_defaults() {
        let values =
            Values::strict(&AGENT, &environment(&[("pool", "p"), ("limit", "9")])).unwrap();
        assert_eq!(values.text(&POOL), Some("p"));
        assert_eq!(values.number(&LIMIT), Some(9));
        assert!(values.is_set(&MOUNT));
    }

    #[test]
    fn lenient_falls_back_to_the_record() {
        let recorded = BTreeMap::from([("pool".to_string(), "tank".to_string())]);
        for (pairs, want) in [
            (&[][..], Some("tank")),
            (&[("pool", "bad")][..], Some("tank")),
            (&[("pool", "p")][..], Some("p")),
        ] {
            let values = Values::lenient(&AGENT, &environment(pairs), &recorded);
            assert_eq!(values.text(&POOL), want);
        }
        let values = Values::lenient(&AGENT, &environment(&[]), &BTreeMap::new());
        assert_eq!(values.text(&POOL), None);
        assert_eq!(values.required(&POOL).unwrap_err().rc, Rc::Configured);
    }
}
