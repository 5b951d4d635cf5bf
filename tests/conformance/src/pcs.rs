//! pcs, with a configuration in a file.

use crate::report::Report;
use crate::root::Root;
use crate::{AGENTS, RESOURCES, TARGET};
use anyhow::Result;
use quick_xml::Reader;
use quick_xml::events::Event;

/// Asks it.
pub(crate) fn ask(root: &Root) -> Result<Vec<Report>> {
    let mut report = Report::of(root, "pcs", "pcs --version")?;
    report.run(root, "rm -f cib.xml; cibadmin --empty > cib.xml", 0, &[])?;
    for agent in AGENTS {
        let text = format!("ocf:hasan:{agent} - ");
        report.run(
            root,
            &format!("pcs resource describe ocf:hasan:{agent}"),
            0,
            &[&text, "Default operations"],
        )?;
    }
    resources(root, &mut report)?;
    operations(root, &mut report)?;
    stonith(root, &mut report)?;
    Ok(vec![report])
}

fn resources(root: &Root, report: &mut Report) -> Result<()> {
    let create = "pcs -f cib.xml resource create";
    for (id, made) in RESOURCES {
        let clone = if made.contains(":iscsi-backend-") { " clone" } else { "" };
        let said = report.run(root, &format!("{create} {id} {made}{clone}"), 0, &[])?;
        // Two monitors with one interval are no configuration, so pcs makes two of it, and says so.
        let as_it_is = !said.text.contains("changing a monitor operation interval");
        report.check(&format!("{id}: its intervals are as they are"), as_it_is, &said.text);
    }
    let cases = [
        // One agent for each pool, each portal group, each dataset.
        (format!("{create} other ocf:hasan:zfs-pool pool=tank"), 1, "is not unique"),
        (
            format!("{create} other ocf:hasan:client-iscsi-tpg {TARGET} portals=192.0.2.8:3260"),
            1,
            "not unique",
        ),
        (
            format!("{create} other ocf:hasan:zfs-pool"),
            1,
            "required resource option 'pool' is missing",
        ),
        (
            format!("{create} other ocf:hasan:zfs-pool pool=b bogus=1"),
            1,
            "invalid resource option 'bogus'",
        ),
        (
            format!("{create} --agent-validation other ocf:hasan:zfs-pool pool=a/b"),
            1,
            "\"a/b\" is not the name of a pool",
        ),
        ("pcs -f cib.xml resource update pool multihost=warn".to_string(), 0, ""),
        ("pcs -f cib.xml resource update pool pool=".to_string(), 1, "'pool'"),
        (
            "pcs -f cib.xml resource update pool nope=1".to_string(),
            1,
            "invalid resource option 'nope'",
        ),
    ];
    report.run_each(root, &cases)
}

/// What metadata says of operations is what the configuration gets: a timeout for each, and two monitors that differ.
fn operations(root: &Root, report: &mut Report) -> Result<()> {
    let cib = root.run("cat cib.xml")?.text;
    for (id, _) in RESOURCES {
        let found = of_resource(&cib, id)?;
        let of = |name: &str| {
            found.iter().filter(|operation| operation.name == name).collect::<Vec<_>>()
        };
        let all_have_timeouts = found.iter().all(|operation| operation.timeout.ends_with('s'));
        report.check(
            &format!("{id}: timeouts"),
            all_have_timeouts && found.len() >= 3,
            &format!("{found:?}"),
        );
        for name in ["start", "stop"] {
            report.check(&format!("{id}: one {name}"), of(name).len() == 1, &format!("{found:?}"));
        }
        let monitors = of("monitor");
        let mut intervals: Vec<&str> = monitors.iter().map(|each| each.interval.as_str()).collect();
        intervals.sort_unstable();
        intervals.dedup();
        let differ = intervals.len() == monitors.len() && !monitors.is_empty();
        report.check(&format!("{id}: monitors"), differ, &format!("{monitors:?}"));
    }
    let levels = cib.matches("name=\"OCF_CHECK_LEVEL\" value=\"10\"").count();
    report.check("deep monitors of pool and LUNs", levels == 2, &cib);
    Ok(())
}

/// An operation in a configuration.
#[derive(Debug, Default)]
struct Operation {
    name: String,
    interval: String,
    timeout: String,
}

fn of_resource(cib: &str, id: &str) -> Result<Vec<Operation>> {
    let mut reader = Reader::from_str(cib);
    let (mut found, mut is_here) = (Vec::new(), false);
    loop {
        match reader.read_event()? {
            Event::Start(element) | Event::Empty(element) => {
                let get = |name: &str| -> String {
                    let attribute = element.try_get_attribute(name).ok().flatten();
                    attribute.map_or_else(String::new, |attribute| attribute.value.into_owned())
                };
                match element.name().as_ref() {
                    "primitive" => is_here = get("id") == id,
                    "op" if is_here => found.push(Operation {
                        name: get("name"),
                        interval: get("interval"),
                        timeout: get("timeout"),
                    }),
                    _ => {}
                }
            }
            Event::Eof => return Ok(found),
            _ => {}
        }
    }
}

fn stonith(root: &Root, report: &mut Report) -> Result<()> {
    let create = "pcs -f cib.xml stonith create";
    let cases = [
        (
            "pcs stonith describe fence_smartplug".to_string(),
            0,
            "fence_smartplug - Fence agent for smart plugs",
        ),
        (format!("{create} f fence_smartplug type=shelly2 ip=192.0.2.1 pcmk_host_list=a"), 0, ""),
        (format!("{create} g fence_smartplug ip=192.0.2.1 pcmk_host_list=a"), 1, "'type'"),
        (
            format!("{create} g fence_smartplug type=shelly2 ip=192.0.2.1 bogus=1"),
            1,
            "invalid stonith option 'bogus'",
        ),
        (
            format!("{create} --agent-validation g fence_smartplug type=nope ip=192.0.2.1"),
            1,
            "the option type: \"nope\" is none of",
        ),
        ("pcs -f cib.xml stonith update f hold=2".to_string(), 0, ""),
    ];
    report.run_each(root, &cases)
}
