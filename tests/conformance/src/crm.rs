//! Pacemaker's `crm_resource` and crmsh's `crm`, without a cluster.

use crate::report::Report;
use crate::root::Root;
use crate::{AGENTS, RESOURCES, TARGET};
use anyhow::Result;

/// Options of an agent, the exit code that they deserve, and what has to be said of them.
type Case<'a> = (&'a str, &'a [&'a str], i32, &'a str);

const CASES: [Case; 15] = [
    ("zfs-pool", &["pool=tank"], 0, ""),
    ("zfs-pool", &["pool=tank", "multihost=require", "failmode=wait"], 0, ""),
    ("zfs-pool", &["pool=tank", "multihost=warn", "failmode=continue"], 0, ""),
    ("zfs-pool", &["pool=tank", "multihost=ignore", "failmode=panic"], 0, ""),
    ("zfs-pool", &["pool=a/b"], 6, "the parameter \"pool\": \"a/b\" is not the name of a pool"),
    ("zfs-pool", &[], 6, "the parameter \"pool\" is required"),
    ("zfs-pool", &["pool=tank", "multihost=nope"], 6, "\"nope\""),
    ("zfs-pool", &["pool=tank", "mount=perhaps"], 6, "\"perhaps\""),
    ("sync-iscsi-luns", &[TARGET, "dataset=tank/x", "generate_node_acls=1"], 0, ""),
    (
        "sync-iscsi-luns",
        &["iqn=x", "dataset=tank/x", "generate_node_acls=1"],
        6,
        "\"x\" is not an iSCSI name",
    ),
    (
        "sync-iscsi-luns",
        &[TARGET, "dataset=tank/x", "generate_node_acls=1", "tpg=70000"],
        6,
        "\"70000\"",
    ),
    ("client-iscsi-tpg", &[TARGET, "portals=192.0.2.9:3260"], 0, ""),
    ("client-iscsi-tpg", &[TARGET, "portals=0.0.0.0:3260"], 6, "the wildcard address"),
    ("iscsi-backend-export", &[], 0, ""),
    ("iscsi-backend-health", &["backend=relative"], 6, "\"relative\""),
];

/// Asks both.
pub(crate) fn ask(root: &Root) -> Result<Vec<Report>> {
    Ok(vec![crm_resource(root)?, crmsh(root)?])
}

fn crm_resource(root: &Root) -> Result<Report> {
    let mut report = Report::of(root, "crm_resource of", "crm_resource --version")?;
    let list = report.run(root, "crm_resource --list-agents ocf:hasan", 0, &[])?;
    let agents: Vec<&str> = list.text.split_whitespace().collect();
    report.check("the list of agents", agents == AGENTS, &list.text);
    for agent in AGENTS {
        let show = format!("crm_resource --show-metadata ocf:hasan:{agent}");
        report.run(root, &show, 0, &["</resource-agent>", "name=\"validate-all\""])?;
    }
    quick_metadata(root, &mut report)?;
    for (agent, options, code, sentence) in CASES {
        let options: Vec<String> =
            options.iter().map(|option| format!("--option {option}")).collect();
        let command = format!(
            "crm_resource --validate --class ocf --provider hasan --agent {agent} {}",
            options.join(" ")
        );
        report.run(root, &command, code, &[sentence])?;
    }
    by_force(root, &mut report)?;
    Ok(report)
}

/// How often it is measured. The best counts: what else the host does meanwhile only makes it longer.
const MEASUREMENTS: usize = 5;

/// Pacemaker's controller reads them around nearly every action.
fn quick_metadata(root: &Root, report: &mut Report) -> Result<()> {
    let time = "time20() { local begun=$(date +%s%N); for i in $(seq 20); do \"$@\" > /dev/null; done; \
                echo $(( $(date +%s%N) - begun )); };";
    for agent in AGENTS {
        let both =
            format!("time20 /bin/true; time20 /usr/lib/ocf/resource.d/hasan/{agent} meta-data");
        let said = root.run(&format!("{time} for n in $(seq {MEASUREMENTS}); do {both}; done"))?;
        let is_quick = best(&said.text).is_some_and(|[nothing, metadata]| metadata < nothing * 10);
        report.check(
            &format!("{agent}: metadata cost ten times what /bin/true costs"),
            is_quick,
            &said.text,
        );
    }
    Ok(())
}

/// The shortest times of the two that are measured in turn; `None` if something else was said, or less.
fn best(said: &str) -> Option<[u64; 2]> {
    let times: Vec<u64> = said.lines().map(str::parse).collect::<Result<_, _>>().ok()?;
    let shortest = |first: usize| times.iter().skip(first).step_by(2).min().copied();
    if times.len() == 2 * MEASUREMENTS { Some([shortest(0)?, shortest(1)?]) } else { None }
}

/// Without ZFS, without a target and without a backend nothing is there, nothing can start, and everything is stopped.
fn by_force(root: &Root, report: &mut Report) -> Result<()> {
    let mut make = "rm -f cib.xml; cibadmin --empty > cib.xml".to_string();
    for (id, made) in RESOURCES {
        make += &format!("; pcs -f cib.xml resource create {id} {made}");
    }
    report.run(root, &make, 0, &[])?;
    for (id, code, reason) in [
        ("pool", 5, "/etc/hasan/backend.conf is not there"),
        ("luns", 1, "the pool \"tank\" is not imported here"),
        ("door", 1, "192.0.2.9:3260 is not on this node"),
        ("export", 5, "/etc/hasan/backend.conf is not there"),
        ("health", 5, "/etc/hasan/backend.conf is not there"),
    ] {
        for (action, code, words) in
            [("check", 7, ""), ("start", code, reason), ("stop", 0, "(ok)")]
        {
            let command =
                format!("CIB_file=cib.xml crm_resource --force-{action} --resource {id} 2>&1");
            let said = report.run(root, &command, code, &[])?;
            if !words.is_empty() {
                // 3.0 begins the word with a capital.
                let is_said = said.text.to_lowercase().contains(&words.to_lowercase());
                report.check(&format!("{command} says {words:?}"), is_said, &said.text);
            }
        }
    }
    Ok(())
}

fn crmsh(root: &Root) -> Result<Report> {
    let mut report = Report::of(root, "crmsh:", "crm --version")?;
    for agent in AGENTS {
        let info = format!("crm ra info ocf:hasan:{agent}");
        report.run(
            root,
            &info,
            0,
            &["Parameters (*: required, []: default)", "Operations' defaults"],
        )?;
    }
    for (agent, options, code, sentence) in CASES {
        let command = format!("crm ra validate ocf:hasan:{agent} {}", options.join(" "));
        report.run(root, &command, code.min(1), &[sentence])?;
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::best;

    #[test]
    fn the_shortest_of_each_counts() {
        assert_eq!(best("20\n90\n10\n95\n11\n80\n12\n99\n70\n81\n"), Some([10, 80]));
        for wrong in ["", "20\n90\n", "bash: x\n90\n10\n95\n11\n80\n12\n99\n70\n81\n"] {
            assert_eq!(best(wrong), None, "{wrong}");
        }
    }
}
