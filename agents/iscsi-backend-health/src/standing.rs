//! How this node and the other stand to each other in the cluster: what this node publishes of
//! itself, and the end of the other's being shut out.

use hasan::config::Backend;
use hasan::machine::Machine;
use hasan::ocf::Fault;
use hasan::pacemaker::{self, NodeState};
use hasan::{export, zfs};
use std::path::Path;
use std::time::{Duration, Instant};

/// Pause between two questions to the cluster.
const PAUSE: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(crate) struct Standing {
    /// What this node has published as its `hasan-fresh`.
    fresh: Option<String>,
    last_question: Option<Instant>,
}

impl Standing {
    /// Publishes this node, once, as one that holds no pool, and again when it is shut out and holds
    /// none: then it is not the one that was taken for dead.
    pub(crate) fn publish(
        &mut self,
        machine: &Machine,
        backend: &Backend,
        has_session: bool,
    ) -> Result<(), Fault> {
        if (self.fresh.is_some() && has_session) || !self.may_ask() {
            return Ok(());
        }
        // A daemon that is started anew beside a pool changes nothing: the node is what it was.
        if has_pool(machine, backend)? {
            return Ok(());
        }
        let own = pacemaker::own_name(machine)?;
        let cib = pacemaker::cib(machine)?;
        if let Some(fresh) = &self.fresh
            && cib.attribute(&own, pacemaker::SHUT_OUT) != Some(fresh)
        {
            return Ok(());
        }
        let hostid = pacemaker::hostid_text(zfs::hostid(machine)?);
        if cib.attribute(&own, pacemaker::HOSTID) != Some(hostid.as_str()) {
            pacemaker::set_attribute(machine, &own, pacemaker::HOSTID, &hostid)?;
        }
        let fresh = format!("{}-{}", boot(machine)?, pacemaker::now());
        pacemaker::set_attribute(machine, &own, pacemaker::FRESH, &fresh)?;
        self.fresh = Some(fresh);
        Ok(())
    }

    /// Whether the other node is shut out. Lets it in again when it is a member, and has published
    /// itself anew since.
    pub(crate) fn is_peer_shut_out(
        &mut self,
        machine: &Machine,
        backend: &Backend,
    ) -> Result<bool, Fault> {
        if !export::is_peer_shut_out(machine, backend) {
            return Ok(false);
        }
        if !self.may_ask() {
            return Ok(true);
        }
        let peer = &backend.peer.node;
        let cib = pacemaker::cib(machine)?;
        let shut_out = cib.attribute(peer, pacemaker::SHUT_OUT);
        let is_same = shut_out.is_some()
            && cib.attribute(peer, pacemaker::FRESH).unwrap_or("never")
                == shut_out.unwrap_or_default();
        if is_same || pacemaker::cluster(machine, peer)?.peer != NodeState::Online {
            return Ok(true);
        }
        export::let_peer_in(machine, backend)?;
        if shut_out.is_some() {
            pacemaker::remove_attribute(machine, peer, pacemaker::SHUT_OUT)?;
        }
        tracing::info!("{peer} has joined anew, and may use the legs of this node again");
        Ok(false)
    }

    fn may_ask(&mut self) -> bool {
        let may = self.last_question.is_none_or(|last| last.elapsed() >= PAUSE);
        if may {
            self.last_question = Some(Instant::now());
        }
        may
    }
}

fn has_pool(machine: &Machine, backend: &Backend) -> Result<bool, Fault> {
    for pool in &backend.pools {
        if zfs::pool_state(machine, pool)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The kernel's number of this boot.
fn boot(machine: &Machine) -> Result<String, Fault> {
    machine.read_required(Path::new("/proc/sys/kernel/random/boot_id"))
}
