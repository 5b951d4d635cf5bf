//! What the cluster says: the state of the other node, and what it keeps for us.

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
    let history =
        machine.run("stonith_admin", &["--history", peer, "--output-as=xml"]).unwrap_or_default();
    Ok(Cluster {
        peer: decide_node_state(peer, &status, &history)?,
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

fn decide_node_state(node: &str, status: &str, history: &str) -> Result<NodeState, Fault> {
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
    let events = elements(history, "fence_event")?;
    // The newest event comes first.
    let newest = events.iter().find(|event| event.get("target").map(String::as_str) == Some(node));
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

/// What the cluster keeps for us, all of it by one question: its tools take their time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cib {
    /// Permanent attributes, by node and name.
    attributes: BTreeMap<(String, String), String>,
    /// Properties of the cluster.
    properties: BTreeMap<String, String>,
}

impl Cib {
    /// A permanent attribute of a node.
    pub fn attribute(&self, node: &str, name: &str) -> Option<&str> {
        self.attributes.get(&(node.to_string(), name.to_string())).map(String::as_str)
    }

    /// The record of who had a pool last.
    ///
    /// # Errors
    /// A record that is not one.
    pub fn owner(&self, pool: &str) -> Result<Option<Owner>, Fault> {
        let name = Owner::name(pool);
        let Some(text) = self.properties.get(&name) else { return Ok(None) };
        let strange = || Fault::generic(format!("cannot read the record {name}: {text:?}"));
        Owner::parse(text).map(Some).ok_or_else(strange)
    }
}

/// Reads the cluster's configuration.
pub fn cib(machine: &Machine) -> Result<Cib, Fault> {
    parse_cib(&machine.run("cibadmin", &["--query", "--scope", "configuration"])?)
}

/// Takes the pairs below `crm_config` and below each node of `nodes`.
fn parse_cib(xml: &str) -> Result<Cib, Fault> {
    let cannot = |why: String| Fault::generic(format!("cannot read the cluster's XML: {why}"));
    let mut reader = Reader::from_str(xml);
    let (mut cib, mut section, mut node) = (Cib::default(), String::new(), String::new());
    loop {
        match reader.read_event().map_err(|error| cannot(error.to_string()))? {
            Event::Start(element) | Event::Empty(element) => {
                let mut pairs = attributes(&element).map_err(cannot)?;
                let mut take = |name: &str| pairs.remove(name).unwrap_or_default();
                match element.name().as_ref() {
                    name @ ("crm_config" | "nodes" | "resources" | "constraints") => {
                        section = name.to_string();
                    }
                    "node" => node = take("uname"),
                    "nvpair" if section == "crm_config" => {
                        cib.properties.insert(take("name"), take("value"));
                    }
                    "nvpair" if section == "nodes" => {
                        cib.attributes.insert((node.clone(), take("name")), take("value"));
                    }
                    _ => {}
                }
            }
            Event::Eof => return Ok(cib),
            _ => {}
        }
    }
}

/// crm_attribute(8): CRM_EX_NOSUCH, the attribute is not there; 6 in older versions.
const NO_SUCH: [i32; 2] = [105, 6];

/// A permanent attribute of a node; `None` if it is not set.
pub fn attribute(machine: &Machine, node: &str, name: &str) -> Result<Option<String>, Fault> {
    let arguments = ["--node", node, "--name", name, "--lifetime", "forever", "--query", "--quiet"];
    let answer = machine.ask("crm_attribute", &arguments)?;
    match answer.code {
        Some(0) => Ok(Some(answer.stdout.trim().to_string())),
        Some(code) if NO_SUCH.contains(&code) => Ok(None),
        _ => Err(Fault::generic(format!(
            "cannot read the attribute {name} of {node}: {}",
            answer.stderr.trim()
        ))),
    }
}

/// Sets a permanent attribute of a node and reads it back: without a quorum the cluster takes no
/// change, and then this fails.
pub fn set_attribute(machine: &Machine, node: &str, name: &str, value: &str) -> Result<(), Fault> {
    let arguments = ["--node", node, "--name", name, "--lifetime", "forever", "--update", value];
    machine.run("crm_attribute", &arguments)?;
    if attribute(machine, node, name)?.as_deref() == Some(value) {
        return Ok(());
    }
    Err(Fault::generic(format!("the cluster did not take the attribute {name} of {node}")))
}

/// Removes a permanent attribute of a node.
pub fn remove_attribute(machine: &Machine, node: &str, name: &str) -> Result<(), Fault> {
    let arguments = ["--node", node, "--name", name, "--lifetime", "forever", "--delete"];
    machine.run("crm_attribute", &arguments).map(|_| ())
}

/// The record of who had a pool last. It stands in the cluster's configuration, so that every node
/// that can vote has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The node that had the pool last, or was about to take it.
    pub node: String,
    /// The pool's GUID; `None` if an administrator made the record.
    pub pool_guid: Option<u64>,
    /// The host ids of the owner and of the one before it: whose labels may be the newest, because an
    /// import that was broken off leaves the older ones. Empty if an administrator made the record.
    pub hostids: Vec<u64>,
    /// The pool's transaction group when the owner was about to take it.
    pub txg: Option<u64>,
}

impl Owner {
    /// What an administrator runs, once, to make the record of a pool.
    pub fn command(pool: &str, node: &str) -> String {
        let name = Owner::name(pool);
        format!("crm_attribute -t crm_config -n {name} -v {node}")
    }

    fn name(pool: &str) -> String {
        format!("hasan-owner-{pool}")
    }

    fn text(&self) -> String {
        let hostids: Vec<String> = self.hostids.iter().map(|id| format!("{id:x}")).collect();
        match (self.pool_guid, self.txg) {
            (Some(guid), Some(txg)) => {
                format!("{} guid={guid} hosts={} txg={txg}", self.node, hostids.join(","))
            }
            _ => self.node.clone(),
        }
    }

    fn parse(text: &str) -> Option<Owner> {
        let words: Vec<&str> = text.split(' ').collect();
        let node = |name: &str| (!name.is_empty()).then(|| name.to_string());
        match words[..] {
            [name] => {
                Some(Owner { node: node(name)?, pool_guid: None, hostids: Vec::new(), txg: None })
            }
            [name, guid, hosts, txg] => Some(Owner {
                node: node(name)?,
                pool_guid: Some(guid.strip_prefix("guid=")?.parse().ok()?),
                hostids: hosts
                    .strip_prefix("hosts=")?
                    .split(',')
                    .map(|id| u64::from_str_radix(id, 16).ok())
                    .collect::<Option<_>>()?,
                txg: Some(txg.strip_prefix("txg=")?.parse().ok()?),
            }),
            _ => None,
        }
    }
}

/// Writes the record of a pool, and reads it back.
pub fn set_owner(machine: &Machine, pool: &str, record: &Owner) -> Result<(), Fault> {
    let (name, text) = (Owner::name(pool), record.text());
    machine.run("crm_attribute", &["--type", "crm_config", "--name", &name, "--update", &text])?;
    if cib(machine)?.owner(pool)?.as_ref() == Some(record) {
        return Ok(());
    }
    Err(Fault::generic(format!("the cluster did not take the record {name}")))
}

/// The present time for a mark: seconds since 1970, UTC.
pub fn now() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs()).to_string()
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
            "<r><fence_history><fence_event target=\"storage-a\" status=\"{status}\"/></fence_history></r>"
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
    fn what_the_cluster_keeps_is_found_by_its_node() {
        let xml = "<configuration><crm_config><cluster_property_set id=\"x\">\
            <nvpair id=\"1\" name=\"stonith-enabled\" value=\"true\"/>\
            <nvpair id=\"2\" name=\"hasan-owner-p\" value=\"storage-b\"/>\
            <nvpair id=\"3\" name=\"hasan-owner-q\" value=\"a b\"/></cluster_property_set></crm_config>\
            <nodes><node id=\"1\" uname=\"storage-a\"/><node id=\"2\" uname=\"storage-b\">\
            <instance_attributes id=\"n\"><nvpair id=\"4\" name=\"hasan-dirty-p\" value=\"17\"/>\
            </instance_attributes></node></nodes><resources><primitive id=\"p\">\
            <nvpair id=\"5\" name=\"hasan-dirty-p\" value=\"0\"/></primitive></resources></configuration>";
        let cib = parse_cib(xml).unwrap();
        assert_eq!(cib.attribute("storage-b", "hasan-dirty-p"), Some("17"));
        assert_eq!(cib.attribute("storage-a", "hasan-dirty-p"), None);
        assert_eq!(cib.owner("p").unwrap().unwrap().node, "storage-b");
        assert_eq!(cib.owner("none"), Ok(None));
        assert!(cib.owner("q").unwrap_err().reason.contains("hasan-owner-q: \"a b\""));
        assert!(parse_cib("<configuration><crm_config").is_err());
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_a_strange_one_is_none() {
        let full = Owner {
            node: "storage-a".to_string(),
            pool_guid: Some(u64::MAX),
            hostids: vec![0xc0de_0001, 2],
            txg: Some(77),
        };
        assert_eq!(full.text(), "storage-a guid=18446744073709551615 hosts=c0de0001,2 txg=77");
        assert_eq!(Owner::parse(&full.text()), Some(full));
        let by_hand = Owner::parse("storage-b").unwrap();
        assert_eq!((by_hand.text().as_str(), by_hand.hostids.len()), ("storage-b", 0));
        for strange in
            ["", "a guid=1", "a guid=x hosts=1 txg=1", "a guid=1 hosts= txg=1", "a b c d"]
        {
            assert_eq!(Owner::parse(strange), None, "{strange:?}");
        }
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
            let state = decide_node_state("storage-a", &status(online, unclean), &history(last));
            assert_eq!(state, Ok(want));
        }
        assert_eq!(
            decide_node_state("storage-a", &status(false, false), "<r/>"),
            Ok(NodeState::Offline)
        );
        assert!(decide_node_state("storage-x", &status(true, false), "<r/>").is_err());
    }
}
