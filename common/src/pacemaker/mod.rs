//! What the cluster says: the state of the other node, and what it keeps for us.

mod cib;
pub mod mark;
mod owner;

pub use cib::{Change, Cib, Condition, cib};
pub use owner::Owner;

use crate::machine::Machine;
use crate::ocf::Fault;
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use std::collections::BTreeMap;

/// What the cluster knows of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// It is a member.
    Online,
    /// It is no member, and it was fenced: proven dead.
    Fenced,
    /// It is no member, and said good-bye itself.
    Offline,
    /// It is no member, and nobody knows what it does.
    Unclean,
}

/// The name of this node in the cluster.
pub fn own_name(machine: &Machine) -> Result<String, Fault> {
    Ok(machine.run("crm_node", &["--name"])?.trim().to_string())
}

/// What the cluster says of itself and of the other storage node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The other node's state.
    pub peer: NodeState,
    /// Whether this part of the cluster may act.
    pub has_quorum: bool,
    /// Whether lost nodes are fenced.
    pub fencing_enabled: bool,
}

/// Asks the cluster, its status and its fencing history, about itself and a node.
pub fn cluster(machine: &Machine, peer: &str) -> Result<Cluster, Fault> {
    let status = machine.run("crm_mon", &["--one-shot", "--output-as=xml"])?;
    let ask = ["--history", peer, "--output-as=xml"];
    let history = || machine.run("stonith_admin", &ask).unwrap_or_default();
    Ok(Cluster {
        peer: decide_node_state(peer, &status, history)?,
        has_quorum: is_true(&status, "current_dc", &["with_quorum"])?,
        // The second name is that of Pacemaker 3.0.2 and later.
        fencing_enabled: is_true(
            &status,
            "cluster_options",
            &["stonith-enabled", "fencing-enabled"],
        )?,
    })
}

/// Whether an element has one of these attributes with the value true. No such element is an error.
fn is_true(xml: &str, element: &str, names: &[&str]) -> Result<bool, Fault> {
    let found = elements(xml, element)?;
    let attributes = found
        .first()
        .ok_or_else(|| Fault::generic(format!("crm_mon shows no element {element:?}")))?;
    Ok(names.iter().any(|name| attributes.get(*name).map(String::as_str) == Some("true")))
}

/// `history` is asked only for a node that has left.
fn decide_node_state(
    node: &str,
    status: &str,
    history: impl FnOnce() -> String,
) -> Result<NodeState, Fault> {
    let nodes = elements(status, "node")?;
    let state = nodes
        .iter()
        .find(|each| {
            each.get("name").map(String::as_str) == Some(node) && each.contains_key("online")
        })
        .ok_or_else(|| Fault::generic(format!("the cluster knows no node {node:?}")))?;
    let is = |name: &str| state.get(name).map(String::as_str) == Some("true");
    if is("online") || is("pending") {
        return Ok(NodeState::Online);
    }
    if is("unclean") {
        return Ok(NodeState::Unclean);
    }
    let events = elements(&history(), "fence_event")?;
    // The newest event comes first. Power that was given proves nothing.
    let newest = events.iter().find(|event| {
        let has = |name: &str, values: &[&str]| {
            event.get(name).is_some_and(|value| values.contains(&value.as_str()))
        };
        has("target", &[node]) && has("action", &["off", "reboot"])
    });
    let success =
        newest.and_then(|event| event.get("status")).map(String::as_str) == Some("success");
    Ok(if success { NodeState::Fenced } else { NodeState::Offline })
}

/// The attributes of all elements of one name.
fn elements(xml: &str, name: &str) -> Result<Vec<BTreeMap<String, String>>, Fault> {
    let cannot = |why: String| Fault::generic(format!("cannot read the cluster's XML: {why}"));
    let mut reader = Reader::from_str(xml);
    let mut found = Vec::new();
    loop {
        match reader.read_event().map_err(|error| cannot(error.to_string()))? {
            Event::Start(element) | Event::Empty(element) if element.name().as_ref() == name => {
                found.push(attributes(&element).map_err(cannot)?);
            }
            Event::Eof => return Ok(found),
            _ => {}
        }
    }
}

fn attributes(element: &BytesStart<'_>) -> Result<BTreeMap<String, String>, String> {
    let mut map = BTreeMap::new();
    for attribute in element.attributes() {
        let attribute = attribute.map_err(|error| error.to_string())?;
        let key = attribute.key.as_ref().to_string();
        map.insert(key, attribute.value.into_owned());
    }
    Ok(map)
}

/// Sets a permanent attribute of a node and reads it back from this node's copy. That others have it, too, is not known:
/// what has to be is changed by [`Cib::change`].
///
/// # Errors
/// The cluster has no quorum, or did not take it.
pub fn set_attribute(machine: &Machine, node: &str, name: &str, value: &str) -> Result<(), Fault> {
    cib::check_quorum(machine)?;
    let arguments = ["--node", node, "--name", name, "--lifetime", "forever", "--update", value];
    machine.run("crm_attribute", &arguments)?;
    if cib(machine)?.attribute(node, name) == Some(value) {
        return Ok(());
    }
    Err(Fault::generic(format!("the cluster did not take the attribute {name} of {node}")))
}

/// Removes a permanent attribute of a node.
///
/// # Errors
/// The cluster has no quorum, or did not take it.
pub fn remove_attribute(machine: &Machine, node: &str, name: &str) -> Result<(), Fault> {
    cib::check_quorum(machine)?;
    let arguments = ["--node", node, "--name", name, "--lifetime", "forever", "--delete"];
    machine.run("crm_attribute", &arguments).map(|_| ())
}

/// The present time for a mark, UTC, as people read it (RFC 3339).
pub fn now() -> String {
    humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string()
}

/// The attribute of a node that says which host id its ZFS has.
pub const HOSTID: &str = "hasan-hostid";
/// The attribute of a node that changes whenever the node is proven to hold none of our pools: at
/// its boot, and when it finds itself shut out without one.
pub const FRESH: &str = "hasan-fresh";
/// The attribute of a node that is shut out from the other's legs: its `hasan-fresh` at that time.
/// While both are the same, it may still be the one that was taken for dead.
pub const SHUT_OUT: &str = "hasan-shut-out";

/// A host id as it is published.
pub fn hostid_text(hostid: u64) -> String {
    format!("{hostid:x}")
}

/// The name of the attribute that says that a node's legs of a pool have missed writes.
pub fn dirty_mark(pool: &str) -> String {
    format!("hasan-dirty-{pool}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(online: bool, unclean: bool) -> String {
        format!(
            "<pacemaker-result><nodes><node name=\"storage-a\" id=\"1\" online=\"{online}\" \
             unclean=\"{unclean}\" pending=\"false\"/></nodes><resources><resource id=\"x\">\
             <node name=\"storage-a\" id=\"1\" cached=\"true\"/></resource></resources></pacemaker-result>"
        )
    }

    fn history(status: &str) -> String {
        format!(
            "<r><fence_history><fence_event target=\"storage-a\" action=\"on\" status=\"success\"/>\
             <fence_event target=\"storage-a\" action=\"reboot\" status=\"{status}\"/></fence_history></r>"
        )
    }

    #[test]
    fn what_the_cluster_says_of_itself() {
        let xml = |quorum: &str, fencing: &str| {
            format!("<r><current_dc with_quorum=\"{quorum}\"/><cluster_options {fencing}/></r>")
        };
        let says = |xml: &str| {
            let fencing = is_true(xml, "cluster_options", &["stonith-enabled", "fencing-enabled"]);
            (is_true(xml, "current_dc", &["with_quorum"]), fencing)
        };
        assert_eq!(says(&xml("true", "stonith-enabled=\"true\"")), (Ok(true), Ok(true)));
        assert_eq!(says(&xml("false", "fencing-enabled=\"true\"")), (Ok(false), Ok(true)));
        assert_eq!(says(&xml("true", "stonith-enabled=\"false\"")), (Ok(true), Ok(false)));
        assert!(is_true("<r/>", "current_dc", &["with_quorum"]).is_err());
    }

    #[test]
    fn a_node_is_dead_only_if_it_was_fenced() {
        for (online, unclean, last, want) in [
            (true, false, "success", NodeState::Online),
            (true, true, "success", NodeState::Online),
            (false, true, "success", NodeState::Unclean),
            (false, false, "success", NodeState::Fenced),
            (false, false, "failed", NodeState::Offline),
            (false, false, "", NodeState::Offline),
        ] {
            let mut is_asked = false;
            let ask = || {
                is_asked = true;
                history(last)
            };
            let state = decide_node_state("storage-a", &status(online, unclean), ask);
            assert_eq!(state, Ok(want));
            // A program less while the pool stands still.
            assert_eq!(is_asked, matches!(want, NodeState::Fenced | NodeState::Offline));
        }
        let none = || "<r/>".to_string();
        assert_eq!(
            decide_node_state("storage-a", &status(false, false), none),
            Ok(NodeState::Offline)
        );
        assert!(decide_node_state("storage-x", &status(true, false), none).is_err());
    }
}
