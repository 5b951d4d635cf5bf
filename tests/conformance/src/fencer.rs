//! `stonith_admin`, and Pacemaker's fencer, which drives `fence_smartplug` against a plug.

use crate::node::CLUSTER;
use crate::report::Report;
use crate::root::Root;
use anyhow::Result;

/// A plug with one page for each thing.
const PLUG: &str = include_str!("../plug.py");
/// How a device of type=http is described.
const DEVICE: &str = "--option type=http --option hold=0.2 --option pcmk_host_list=storage-a \
    --option power_on_url=http://127.0.0.1:8080/on --option power_off_url=http://127.0.0.1:8080/off \
    --option status_url=http://127.0.0.1:8080/ --option status_on_regex=^on$ --option status_off_regex=^off$";

/// Asks it.
pub(crate) fn ask(root: &Root) -> Result<Vec<Report>> {
    let mut report = Report::of(root, "stonith_admin of", "stonith_admin --version")?;
    let validate =
        "stonith_admin --validate --agent fence_smartplug --option ip=192.0.2.1 --option";
    let cases = [
        ("stonith_admin --list-installed".to_string(), 0, "fence_smartplug\n"),
        ("stonith_admin --metadata --agent fence_smartplug".to_string(), 0, "</resource-agent>"),
        (format!("{validate} type=shelly2"), 0, "succeeded"),
        (format!("{validate} type=nope"), 1, "the option type: \"nope\" is none of"),
        (
            "stonith_admin --validate --agent fence_smartplug --option type=shelly2".to_string(),
            1,
            "ip is required",
        ),
    ];
    report.run_each(root, &cases)?;
    Ok(vec![report, fencer(root)?])
}

fn fencer(root: &Root) -> Result<Report> {
    let mut report = Report::of(root, "pacemaker-fenced of", "pacemakerd --version")?;
    root.put("plug.py", PLUG)?;
    root.put("cluster.sh", CLUSTER)?;
    // All of it in one world: the fencer lives as long as its command.
    let script = format!(
        ". ./cluster.sh
         python3 plug.py > plug.log 2>&1 & plug=$!
         say() {{ echo \"$1: $(\"${{@:2}}\" > said 2>&1; echo $?)\"; }}
         relay() {{ python3 -c 'import urllib.request; print(\"relay:\", urllib.request.urlopen(\"http://127.0.0.1:8080/\").read().decode())'; }}
         until_so 300 relay
         say register stonith_admin --register plug --agent fence_smartplug {DEVICE}
         say query stonith_admin --query plug
         say list stonith_admin --list storage-a
         say off stonith_admin --fence storage-a --timeout 40; relay
         say on stonith_admin --unfence storage-a --timeout 40; relay
         say reboot stonith_admin --reboot storage-a --timeout 40; relay
         say stranger stonith_admin --fence storage-x --timeout 10
         kill $plug
         say gone stonith_admin --fence storage-a --timeout 20
         grep -c 'it takes no connection' pacemaker.log"
    );
    let said = root.run(&script)?;
    let lines: Vec<&str> = said.text.lines().collect();
    for (at, want) in [
        "register: 0",
        "query: 0",
        "list: 0",
        "off: 0",
        "relay: off",
        "on: 0",
        "relay: on",
        "reboot: 0",
        "relay: on",
        "stranger: ",
        "gone: 1",
    ]
    .iter()
    .enumerate()
    {
        let is_so =
            lines.get(at).is_some_and(|line| line.starts_with(want) && *line != "stranger: 0");
        report.check(want, is_so, &said.text);
    }
    let told = lines.last().and_then(|line| line.parse::<u32>().ok());
    report.check(
        "why it failed is in the fencer's log",
        told.is_some_and(|count| count > 0),
        &said.text,
    );
    Ok(report)
}
