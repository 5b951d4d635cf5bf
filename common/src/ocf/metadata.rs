//! The metadata document, made of the agent's declaration.
//!
//! `ocf-tester` validates against the document type, and the one that comes with it knows OCF 1.0 only. So it is a file of
//! ours, which adds the attributes of OCF 1.1 that pcs and Pacemaker use. They must not be declared in the document itself:
//! Pacemaker 3.0 logs "Triggered fatal assertion" for each such declaration whenever it reads the metadata.

use super::{Agent, Kind, Operation, Param};
use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};
use std::io;

const DOCTYPE: &str = r#"resource-agent SYSTEM "/usr/share/hasan/ra-api-1.1.dtd""#;

/// The metadata of an agent: OCF 1.1, in XML.
pub fn metadata(agent: &Agent) -> String {
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 1);
    write(&mut writer, agent).expect("writing to memory does not fail");
    let mut text = String::from_utf8(writer.into_inner()).expect("all that is written is UTF-8");
    text.push('\n');
    text
}

type Xml = Writer<Vec<u8>>;

fn write(xml: &mut Xml, agent: &Agent) -> io::Result<()> {
    xml.write_event(Event::Decl(BytesDecl::new("1.0", None, None)))?;
    xml.write_event(Event::DocType(BytesText::from_escaped(DOCTYPE)))?;
    xml.create_element("resource-agent")
        .with_attributes([("name", agent.name), ("version", env!("CARGO_PKG_VERSION"))])
        .write_inner_content(|xml| {
            xml.create_element("version").write_text_content(BytesText::new("1.1"))?;
            texts(xml, agent.short, agent.long)?;
            xml.create_element("parameters").write_inner_content(|xml| {
                agent.params.iter().try_for_each(|each| parameter(xml, each))
            })?;
            xml.create_element("actions").write_inner_content(|xml| {
                agent.operations.iter().try_for_each(|each| action(xml, each))
            })?;
            Ok(())
        })?;
    Ok(())
}

fn texts(xml: &mut Xml, short: &str, long: &str) -> io::Result<()> {
    let english = [("lang", "en")];
    let longdesc = xml.create_element("longdesc").with_attributes(english);
    longdesc.write_text_content(BytesText::new(long))?;
    let shortdesc = xml.create_element("shortdesc").with_attributes(english);
    shortdesc.write_text_content(BytesText::new(short))?;
    Ok(())
}

fn parameter(xml: &mut Xml, param: &Param) -> io::Result<()> {
    let flag = |is_set: bool| if is_set { "1" } else { "0" };
    let mut element = xml.create_element("parameter").with_attributes([
        ("name", param.name),
        ("required", flag(param.required)),
        ("unique", flag(param.unique_group.is_some())),
    ]);
    if let Some(group) = param.unique_group {
        element = element.with_attribute(("unique-group", group));
    }
    if param.reloadable {
        element = element.with_attribute(("reloadable", "1"));
    }
    element.write_inner_content(|xml| {
        texts(xml, param.short, param.long)?;
        let kind = match param.kind {
            Kind::Text(_) => "string",
            Kind::Boolean => "boolean",
            Kind::Integer(..) => "integer",
        };
        let mut content = xml.create_element("content").with_attribute(("type", kind));
        if let Some(default) = param.default {
            content = content.with_attribute(("default", default));
        }
        content.write_empty()?;
        Ok(())
    })?;
    Ok(())
}

fn action(xml: &mut Xml, operation: &Operation) -> io::Result<()> {
    let timeout = format!("{}s", operation.timeout);
    let mut element = xml
        .create_element("action")
        .with_attributes([("name", operation.name), ("timeout", timeout.as_str())]);
    if operation.interval > 0 {
        let interval = format!("{}s", operation.interval);
        element = element.with_attribute(("interval", interval.as_str()));
    }
    if operation.depth > 0 {
        element = element.with_attribute(("depth", operation.depth.to_string().as_str()));
    }
    element.write_empty()?;
    Ok(())
}
