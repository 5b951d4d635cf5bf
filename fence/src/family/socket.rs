//! Sockets of TP-Link's strips, which are named as their owner or their place names them.

use crate::plug::Trouble;
use serde_json::Value;

/// How messages name an outlet.
pub(super) fn label(outlet: Option<&str>, host: &str) -> String {
    match outlet {
        Some(outlet) => format!("outlet {outlet:?} of {host}"),
        None => format!("the outlet at {host}"),
    }
}

/// The one socket that `is_it` finds, given its place from 0; never one of two.
pub(super) fn only<'a>(
    children: &'a [Value],
    outlet: Option<&str>,
    is_it: impl Fn(&str, usize, &Value) -> bool,
) -> Result<&'a Value, Trouble> {
    let outlet = outlet.ok_or_else(|| {
        Trouble::Lasting("it has several outlets, and no plug is given".to_string())
    })?;
    let all = children.iter().enumerate();
    let found: Vec<&Value> =
        all.filter(|(at, child)| is_it(outlet, *at, child)).map(|(_, child)| child).collect();
    match found.as_slice() {
        [child] => Ok(child),
        [] => {
            let count = children.len();
            Err(Trouble::Lasting(format!("it has no outlet {outlet:?} among its {count}")))
        }
        _ => Err(Trouble::Lasting(format!("it has two outlets that may be {outlet:?}"))),
    }
}
