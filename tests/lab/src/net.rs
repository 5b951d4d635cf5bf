//! The networks: bridges and taps in a network namespace of the lab's own. Nothing leaves it.

use crate::machine::MACHINES;
use crate::plug;
use anyhow::Result;
use std::path::Path;
use std::time::Duration;
use support::command::run;

/// The network namespace.
pub(crate) const NAMESPACE: &str = "hasan-lab";
/// Names of the networks: management and cluster, storage, end users, hypervisors. The machines call their
/// interfaces so too.
pub(crate) const NETWORKS: [&str; 4] = ["mgmt", "stor", "end", "hyp"];
/// The host's own address on the management network.
pub(crate) const HOST: &str = "10.20.20.254";

/// And on the hypervisors': a guest of this host has its disk there.
const HYPERVISOR: &str = "10.40.40.254";

const IP: Duration = Duration::from_secs(20);

/// Makes the networks, unless they are there; all cables are in.
pub(crate) fn ensure() -> Result<()> {
    if Path::new("/run/netns").join(NAMESPACE).exists() {
        connect_all()?;
    } else {
        make()?;
    }
    let plugs = plug::addresses().map(|address| (address, "mgmt"));
    for (address, network) in [(HOST, "mgmt"), (HYPERVISOR, "hyp")].into_iter().chain(plugs) {
        ip(&["addr", "replace", &format!("{address}/24"), "dev", &format!("br-{network}")])?;
    }
    Ok(())
}

fn make() -> Result<()> {
    run(IP, "ip", &["netns", "add", NAMESPACE])?;
    ip(&["link", "set", "lo", "up"])?;
    for network in NETWORKS {
        let bridge = format!("br-{network}");
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        ip(&["link", "set", &bridge, "up"])?;
        for machine in MACHINES.iter().filter(|machine| machine.networks.contains(&network)) {
            let tap = tap(network, machine.id);
            ip(&["tuntap", "add", &tap, "mode", "tap"])?;
            ip(&["link", "set", &tap, "master", &bridge])?;
            ip(&["link", "set", &tap, "up"])?;
        }
    }
    Ok(())
}

/// A scenario that failed may have left a cable out.
fn connect_all() -> Result<()> {
    MACHINES.iter().try_for_each(|machine| {
        machine.networks.iter().try_for_each(|network| connect(network, machine.id, true))
    })
}

/// Cuts a machine off a network, as a pulled cable does, or puts the cable back.
pub(crate) fn connect(network: &str, id: u8, is_connected: bool) -> Result<()> {
    ip(&["link", "set", &tap(network, id), if is_connected { "up" } else { "down" }])
}

/// The tap of a machine on a network.
pub(crate) fn tap(network: &str, id: u8) -> String {
    format!("{network}{id}")
}

fn ip(arguments: &[&str]) -> Result<()> {
    run(IP, "ip", &[&["-n", NAMESPACE], arguments].concat()).map(|_| ())
}
