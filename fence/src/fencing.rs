//! The rules by which an outlet counts as off or on, one set for all families.
//!
//! An off is: the command was taken, the state was read to be off, and after the hold time all
//! outlets, in one pass, were read off again, without load and with nothing pending. Whatever else
//! happens is a failure: a node that is taken for dead and lives costs the data.

use crate::plug::{Plug, Power, Reading, Trouble};
use std::time::{Duration, Instant};

/// Times and limits of a change.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rules {
    /// Until when all outlets have to be read in the new state.
    pub(crate) power_timeout: Duration,
    /// Pause after a command.
    pub(crate) power_wait: Duration,
    /// Pause between two looks.
    pub(crate) poll: Duration,
    /// How long an outlet has to stay off.
    pub(crate) hold: Duration,
    /// How often an on is sent again.
    pub(crate) retry_on: u32,
    /// Above so many watts nothing is off.
    pub(crate) off_watts: f64,
}

/// The time. Tests have their own.
pub(crate) trait Clock {
    /// Now.
    fn now(&self) -> Instant;
    /// Waits.
    fn sleep(&self, time: Duration);
}

/// The real time.
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// The outlets of one node.
pub(crate) type Plugs = [Box<dyn Plug>];

/// Takes all power from a node, and proves it.
///
/// # Errors
/// Why the node cannot be taken for off.
pub(crate) fn off(plugs: &mut Plugs, rules: &Rules, clock: &dyn Clock) -> Result<(), String> {
    let until = clock.now() + rules.power_wait + rules.power_timeout;
    settle(plugs, Power::Off, rules, clock, until)?;
    clock.sleep(rules.hold);
    hold_off(plugs, rules, clock, until + rules.hold)
}

/// Gives a node power, by all its outlets.
///
/// # Errors
/// Why that cannot be told.
pub(crate) fn on(plugs: &mut Plugs, rules: &Rules, clock: &dyn Clock) -> Result<(), String> {
    let until = clock.now() + rules.power_wait + rules.power_timeout;
    settle(plugs, Power::On, rules, clock, until)
}

/// Takes all power from a node, then gives it back. The first half is what counts: a node that is
/// off is fenced, so an on that fails is no failure but a text.
///
/// # Errors
/// Why the node cannot be taken for off; then no on was sent.
pub(crate) fn reboot(
    plugs: &mut Plugs,
    rules: &Rules,
    clock: &dyn Clock,
) -> Result<Option<String>, String> {
    off(plugs, rules, clock)?;
    Ok(on(plugs, rules, clock).err())
}

/// Whether a node has power: on if one of its outlets is.
///
/// # Errors
/// Why that cannot be told, for at least one outlet.
pub(crate) fn status(plugs: &mut Plugs, rules: &Rules, clock: &dyn Clock) -> Result<Power, String> {
    let until = clock.now() + rules.power_timeout;
    let mut power = Power::Off;
    for plug in plugs {
        let reading = persist(rules, clock, until, || plug.read_closely(until))
            .map_err(|trouble| cannot("read", plug.as_ref(), &trouble))?;
        match (reading.power, load(&reading, rules)) {
            (Power::On, _) => power = Power::On,
            (Power::Off, None) => {}
            (Power::Off, Some(load)) => return Err(format!("{} {load}", plug.label())),
        }
    }
    Ok(power)
}

/// Does something again while its trouble may pass and there is time.
///
/// # Errors
/// The last trouble.
pub(crate) fn persist<T>(
    rules: &Rules,
    clock: &dyn Clock,
    until: Instant,
    mut ask: impl FnMut() -> Result<T, Trouble>,
) -> Result<T, Trouble> {
    let mut reason = None;
    loop {
        let text = match ask() {
            Err(Trouble::Passing(text)) => text,
            other => return other,
        };
        tracing::debug!("{text}");
        learn(&mut reason, text, clock.now() >= until);
        if clock.now() + rules.poll >= until {
            return Err(Trouble::Passing(reason.unwrap_or_default()));
        }
        clock.sleep(rules.poll);
    }
}

/// The message of a trouble.
pub(crate) fn cannot(verb: &str, plug: &dyn Plug, trouble: &Trouble) -> String {
    format!("cannot {verb} {}: {}", plug.label(), trouble.text())
}

/// How far an outlet is on its way.
enum Progress {
    /// So many commands were taken, and the state is not yet the wanted one; with the reason.
    Open { taken: u32, reason: Option<String> },
    /// It was read in the wanted state, after a command that was taken.
    Done,
    /// It cannot be brought there.
    Failed(String),
}

/// Sends the command to all outlets and reads them, again and again, until all are there. An
/// outlet that cannot be brought there does not keep the others from it.
fn settle(
    plugs: &mut Plugs,
    want: Power,
    rules: &Rules,
    clock: &dyn Clock,
    until: Instant,
) -> Result<(), String> {
    // An off is sent until it is obeyed; switching off twice does no harm.
    let commands = if want == Power::On { rules.retry_on.saturating_add(1) } else { u32::MAX };
    let start = || Progress::Open { taken: 0, reason: None };
    let mut progress: Vec<Progress> = plugs.iter().map(|_| start()).collect();
    let mut is_first = true;
    loop {
        for (plug, state) in plugs.iter_mut().zip(&mut progress) {
            if matches!(state, Progress::Open { taken, .. } if *taken < commands) {
                command(plug.as_mut(), want, state, clock, until)?;
            }
        }
        if std::mem::take(&mut is_first) {
            clock.sleep(rules.power_wait);
        }
        for (plug, state) in plugs.iter_mut().zip(&mut progress) {
            look(plug.as_mut(), want, state, clock, until)?;
        }
        let is_open = |state: &Progress| matches!(state, Progress::Open { .. });
        let is_late = clock.now() + rules.poll >= until;
        if is_late || !progress.iter().any(is_open) {
            break;
        }
        clock.sleep(rules.poll);
    }
    verdict(plugs, want, &progress)
}

fn command(
    plug: &mut dyn Plug,
    want: Power,
    state: &mut Progress,
    clock: &dyn Clock,
    until: Instant,
) -> Result<(), String> {
    let Progress::Open { taken, reason } = state else { return Ok(()) };
    let label = plug.label();
    match plug.switch(want, until) {
        Ok(()) => {
            tracing::debug!("{label} took the command {want}");
            *taken += 1;
        }
        Err(Trouble::Passing(text)) => {
            tracing::debug!("{label}: {text}");
            learn(reason, text, clock.now() >= until);
        }
        Err(Trouble::Lasting(text)) => *state = Progress::Failed(text),
        Err(Trouble::Refused(text)) => return Err(failure(&label, want, &text)),
    }
    Ok(())
}

fn look(
    plug: &mut dyn Plug,
    want: Power,
    state: &mut Progress,
    clock: &dyn Clock,
    until: Instant,
) -> Result<(), String> {
    // What was read before the command was taken may be an old story.
    let Progress::Open { taken: 1.., reason } = state else { return Ok(()) };
    let label = plug.label();
    match plug.read(until) {
        Ok(reading) if reading.power == want => *state = Progress::Done,
        Ok(reading) => {
            *reason = Some(format!("it took the command and is still {}", reading.power))
        }
        Err(Trouble::Passing(text)) => learn(reason, text, clock.now() >= until),
        Err(Trouble::Lasting(text)) => *state = Progress::Failed(text),
        Err(Trouble::Refused(text)) => return Err(failure(&label, want, &text)),
    }
    Ok(())
}

/// A request that was cut off by the end of the time says nothing new.
fn learn(reason: &mut Option<String>, text: String, is_late: bool) {
    if !is_late || reason.is_none() {
        *reason = Some(text);
    }
}

fn verdict(plugs: &Plugs, want: Power, progress: &[Progress]) -> Result<(), String> {
    let failures: Vec<String> = plugs
        .iter()
        .zip(progress)
        .filter_map(|(plug, state)| match state {
            Progress::Done => None,
            Progress::Failed(reason) => Some(failure(&plug.label(), want, reason)),
            Progress::Open { reason, .. } => {
                let reason = reason.as_deref().unwrap_or("it was not read in time");
                Some(failure(&plug.label(), want, reason))
            }
        })
        .collect();
    if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
}

fn failure(label: &str, want: Power, reason: &str) -> String {
    format!("cannot switch {label} {want}: {reason}")
}

/// Reads all outlets in one pass, again and again until none objects.
fn hold_off(
    plugs: &mut Plugs,
    rules: &Rules,
    clock: &dyn Clock,
    until: Instant,
) -> Result<(), String> {
    let mut reason = None;
    loop {
        let mut objection = None;
        for plug in plugs.iter_mut() {
            match plug.read_closely(until) {
                Ok(reading) => {
                    check_stays_off(&plug.label(), &reading)?;
                    let load = load(&reading, rules);
                    objection = objection.or(load.map(|load| format!("{} {load}", plug.label())));
                }
                Err(trouble) => {
                    let text = cannot("read", plug.as_ref(), &trouble);
                    match trouble {
                        Trouble::Passing(_) => objection = Some(text),
                        Trouble::Lasting(_) | Trouble::Refused(_) => return Err(text),
                    }
                }
            }
        }
        let Some(objection) = objection else { return Ok(()) };
        tracing::debug!("{objection}");
        learn(&mut reason, objection, clock.now() >= until);
        if clock.now() + rules.poll >= until {
            return Err(reason.unwrap_or_default());
        }
        clock.sleep(rules.poll);
    }
}

/// Neither has it come on again, nor will it.
fn check_stays_off(label: &str, reading: &Reading) -> Result<(), String> {
    match (reading.power, &reading.pending) {
        (Power::On, _) => Err(format!("{label} was off and is on again: something switches it on")),
        (Power::Off, Some(pending)) => Err(format!("{label} will not stay off: {pending}")),
        (Power::Off, None) => Ok(()),
    }
}

/// The load that disproves an "off". A meter that was mounted the wrong way round counts backwards.
fn load(reading: &Reading, rules: &Rules) -> Option<String> {
    let watts = reading.watts.filter(|watts| watts.abs() > rules.off_watts)?;
    Some(format!("says that it is off and measures {watts} W"))
}

#[cfg(test)]
#[path = "fencing_tests.rs"]
mod tests;
