//! `ocf-tester`, which comes with resource-agents: it starts, probes and stops each agent as the specification asks.

use crate::pool_checks::{AGENTS, CLIENT_SIDE, POOL, by_hand};
use crate::state::Lab;
use crate::{ssh, timers};
use anyhow::{Result, ensure};

/// Each agent passes, the door first, and the pool when its clients are gone.
pub(crate) fn all_agents(lab: &Lab) -> Result<()> {
    let (here, _) = by_hand(lab)?;
    let version = here.run("dpkg-query --show --showformat='${Version}' resource-agents")?;
    let pool = (POOL, "OCF_RESKEY_pool=san-pool");
    let backend = [("iscsi-backend-export", ""), ("iscsi-backend-health", "")];
    for (agent, environment) in CLIENT_SIDE.into_iter().chain([pool]).chain(backend) {
        // Its own 20 seconds are too short under emulation.
        let options: String = environment
            .split_whitespace()
            .chain(["OCF_RESKEY_CRM_meta_timeout=110000"])
            .map(|pair| format!(" -o {}", pair.trim_start_matches("OCF_RESKEY_")))
            .collect();
        let line = format!("ocf-tester -n tested{options} {AGENTS}/{agent} 2>&1 || true");
        let said = ssh::within(lab, here.node, timers::PCS, &line)?;
        ensure!(said.contains("passed all tests"), "ocf-tester {version}: {agent}:\n{said}");
        println!("ocf-tester of resource-agents {version}: {agent} passed all tests");
    }
    Ok(())
}
