//! Schemas of metadata, and a style sheet that makes manual pages of it. Each is also shown what it must refuse: otherwise it
//! might be one that finds everything right.

use crate::AGENTS;
use crate::report::Report;
use crate::root::{Root, Said};
use anyhow::Result;

/// What no schema of resource agents may take.
const SPOILT: [(&str, &str); 3] = [
    ("a strange type", "s/type=\"string\"/type=\"text\"/"),
    ("an action without a name", "s/action name/action title/"),
    ("cut off", "/<.resource-agent>/d"),
];

/// Asks them all.
pub(crate) fn ask(root: &Root) -> Result<Vec<Report>> {
    let version = "xmllint --version 2>&1 | grep -o 'libxml version .*'";
    let mut reports = Vec::new();
    for (name, validate) in [
        ("the schema of pcs", "--relaxng /usr/share/pcs/data/ocf-1.1.rng"),
        // 2.1 has none.
        ("the schema of Pacemaker", "--relaxng /usr/share/pacemaker/api/ocf-ra-1.1.rng"),
        ("the document type of resource-agents", "--valid"),
    ] {
        let is_there =
            root.run(&format!("test -e {}", validate.split(' ').next_back().unwrap_or_default()))?;
        let is_absent = validate.starts_with("--relaxng") && is_there.code != 0;
        if is_absent && name == "the schema of Pacemaker" && root.release == "bookworm" {
            continue;
        }
        let mut report = Report::of(root, &format!("xmllint with {name}:"), version)?;
        for agent in AGENTS {
            let lint = format!("xmllint --noout --nonet {validate} -");
            let metadata = format!("/usr/lib/ocf/resource.d/hasan/{agent} meta-data");
            report.run(
                root,
                &format!("{metadata} > /conformance/described && {lint} < /conformance/described"),
                0,
                &[],
            )?;
            for (what, edit) in SPOILT {
                let said = root.run(&format!(
                    "{metadata} | sed '{edit}' > /conformance/spoilt; {lint} < /conformance/spoilt"
                ))?;
                // 1: not well-formed; 3: not valid by a schema; 4: by a document type. Anything else is no verdict.
                report.check(
                    &format!("{agent} with {what}"),
                    matches!(said.code, 1 | 3 | 4),
                    &said.text,
                );
            }
        }
        reports.push(report);
    }
    reports.push(manual_pages(root)?);
    reports.push(fence_agent(root)?);
    Ok(reports)
}

/// Manual pages of resource agents, made as resource-agents makes those of its own: by two style sheets.
fn manual_pages(root: &Root) -> Result<Report> {
    let name = "manual pages by ra2refentry, and docbook-xsl";
    let mut report = Report::of_package(root, name, "docbook-xsl")?;
    let refentry = "xsltproc --nonet --novalid --stringparam provider hasan /usr/share/resource-agents/ra2refentry.xsl -";
    // DocBook's own document type is not there, and not needed.
    let docbook = "xsltproc --nonet --novalid --stringparam man.output.quietly 1 \
        /usr/share/xml/docbook/stylesheet/docbook-xsl/manpages/docbook.xsl -";
    for agent in AGENTS {
        let metadata = format!("/usr/lib/ocf/resource.d/hasan/{agent} meta-data");
        let make = |edit: &str| {
            format!(
                "set -o pipefail; {metadata} {edit} | {refentry} | {docbook} && {}",
                shown(&format!("ocf_hasan_{agent}.7"))
            )
        };
        let said = report.run(root, &make(""), 0, &[])?;
        report.check(agent, lines(&said) > 30, &said.text);
        let spoilt = root.run(&make("| sed '/<.resource-agent>/d'"))?;
        report.check(
            &format!("{agent} cut off"),
            spoilt.code != 0 && spoilt.text.contains("parser error"),
            &spoilt.text,
        );
    }
    Ok(report)
}

/// Shows a manual page on wide paper, since a style sheet may make one word of a long list; and says nothing but warnings and
/// the number of lines.
fn shown(page: &str) -> String {
    format!(
        "MANWIDTH=200 man --warnings --encoding=UTF-8 --local-file {page} 2>&1 > page.txt && grep -c . page.txt"
    )
}

/// The number of lines, if that is all there is; warnings would stand before it.
fn lines(said: &Said) -> u32 {
    said.text.trim().parse().unwrap_or(0)
}

fn fence_agent(root: &Root) -> Result<Report> {
    let folder = "/usr/share/cluster/relaxng";
    let mut report =
        Report::of_package(root, "schema and manual page of fence-agents with libxml2", "libxml2")?;
    for action in ["metadata", "manpage"] {
        let lint = format!("xmllint --noout --nonet --relaxng {folder}/metadata.rng -");
        report.run(
            root,
            &format!("set -o pipefail; fence_smartplug -o {action} | {lint}"),
            0,
            &["validates"],
        )?;
        let spoilt =
            format!("fence_smartplug -o {action} | sed 's/vendor-url>/vendor>/g' | {lint}");
        report.run(root, &spoilt, 3, &[])?;
    }
    let page = format!(
        "set -o pipefail; fence_smartplug -o manpage | xsltproc --nonet {folder}/fence2man.xsl - > page.8 && {}",
        shown("page.8")
    );
    let said = report.run(root, &page, 0, &[])?;
    report.check("the manual page", lines(&said) > 100, &said.text);
    Ok(report)
}
