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
use std::time::UNIX_EPOCH;

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The other node's state.
    pub peer: NodeState,
    /// When each node's power was last cut, seconds since 1970.
    pub fenced: BTreeMap<String, u64>,
    /// Whether this part of the cluster may act.
    pub has_quorum: bool,
    /// Whether lost nodes are fenced.
    pub fencing_enabled: bool,
}

impl Cluster {
    /// The same for whoever goes by this record: that its node was fenced before it took the pool proves nothing.
    #[must_use]
    pub fn since(self, record: Option<&Owner>, peer: &str) -> Cluster {
        let known = record.filter(|record| record.node == peer).and_then(|record| record.fenced);
        let is_known = known.is_some() && is_same_fencing(known, self.fenced.get(peer).copied());
        let peer =
            if is_known && self.peer == NodeState::Fenced { NodeState::Offline } else { self.peer };
        Cluster { peer, ..self }
    }
}

/// By how many seconds two nodes' times of the same fencing may differ: each takes the time when it hears of it. Between two of
/// one node lies a boot.
const SAME_FENCING: u64 = 10;

/// Whether two times are those of one fencing, or of none.
fn is_same_fencing(one: Option<u64>, other: Option<u64>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.abs_diff(other) <= SAME_FENCING,
        (one, other) => one == other,
    }
}

/// When a node's power was last cut, seconds since 1970.
pub fn last_cut(machine: &Machine, node: &str) -> Result<Option<u64>, Fault> {
    let status = machine.run("crm_mon", &["--one-shot", "--output-as=xml"])?;
    Ok(done(&cuts(&status)?).remove(node))
}

/// The last cut of each node that was done.
fn done(cuts: &[Cut]) -> BTreeMap<String, u64> {
    cuts.iter()
        .filter(|cut| cut.is_done)
        .filter_map(|cut| Some((cut.node.clone(), cut.time?)))
        .rev()
        .collect()
}

/// Asks the cluster about itself and a node.
pub fn cluster(machine: &Machine, peer: &str) -> Result<Cluster, Fault> {
    let status = machine.run("crm_mon", &["--one-shot", "--output-as=xml"])?;
    let cuts = cuts(&status)?;
    Ok(Cluster {
        peer: decide_node_state(peer, &status, &cuts)?,
        fenced: done(&cuts),
        has_quorum: is_true(&status, "current_dc", &["with_quorum"])?,
        // The second name is that of Pacemaker 3.0.2 and later.
        fencing_enabled: is_true(
            &status,
            "cluster_options",
            &["stonith-enabled", "fencing-enabled"],
        )?,
    })
}

/// A cut of a node's power that was asked for.
struct Cut {
    node: String,
    is_done: bool,
    /// When, seconds since 1970; `None` if that is not told, or in a way that nobody knows.
    time: Option<u64>,
}

/// The cuts that the cluster remembers, the newest one first. Power that was given is none.
fn cuts(status: &str) -> Result<Vec<Cut>, Fault> {
    let cut = |event: BTreeMap<String, String>| {
        let is_cut = matches!(event.get("action").map(String::as_str), Some("off" | "reboot"));
        let node = event.get("target").filter(|_| is_cut)?.clone();
        let is_done = event.get("status").map(String::as_str) == Some("success");
        Some(Cut { node, is_done, time: event.get("completed").and_then(|text| seconds(text)) })
    };
    Ok(elements(status, "fence_event")?.into_iter().filter_map(cut).collect())
}

/// Seconds since 1970 of a time in UTC, as `crm_mon` writes it where the time zone is UTC.
fn seconds(text: &str) -> Option<u64> {
    let time = humantime::parse_rfc3339_weak(text).ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// Whether an element has one of these attributes with the value true. No such element is an error.
fn is_true(xml: &str, element: &str, names: &[&str]) -> Result<bool, Fault> {
    let found = elements(xml, element)?;
    let attributes = found
        .first()
        .ok_or_else(|| Fault::generic(format!("crm_mon shows no element {element:?}")))?;
    Ok(names.iter().any(|name| attributes.get(*name).map(String::as_str) == Some("true")))
}

fn decide_node_state(node: &str, status: &str, cuts: &[Cut]) -> Result<NodeState, Fault> {
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
    let is_cut = cuts.iter().find(|cut| cut.node == node).is_some_and(|cut| cut.is_done);
    Ok(if is_cut { NodeState::Fenced } else { NodeState::Offline })
}

/// The attributes of all elements of one name.
fn elements(xml: &str, name: &str) -> Result<Vec<BTreeMap<String, String>>, Fault> {
    let cannot = |why: String| Fault::generic(format!("cannot read the cluster's XML: {why}"));
    let mut reader = Reader::from_str(xml);
    let (mut found, mut depth) = (Vec::new(), Depth::default());
    loop {
        let event = reader.read_event().map_err(|error| cannot(error.to_string()))?;
        depth.follow(&event).map_err(cannot)?;
        match event {
            Event::Start(element) | Event::Empty(element) if element.name().as_ref() == name => {
                found.push(attributes(&element).map_err(cannot)?);
            }
            Event::Eof => return Ok(found),
            _ => {}
        }
    }
}

/// How deep a reader is in a document. A text that is empty or cut off must not be taken for one that has less in it.
#[derive(Default)]
struct Depth {
    open: usize,
    has_root: bool,
}

impl Depth {
    fn follow(&mut self, event: &Event<'_>) -> Result<(), String> {
        match event {
            Event::Start(_) => self.open += 1,
            Event::End(_) => self.open = self.open.saturating_sub(1),
            Event::Eof if !self.has_root || self.open > 0 => {
                return Err("it ends before its end".to_string());
            }
            _ => {}
        }
        self.has_root |= matches!(event, Event::Start(_) | Event::Empty(_));
        Ok(())
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
        let event = |action: &str, status: &str, completed: &str| {
            format!(
                "<fence_event target=\"storage-a\" action=\"{action}\" status=\"{status}\" \
                 completed=\"{completed}\"/>"
            )
        };
        format!(
            "<fence_history>{}{}{}</fence_history>",
            event("on", "success", "1970-01-01 00:09:00Z"),
            event("reboot", status, "1970-01-01 00:01:40.767976Z"),
            event("off", "success", "1970-01-01 00:00:07Z"),
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
        let state = |node: &str, status: &str, history: &str| {
            decide_node_state(node, status, &cuts(history).unwrap())
        };
        for (online, unclean, last, want) in [
            (true, false, "success", NodeState::Online),
            (true, true, "success", NodeState::Online),
            (false, true, "success", NodeState::Unclean),
            (false, false, "success", NodeState::Fenced),
            (false, false, "failed", NodeState::Offline),
            (false, false, "pending", NodeState::Offline),
        ] {
            let seen = state("storage-a", &status(online, unclean), &history(last));
            assert_eq!(seen, Ok(want), "{online} {unclean} {last}");
        }
        assert_eq!(state("storage-a", &status(false, false), "<r/>"), Ok(NodeState::Offline));
        assert!(state("storage-x", &status(true, false), "<r/>").is_err());
    }

    #[test]
    fn a_fencing_of_before_the_owner_took_the_pool_proves_nothing() {
        let times: Vec<Option<u64>> =
            cuts(&history("success")).unwrap().iter().map(|cut| cut.time).collect();
        assert_eq!(times, [Some(100), Some(7)]);
        assert_eq!(seconds("2026-11-23 16:43:27.511974 +09:00"), None);
        let owner = |node: &str, fenced| Owner {
            node: node.to_string(),
            fenced,
            ..Owner::parse("x").unwrap()
        };
        for (node, known, last, want) in [
            ("storage-a", Some(100), Some(100), NodeState::Offline),
            ("storage-a", Some(95), Some(100), NodeState::Offline),
            ("storage-a", Some(105), Some(100), NodeState::Offline),
            ("storage-a", Some(60), Some(100), NodeState::Fenced),
            ("storage-a", None, Some(100), NodeState::Fenced),
            ("storage-a", Some(100), None, NodeState::Fenced),
            ("storage-b", Some(100), Some(100), NodeState::Fenced),
        ] {
            let fenced = last.map(|time| ("storage-a".to_string(), time)).into_iter().collect();
            let cluster = Cluster {
                peer: NodeState::Fenced,
                fenced,
                has_quorum: true,
                fencing_enabled: true,
            };
            let seen = cluster.since(Some(&owner(node, known)), "storage-a");
            assert_eq!(seen.peer, want, "{node} {known:?} {last:?}");
        }
    }
}
