//! The actions of the fence contract.

use crate::family::{Reached, recognize};
use crate::fencing::{self, Clock, SystemClock, cannot, persist};
use crate::metadata::{Texts, metadata};
use crate::options::Options;
use crate::plug::{Hazard, Plug, Power};
use crate::secret;
use crate::settings::{Settings, Unsafe};
use std::time::{Duration, Instant};

/// What the agent can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Power, proven.
    On,
    /// No power, proven.
    Off,
    /// No power, proven; then power.
    Reboot,
    /// Whether there is power.
    Status,
    /// Whether the device can be asked, and will do.
    Monitor,
    /// The outlets that are configured.
    List,
    /// The same, with their states.
    ListStatus,
    /// Whether the options are right; no look at anything.
    ValidateAll,
    /// The metadata.
    Metadata,
    /// The metadata with all that can be said.
    Manpage,
}

impl Action {
    /// The action of this name, in letters of any case.
    pub(crate) fn named(word: &str) -> Option<Action> {
        Some(match word.to_ascii_lowercase().as_str() {
            "on" | "enable" => Action::On,
            "off" | "disable" => Action::Off,
            "reboot" => Action::Reboot,
            "status" => Action::Status,
            "monitor" => Action::Monitor,
            "list" => Action::List,
            "list-status" => Action::ListStatus,
            "validate-all" => Action::ValidateAll,
            "metadata" | "meta-data" => Action::Metadata,
            "manpage" => Action::Manpage,
            _ => return None,
        })
    }
}

/// How an action ended.
pub(crate) struct Done {
    /// Exit code.
    pub(crate) code: u8,
    /// For standard output.
    pub(crate) text: String,
    /// Whether the text is what was asked for.
    pub(crate) must_be_heard: bool,
}

impl Done {
    fn with(text: &str) -> Done {
        Done { code: 0, text: format!("{text}\n"), must_be_heard: false }
    }

    /// A text that was asked for.
    fn heard(text: String) -> Done {
        Done { code: 0, text, must_be_heard: true }
    }

    /// There is nothing to say.
    fn silent() -> Done {
        Done { code: 0, text: String::new(), must_be_heard: false }
    }
}

/// `status` of a node without power.
const OFF_CODE: u8 = 2;

/// Does it.
///
/// # Errors
/// Why it cannot be done, in one sentence.
pub(crate) fn run(action: Action, options: &Options) -> Result<Done, String> {
    let settings = || Settings::new(options);
    match action {
        // They describe the options, so they need none.
        Action::Metadata => Ok(Done::heard(metadata(Texts::Short))),
        Action::Manpage => Ok(Done::heard(metadata(Texts::Long))),
        Action::ValidateAll => validate(&settings()?, options),
        Action::Monitor => monitor(&settings()?, options),
        Action::List => list(&settings()?, None),
        Action::ListStatus => list(&settings()?, Some(options)),
        Action::On | Action::Off | Action::Reboot | Action::Status => {
            switch(action, &settings()?, options)
        }
    }
}

/// Pacemaker gives a node's name for the plug when it validates; so nothing is said of it.
fn validate(settings: &Settings, options: &Options) -> Result<Done, String> {
    secret::check_login(settings.family, options)?;
    if !settings.has_no_outlet() {
        settings.checked_outlets()?;
    }
    Ok(Done::silent())
}

fn switch(action: Action, settings: &Settings, options: &Options) -> Result<Done, String> {
    let (mut plugs, rules, clock) = (open(settings, options)?, &settings.rules, &SystemClock);
    if matches!(action, Action::Off | Action::Reboot) {
        clock.sleep(settings.delay);
    }
    Ok(match action {
        Action::On => {
            fencing::on(&mut plugs, rules, clock)?;
            Done::with("Success: Powered ON")
        }
        Action::Off => {
            fencing::off(&mut plugs, rules, clock)?;
            Done::with("Success: Powered OFF")
        }
        Action::Reboot => {
            if let Some(reason) = fencing::reboot(&mut plugs, rules, clock)? {
                tracing::error!("the node was off, and stays without power: {reason}");
            }
            Done::with("Success: Rebooted")
        }
        _ => match fencing::status(&mut plugs, rules, clock)? {
            Power::On => Done::with("Status: ON"),
            Power::Off => Done { code: OFF_CODE, ..Done::with("Status: OFF") },
        },
    })
}

/// All outlets of the node. The password is fetched once.
fn open(settings: &Settings, options: &Options) -> Result<Vec<Box<dyn Plug>>, String> {
    let outlets = settings.checked_outlets()?;
    let password = secret::password(options)?;
    let open = |outlet: &Option<&str>| settings.family.open(settings, password.as_ref(), *outlet);
    outlets.iter().map(open).collect()
}

/// Proves address, credentials and outlets, and looks for settings that undo a fence. That a
/// command would be taken cannot be proven without giving one.
fn monitor(settings: &Settings, options: &Options) -> Result<Done, String> {
    let until = Instant::now() + settings.rules.power_timeout;
    if settings.has_no_outlet() && reach(settings, options, until)? == Reached::Device {
        return Ok(Done::silent());
    }
    for mut plug in open(settings, options)? {
        let read = persist(&settings.rules, &SystemClock, until, || plug.read_closely(until));
        if let Err(trouble) = read {
            return Err(with_family(settings, cannot("read", plug.as_ref(), &trouble)));
        }
        warn_of_hazards(settings, plug.as_mut(), until)?;
    }
    Ok(Done::silent())
}

/// Says also what is at the address, if it is something else.
fn with_family(settings: &Settings, reason: String) -> String {
    // The time of the fence is over; the look has its own.
    let until = Instant::now() + settings.limits.request.min(Duration::from_secs(5));
    let (found, name) = (recognize(settings, until), settings.family.name());
    if found.is_empty() || found.contains(&name) {
        return reason;
    }
    let (host, found) = (settings.place.shown(), found.join(" or "));
    format!("{reason}; the device at {host} looks like type={found}, not type={name}")
}

fn warn_of_hazards(settings: &Settings, plug: &mut dyn Plug, until: Instant) -> Result<(), String> {
    if settings.unsafe_settings == Unsafe::Ignore {
        return Ok(());
    }
    let hazards = persist(&settings.rules, &SystemClock, until, || plug.hazards(until));
    let hazards = hazards.map_err(|trouble| cannot("read the settings of", plug, &trouble))?;
    let told: Vec<String> = hazards.iter().map(|hazard| told(&plug.label(), hazard)).collect();
    if settings.unsafe_settings == Unsafe::Fail && !told.is_empty() {
        return Err(told.join("; "));
    }
    for text in told {
        tracing::warn!("{text}");
    }
    Ok(())
}

fn told(label: &str, hazard: &Hazard) -> String {
    format!("unsafe setting of {label}: {}; to mend it: {}", hazard.setting, hazard.mend)
}

/// Which outlet a node has, only Pacemaker's host map knows, which a monitor is not told. The
/// device has to be of the right family all the same.
fn reach(settings: &Settings, options: &Options, until: Instant) -> Result<Reached, String> {
    let password = secret::password(options)?;
    let ask = || settings.family.reach(settings, password.as_ref(), until);
    let answer = persist(&settings.rules, &SystemClock, until, ask);
    answer.map_err(|trouble| {
        let reason = format!("cannot reach {}: {}", settings.place.shown(), trouble.text());
        with_family(settings, reason)
    })
}

/// The outlets that are configured: names of nodes a plug does not know.
fn list(settings: &Settings, states: Option<&Options>) -> Result<Done, String> {
    let separator = &settings.separator;
    let mut text = String::new();
    let mut plugs = match states {
        Some(options) => open(settings, options)?,
        None => Vec::new(),
    };
    for (at, outlet) in settings.checked_outlets()?.iter().enumerate() {
        text.push_str(&format!("{}{separator}", outlet.unwrap_or("1")));
        if let Some(plug) = plugs.get_mut(at..=at) {
            let state = match fencing::status(plug, &settings.rules, &SystemClock) {
                Ok(Power::On) => "ON",
                Ok(Power::Off) => "OFF",
                Err(reason) => {
                    tracing::warn!("{reason}");
                    "UNKNOWN"
                }
            };
            text.push_str(&format!("{separator}{state}"));
        }
        text.push('\n');
    }
    Ok(Done::heard(text))
}
