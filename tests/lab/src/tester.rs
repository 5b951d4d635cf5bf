//! `ocf-tester`, which comes with resource-agents: it starts, probes and stops each agent as the specification asks.

use crate::pool_checks::{AGENTS, CLIENT_SIDE, Hand, POOL, by_hand};
use crate::state::Lab;
use crate::{ssh, timers};
use anyhow::{Result, ensure};

/// Each agent passes, the door first, and the pool when its clients are gone; and one that says it runs when it is stopped does
/// not.
pub(crate) fn all_agents(lab: &Lab) -> Result<()> {
    let (here, _) = by_hand(lab)?;
    let version = here.run("dpkg-query --show --showformat='${Version}' resource-agents")?;
    let pool = (POOL, "OCF_RESKEY_pool=san-pool");
    let backend = [("iscsi-backend-export", ""), ("iscsi-backend-health", "")];
    let mut passed = 0;
    let agents = CLIENT_SIDE.into_iter().chain([pool]).chain(backend);
    for (agent, environment) in agents {
        let said = ask(lab, &here, &format!("{AGENTS}/{agent}"), environment)?;
        ensure!(said.contains("passed all tests"), "ocf-tester {version}: {agent}:\n{said}");
        println!("ocf-tester: {agent} passed all tests");
        passed += 1;
    }
    here.run(&format!(
        "printf '#!/bin/sh\n[ \"$1\" = monitor ] || exec {AGENTS}/iscsi-backend-health \"$@\"\n' > /root/always-runs; chmod 755 /root/always-runs"
    ))?;
    let said = ask(lab, &here, "/root/always-runs", "")?;
    ensure!(said.contains("Tests failed"), "a broken agent passes:\n{said}");
    println!(
        "ocf-tester of resource-agents {version} ({}): {} checks, 0 of them wrong",
        lab.release,
        passed + 1
    );
    Ok(())
}

/// What it says of an agent.
fn ask(lab: &Lab, here: &Hand<'_>, agent: &str, environment: &str) -> Result<String> {
    // Its own 20 seconds are too short under emulation.
    let options: String = environment
        .split_whitespace()
        .chain(["OCF_RESKEY_CRM_meta_timeout=110000"])
        .map(|pair| format!(" -o {}", pair.trim_start_matches("OCF_RESKEY_")))
        .collect();
    let line = format!("ocf-tester -n tested{options} {agent} 2>&1 || true");
    ssh::within(lab, here.node, timers::PCS, &line)
}
