//! What the cluster keeps for us in its configuration (the CIB): marks on nodes, and who had a pool last.
//!
//! A node that was frozen or cut off does not know at once what it missed: its own copy is old, and a change that it asks
//! for is taken later. So a change carries the condition under which it is right, for whoever takes it to judge; and it
//! counts when another voter shows it.

use super::{Depth, Owner, attributes};
use crate::machine::Machine;
use crate::ocf::Fault;
use quick_xml::Reader;
use quick_xml::escape::escape;
use quick_xml::events::Event;
use std::collections::BTreeMap;
use std::fmt::Write;

/// What the cluster keeps for us, all of it by one question: its tools take their time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cib {
    nodes: BTreeMap<String, Node>,
    /// Properties of the cluster.
    properties: BTreeMap<String, Pair>,
    /// The `id` of the set that they stand in.
    set: String,
}

/// A node and its permanent attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    id: String,
    /// The `id` of the set of its attributes; empty if there is none.
    set: String,
    attributes: BTreeMap<String, Pair>,
}

/// An `nvpair`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Pair {
    id: String,
    value: String,
}

/// What must be true of the cluster's configuration when a change of it is taken.
#[derive(Clone, Copy, Debug)]
pub enum Condition<'a> {
    /// By the record, this node has the pool.
    Owner {
        /// The pool.
        pool: &'a str,
    },
    /// The record of the pool is still this one.
    Record {
        /// The pool.
        pool: &'a str,
        /// The record.
        record: &'a Owner,
    },
}

/// A change of the cluster's configuration.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// Sets a permanent attribute of a node.
    Attribute {
        /// The node.
        node: &'a str,
        /// Name of the attribute.
        name: &'a str,
        /// Its value.
        value: &'a str,
    },
    /// Sets the record of a pool.
    Record {
        /// The pool.
        pool: &'a str,
        /// The record.
        record: &'a Owner,
    },
}

impl Cib {
    /// A permanent attribute of a node.
    pub fn attribute(&self, node: &str, name: &str) -> Option<&str> {
        Some(self.nodes.get(node)?.attributes.get(name)?.value.as_str())
    }

    /// The record of who had a pool last.
    ///
    /// # Errors
    /// A record that is not one.
    pub fn owner(&self, pool: &str) -> Result<Option<Owner>, Fault> {
        let name = Owner::name(pool);
        let Some(text) = self.properties.get(&name).map(|pair| &pair.value) else {
            return Ok(None);
        };
        let strange = || Fault::generic(format!("cannot read the record {name}: {text:?}"));
        Owner::parse(text).map(Some).ok_or_else(strange)
    }

    /// Has the cluster take these changes, all or none, and waits until another voter shows them. `own` is this node's name.
    ///
    /// # Errors
    /// The condition does not hold, the cluster has no quorum, or no other node confirms it.
    pub fn change(
        &self,
        machine: &Machine,
        own: &str,
        condition: Condition<'_>,
        changes: &[Change<'_>],
    ) -> Result<(), Fault> {
        let place = condition.place(own)?;
        let xml = self.document(changes)?;
        let arguments = ["--modify", "--allow-create", "--xpath", &place, "--xml-text", &xml];
        submit(machine, own, condition, &arguments)?;
        confirm(machine, own, |cib| changes.iter().all(|change| cib.shows(change)))
    }

    /// Removes a permanent attribute of a node, if the condition holds. One that is not there is no error.
    pub fn remove(
        &self,
        machine: &Machine,
        own: &str,
        condition: Condition<'_>,
        node: &str,
        name: &str,
    ) -> Result<(), Fault> {
        if self.attribute(node, name).is_none() {
            return Ok(());
        }
        let place = format!(
            "{}/nodes/node[@uname={}]/instance_attributes/nvpair[@name={}]",
            condition.place(own)?,
            quoted(node)?,
            quoted(name)?
        );
        submit(machine, own, condition, &["--delete", "--xpath", &place])?;
        confirm(machine, own, |cib| cib.attribute(node, name).is_none())
    }

    fn shows(&self, change: &Change<'_>) -> bool {
        match change {
            Change::Attribute { node, name, value } => self.attribute(node, name) == Some(value),
            Change::Record { pool, record } => {
                self.owner(pool).is_ok_and(|found| found.as_ref() == Some(record))
            }
        }
    }

    /// The part of the configuration that the changes make.
    fn document(&self, changes: &[Change<'_>]) -> Result<String, Fault> {
        let (mut properties, mut nodes) = (String::new(), String::new());
        for change in changes {
            match change {
                Change::Attribute { node, name, value } => {
                    nodes += &self.node_with(node, name, value)?;
                }
                Change::Record { pool, record } => {
                    let name = Owner::name(pool);
                    let id = self.properties.get(&name).map(|pair| pair.id.clone());
                    let id = id.unwrap_or_else(|| new_id(&format!("{}-{name}", self.set)));
                    let pair = pair(&id, &name, &record.text());
                    let set = escape(&self.set);
                    write!(
                        properties,
                        "<cluster_property_set id=\"{set}\">{pair}</cluster_property_set>"
                    )
                    .expect("a string takes everything");
                }
            }
        }
        let mut xml = String::from("<configuration>");
        if !properties.is_empty() {
            xml += &format!("<crm_config>{properties}</crm_config>");
        }
        if !nodes.is_empty() {
            xml += &format!("<nodes>{nodes}</nodes>");
        }
        Ok(xml + "</configuration>")
    }

    fn node_with(&self, name: &str, attribute: &str, value: &str) -> Result<String, Fault> {
        let node = self.nodes.get(name).ok_or_else(|| {
            Fault::generic(format!("the cluster's configuration has no node {name:?}"))
        })?;
        // As crm_attribute(8) names them.
        let set = match node.set.as_str() {
            "" => new_id(&format!("nodes-{}", node.id)),
            set => set.to_string(),
        };
        let id = node.attributes.get(attribute).map(|pair| pair.id.clone());
        let pair =
            pair(&id.unwrap_or_else(|| new_id(&format!("{set}-{attribute}"))), attribute, value);
        Ok(format!(
            "<node id=\"{}\" uname=\"{}\"><instance_attributes id=\"{}\">{pair}</instance_attributes></node>",
            escape(&node.id),
            escape(name),
            escape(&set)
        ))
    }
}

/// An `id` of ours. The schema takes an NCName alone (XML Schema part 2, section 3.3.14), and a pool's name may have a colon.
/// Pacemaker does the same to its own (`crm_xml_sanitize_id`).
fn new_id(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    text.chars().map(|c| if is_plain(c) { c } else { '.' }).collect()
}

fn pair(id: &str, name: &str, value: &str) -> String {
    format!("<nvpair id=\"{}\" name=\"{}\" value=\"{}\"/>", escape(id), escape(name), escape(value))
}

impl Condition<'_> {
    /// The path of the configuration, which is there only while the condition holds.
    fn place(&self, own: &str) -> Result<String, Fault> {
        let (pool, test) = match self {
            Condition::Owner { pool } => (
                pool,
                format!(
                    "(@value={} or starts-with(@value,{}))",
                    quoted(own)?,
                    quoted(&format!("{own} "))?
                ),
            ),
            Condition::Record { pool, record } => {
                (pool, format!("@value={}", quoted(&record.text())?))
            }
        };
        let name = quoted(&Owner::name(pool))?;
        Ok(format!("/cib/configuration[crm_config//nvpair[@name={name} and {test}]]"))
    }
}

/// A text in a path. Names have no quotes in them; one that has would change the meaning of the path.
fn quoted(text: &str) -> Result<String, Fault> {
    if text.contains('\'') {
        return Err(Fault::generic(format!(
            "the cluster has the name {text:?}, with a quote in it"
        )));
    }
    Ok(format!("'{text}'"))
}

/// What cibadmin(8) ends with when nothing is at a path: CRM_EX_NOSUCH; 6 in older versions.
const NO_SUCH: [i32; 2] = [105, 6];

fn submit(
    machine: &Machine,
    own: &str,
    condition: Condition<'_>,
    arguments: &[&str],
) -> Result<(), Fault> {
    check_quorum(machine)?;
    let answer = machine.ask("cibadmin", arguments)?;
    match answer.code {
        Some(0) => Ok(()),
        Some(code) if NO_SUCH.contains(&code) => Err(Fault::generic(match condition {
            Condition::Owner { pool } => {
                format!("by the cluster's record {own} does not have the pool {pool}")
            }
            Condition::Record { pool, .. } => {
                format!("the cluster's record of who has the pool {pool} has just changed")
            }
        })),
        _ => Err(Fault::generic(format!(
            "the cluster does not take a change: {}",
            answer.stderr.trim()
        ))),
    }
}

/// Asks another member: what this node shows may be its own belief alone. Where it is the only one left, in a cluster of two
/// with a quorum device, nobody else can tell.
///
/// Then the quorum, which may have gone since: a node that has lost all others confirms the change to itself. Asked in this
/// order, since members and quorum change together.
fn confirm(machine: &Machine, own: &str, is_there: impl Fn(&Cib) -> bool) -> Result<(), Fault> {
    let members = machine.run("crm_node", &["--partition"])?;
    // One that is no member would be waited for in vain, for half a minute.
    let mut others: Vec<&str> = members.split_whitespace().filter(|node| *node != own).collect();
    if others.is_empty() {
        others.push(own);
    }
    let shows = |node: &&str| query(machine, &["--node", node]).is_ok_and(|cib| is_there(&cib));
    if !others.iter().any(shows) {
        return Err(Fault::generic(format!(
            "the cluster has not taken a change: it is not in the copy of {}",
            others.join(" and ")
        )));
    }
    check_quorum(machine)
}

/// Without quorum nothing is submitted: Pacemaker 2.1.5 takes a change on a node that has lost all others, too, and a
/// copy of the configuration with more changes in it than the others' would win over theirs when it returns.
pub(super) fn check_quorum(machine: &Machine) -> Result<(), Fault> {
    // Without quorum it ends with an error (CRM_EX_QUORUM), and says so all the same.
    let answer = machine.ask("crm_node", &["--quorum"])?;
    match answer.stdout.trim() {
        "1" => Ok(()),
        "0" => Err(Fault::generic("the cluster has no quorum, so it can take no change")),
        strange => Err(Fault::generic(format!("crm_node --quorum says {strange:?}"))),
    }
}

/// Reads the cluster's configuration.
pub fn cib(machine: &Machine) -> Result<Cib, Fault> {
    query(machine, &[])
}

fn query(machine: &Machine, more: &[&str]) -> Result<Cib, Fault> {
    let arguments = [&["--query", "--scope", "configuration"], more].concat();
    parse_cib(&machine.run("cibadmin", &arguments)?)
}

/// Takes the pairs below `crm_config` and below each node of `nodes`.
fn parse_cib(xml: &str) -> Result<Cib, Fault> {
    let cannot = |why: String| Fault::generic(format!("cannot read the cluster's XML: {why}"));
    let mut reader = Reader::from_str(xml);
    let (mut cib, mut section, mut node) = (Cib::default(), String::new(), String::new());
    let mut depth = Depth::default();
    loop {
        let event = reader.read_event().map_err(|error| cannot(error.to_string()))?;
        depth.follow(&event).map_err(cannot)?;
        match event {
            Event::Start(element) | Event::Empty(element) => {
                let mut pairs = attributes(&element).map_err(cannot)?;
                let mut take = |name: &str| pairs.remove(name).unwrap_or_default();
                match (element.name().as_ref(), section.as_str()) {
                    (name @ ("crm_config" | "nodes" | "resources" | "constraints"), _) => {
                        section = name.to_string();
                    }
                    ("node", "nodes") => {
                        node = take("uname");
                        cib.nodes.entry(node.clone()).or_default().id = take("id");
                    }
                    ("instance_attributes", "nodes") => {
                        cib.nodes.entry(node.clone()).or_default().set = take("id");
                    }
                    ("cluster_property_set", "crm_config") if cib.set.is_empty() => {
                        cib.set = take("id");
                    }
                    ("nvpair", "crm_config") => {
                        let pair = Pair { id: take("id"), value: take("value") };
                        cib.properties.insert(take("name"), pair);
                    }
                    ("nvpair", "nodes") => {
                        let pair = Pair { id: take("id"), value: take("value") };
                        let node = cib.nodes.entry(node.clone()).or_default();
                        node.attributes.insert(take("name"), pair);
                    }
                    _ => {}
                }
            }
            Event::Eof => return Ok(cib),
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "cib_tests.rs"]
mod tests;
