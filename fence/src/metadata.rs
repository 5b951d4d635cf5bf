//! The metadata document, made of the table of options. The order of its elements is that of
//! `metadata.rng` of fence-agents.

use crate::table::{Kind, Opt, TABLE};
use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};
use std::io;

/// One line.
pub(crate) const SHORT: &str = "Fence agent for smart plugs";
/// What it does, for an administrator.
pub(crate) const LONG: &str = "Cuts the power of a node by a smart plug in the local network. An \
    outlet is off only after it was read to be off, has stayed off for a while, measures no load and \
    has nothing pending that switches it on again; everything else is a failure. It asks no cloud \
    and writes no setting. Plugs of type klap and tapo may ask TP-Link's cloud themselves: they have \
    refused an off without the Internet, and after firmware updates. Rehearse it without both.";
const URL: &str = "https://clusterlabs.org";

/// Which text an option bears.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Texts {
    /// One line: for tools.
    Short,
    /// All there is to say: for a manual page.
    Long,
}

/// What can be asked of the agent. `list` is not among them: Pacemaker would look for node names in
/// it, and plugs know outlets.
const ACTIONS: &[&str] =
    &["on", "off", "reboot", "status", "monitor", "metadata", "manpage", "validate-all"];

/// The document.
pub(crate) fn metadata(texts: Texts) -> String {
    let mut writer = Writer::new_with_indent(Vec::new(), b'\t', 1);
    write(&mut writer, texts).expect("writing to memory does not fail");
    let mut text = String::from_utf8(writer.into_inner()).expect("all that is written is UTF-8");
    text.push('\n');
    text
}

type Xml = Writer<Vec<u8>>;

fn write(xml: &mut Xml, texts: Texts) -> io::Result<()> {
    xml.write_event(Event::Decl(BytesDecl::new("1.0", None, None)))?;
    let root = xml
        .create_element("resource-agent")
        .with_attributes([("name", "fence_smartplug"), ("shortdesc", SHORT)]);
    root.write_inner_content(|xml| {
        xml.create_element("longdesc").write_text_content(BytesText::new(LONG))?;
        xml.create_element("vendor-url").write_text_content(BytesText::new(URL))?;
        xml.create_element("parameters")
            .write_inner_content(|xml| TABLE.iter().try_for_each(|opt| option(xml, opt, texts)))?;
        xml.create_element("actions")
            .write_inner_content(|xml| ACTIONS.iter().try_for_each(|name| action(xml, name)))?;
        Ok(())
    })?;
    Ok(())
}

/// An option, and under its old name once more.
fn option(xml: &mut Xml, opt: &Opt, texts: Texts) -> io::Result<()> {
    if let Some(old) = opt.old {
        parameter(xml, opt, old, ("deprecated", "1"), texts)?;
        return parameter(xml, opt, opt.name, ("obsoletes", old), texts);
    }
    parameter(xml, opt, opt.name, ("unique", "0"), texts)
}

fn parameter(
    xml: &mut Xml,
    opt: &Opt,
    name: &str,
    attribute: (&str, &str),
    texts: Texts,
) -> io::Result<()> {
    let required = if opt.required { "1" } else { "0" };
    let mut element = xml.create_element("parameter").with_attribute(("name", name));
    if attribute.0 != "unique" {
        element = element.with_attribute(("unique", "0"));
    }
    element = element.with_attributes([("required", required), attribute]);
    element.write_inner_content(|xml| {
        let mixed = mixed(opt);
        xml.create_element("getopt").with_attribute(("mixed", mixed.as_str())).write_empty()?;
        content(xml, opt)?;
        let text = match texts {
            Texts::Long if !opt.long.is_empty() => format!("{}. {}", opt.short, opt.long),
            _ => opt.short.to_string(),
        };
        let shortdesc = xml.create_element("shortdesc").with_attribute(("lang", "en"));
        shortdesc.write_text_content(BytesText::new(&text))?;
        Ok(())
    })?;
    Ok(())
}

fn content(xml: &mut Xml, opt: &Opt) -> io::Result<()> {
    let (kind, choices) = match opt.kind {
        Kind::Text => ("string", &[][..]),
        Kind::Number => ("integer", &[][..]),
        Kind::Seconds => ("second", &[][..]),
        Kind::Flag | Kind::Boolean => ("boolean", &[][..]),
        Kind::Choice(choices) => ("select", choices),
    };
    let mut element = xml.create_element("content").with_attribute(("type", kind));
    if let Some(default) = opt.default {
        element = element.with_attribute(("default", default));
    }
    if choices.is_empty() {
        element.write_empty()?;
        return Ok(());
    }
    element.write_inner_content(|xml| {
        choices.iter().try_for_each(|choice| {
            xml.create_element("option")
                .with_attribute(("value", *choice))
                .write_empty()
                .map(|_| ())
        })
    })?;
    Ok(())
}

/// How an option stands on the command line.
fn mixed(opt: &Opt) -> String {
    let letter = opt.letter.map(|letter| format!("-{letter}, ")).unwrap_or_default();
    let long = opt.name.replace('_', "-");
    match opt.kind {
        Kind::Flag => format!("{letter}--{long}"),
        _ => format!("{letter}--{long}=[{}]", opt.name),
    }
}

fn action(xml: &mut Xml, name: &str) -> io::Result<()> {
    let mut element = xml.create_element("action").with_attribute(("name", name));
    if name == "on" {
        // It is not for unfencing: a node that boots needs nobody to switch it on.
        element = element.with_attribute(("automatic", "0"));
    }
    element.write_empty()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use quick_xml::Reader;
    use std::collections::BTreeSet;

    /// The elements below each other, in their order: `parameters/parameter/getopt`.
    fn paths(text: &str) -> Vec<String> {
        let mut reader = Reader::from_str(text);
        let (mut open, mut paths) = (Vec::new(), Vec::new());
        loop {
            let (element, is_empty) = match reader.read_event().unwrap() {
                Event::Start(element) => (element, false),
                Event::Empty(element) => (element, true),
                Event::End(_) => {
                    open.pop();
                    continue;
                }
                Event::Eof => return paths,
                _ => continue,
            };
            open.push(element.name().as_ref().to_string());
            paths.push(open.join("/"));
            if is_empty {
                open.pop();
            }
        }
    }

    #[test]
    fn the_elements_stand_in_the_order_of_the_schema() {
        for texts in [Texts::Short, Texts::Long] {
            let paths = paths(&metadata(texts));
            let below = |parent: &str| -> Vec<&str> {
                let child =
                    |path: &'_ String| path.rsplit_once('/').map(|(head, _)| head == parent);
                let paths = paths.iter().filter(|path| child(path) == Some(true));
                paths.filter_map(|path| path.rsplit('/').next()).collect()
            };
            let want = ["longdesc", "vendor-url", "parameters", "actions"];
            assert_eq!(below("resource-agent"), want);
            for each in below("resource-agent/parameters/parameter").chunks(3) {
                assert_eq!(each, ["getopt", "content", "shortdesc"]);
            }
            assert!(!paths.iter().any(|path| path.ends_with("/version")));
        }
    }

    #[test]
    fn every_option_and_old_name_is_there_except_port() {
        let text = metadata(Texts::Short);
        let mut names = BTreeSet::new();
        for part in text.split("<parameter name=\"").skip(1) {
            names.insert(part.split('"').next().unwrap().to_string());
        }
        let want: BTreeSet<String> = TABLE
            .iter()
            .flat_map(|opt| std::iter::once(opt.name).chain(opt.old))
            .map(str::to_string)
            .collect();
        assert_eq!(names, want);
        assert!(!names.contains("port"));
        assert!(text.contains("<action name=\"on\" automatic=\"0\"/>"));
        assert!(!text.contains("name=\"list\""));
    }
}
