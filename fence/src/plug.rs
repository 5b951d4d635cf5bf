//! What the core needs of an outlet. It is a trait, for there are many families of plugs, and one set of rules for all of them.

use std::fmt;
use std::time::Instant;

/// The state of a relay. That it is not known is a [`Trouble`], never a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Power {
    /// The node has power.
    On,
    /// The node has none.
    Off,
}

impl Power {
    /// `on` from a device's boolean.
    pub(crate) fn from_bool(is_on: bool) -> Power {
        if is_on { Power::On } else { Power::Off }
    }
}

impl fmt::Display for Power {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str(match self {
            Power::On => "on",
            Power::Off => "off",
        })
    }
}

/// What an outlet says of itself.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reading {
    /// The relay.
    pub(crate) power: Power,
    /// What will switch a relay on that is off, as the rest of a sentence.
    pub(crate) pending: Option<String>,
    /// Watts that flow, where the outlet measures them.
    pub(crate) watts: Option<f64>,
}

impl From<Power> for Reading {
    fn from(power: Power) -> Reading {
        Reading { power, pending: None, watts: None }
    }
}

/// Why a plug could not be asked or told something, as the rest of a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It may pass: the same is tried again.
    Passing(String),
    /// It will not pass by itself.
    Lasting(String),
    /// The credentials are refused. Nothing more is sent: many devices lock out who tries again.
    Refused(String),
}

impl Trouble {
    /// The sentence.
    pub(crate) fn text(&self) -> &str {
        match self {
            Trouble::Passing(text) | Trouble::Lasting(text) | Trouble::Refused(text) => text,
        }
    }
}

/// A setting of the plug that undoes a fence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hazard {
    /// Its name and value, and what it does.
    pub(crate) setting: String,
    /// What mends it.
    pub(crate) mend: String,
}

/// One outlet. No call goes on beyond `until`.
pub(crate) trait Plug {
    /// How messages name it.
    fn label(&self) -> String;

    /// Reads the state.
    fn read(&mut self, until: Instant) -> Result<Reading, Trouble>;

    /// Reads the state and all evidence against an "off": watts, timers that run. What the device
    /// does not have is no trouble.
    fn read_closely(&mut self, until: Instant) -> Result<Reading, Trouble> {
        self.read(until)
    }

    /// Gives the command. That it was taken says nothing about the relay.
    fn switch(&mut self, to: Power, until: Instant) -> Result<(), Trouble>;

    /// Reads the settings that undo a fence.
    fn hazards(&mut self, _until: Instant) -> Result<Vec<Hazard>, Trouble> {
        Ok(Vec::new())
    }
}
