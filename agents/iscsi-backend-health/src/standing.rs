//! How this node and the other stand to each other in the cluster: what this node publishes of
//! itself, and the end of the other's being shut out.

use crate::pools::imported;
use hasan::config::Backend;
use hasan::machine::Machine;
use hasan::ocf::Fault;
use hasan::pacemaker::{self, NodeState};
use hasan::{export, zfs};
use std::path::Path;
use std::time::{Duration, Instant};

/// Pause between two questions to the cluster, from the end of one: a starved machine's cluster has to come to something else,
/// too.
const PAUSE: Duration = Duration::from_secs(5);
/// The same while there is no cluster to ask.
const LONG_PAUSE: Duration = Duration::from_secs(15);

/// Corosync's configuration (corosync.conf(5)): `pcs cluster setup` writes another one.
const CLUSTER: &str = "/etc/corosync/corosync.conf";

#[derive(Default)]
pub(crate) struct Standing {
    /// What this node has published as its `hasan-fresh`.
    fresh: Option<String>,
    /// The stamp of corosync's configuration then: a cluster that is made anew knows nothing of it.
    cluster: Option<String>,
    /// When this node is next to be published.
    publish: Pause,
    /// When the cluster is next to be asked for the other node. A pause of its own: with one for both, the first question
    /// of each pass left the second one unasked for ever.
    peer: Pause,
}

/// Keeps the questions to the cluster apart.
#[derive(Default)]
struct Pause(Option<Instant>);

impl Pause {
    fn is_over(&self) -> bool {
        self.0.is_none_or(|next| Instant::now() >= next)
    }

    fn begin(&mut self, length: Duration) {
        self.0 = Some(Instant::now() + length);
    }
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
        let cluster = machine.stamp(Path::new(CLUSTER))?;
        if cluster != self.cluster {
            self.fresh = None;
        }
        if (self.fresh.is_some() && has_session) || !self.publish.is_over() {
            return Ok(());
        }
        // A daemon that is started anew beside a pool, or beside one that is to come, changes nothing: the node is what it was.
        if !imported(machine, backend)?.is_empty() || is_importing(machine, backend)? {
            return Ok(());
        }
        let result = self.publish_now(machine);
        if result.is_ok() {
            self.cluster = cluster;
        }
        // One that waits for its cluster need not ask each time.
        self.publish.begin(if result.is_ok() { PAUSE } else { LONG_PAUSE });
        result
    }

    fn publish_now(&mut self, machine: &Machine) -> Result<(), Fault> {
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
        if !self.peer.is_over() {
            return Ok(true);
        }
        let result = let_in_anew(machine, backend);
        self.peer.begin(PAUSE);
        result.map(|is_let_in| !is_let_in)
    }
}

/// Whether a pool is about to be here, which the kernel does not show yet.
fn is_importing(machine: &Machine, backend: &Backend) -> Result<bool, Fault> {
    for pool in &backend.pools {
        if zfs::is_importing(machine, pool)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Lets the other node in if it is proven not to be the one that was taken for dead; returns whether it did.
fn let_in_anew(machine: &Machine, backend: &Backend) -> Result<bool, Fault> {
    let peer = &backend.peer.node;
    let cib = pacemaker::cib(machine)?;
    let shut_out = cib.attribute(peer, pacemaker::SHUT_OUT);
    let is_anew = has_published_anew(shut_out, cib.attribute(peer, pacemaker::FRESH));
    if !is_anew || pacemaker::cluster(machine, peer)?.peer != NodeState::Online {
        return Ok(false);
    }
    export::let_peer_in(machine, backend)?;
    if shut_out.is_some() {
        pacemaker::remove_attribute(machine, peer, pacemaker::SHUT_OUT)?;
    }
    tracing::info!("{peer} has joined anew, and may use the legs of this node again");
    Ok(true)
}

/// Whether a node that is shut out is proven not to be the one that was taken for dead. Without the
/// attribute an administrator has said so.
fn has_published_anew(shut_out: Option<&str>, fresh: Option<&str>) -> bool {
    shut_out.is_none_or(|then| fresh.is_some_and(|now| now != then))
}

/// The kernel's number of this boot.
fn boot(machine: &Machine) -> Result<String, Fault> {
    machine.read_required(Path::new("/proc/sys/kernel/random/boot_id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_question_does_not_keep_the_other_from_being_asked() {
        let mut standing = Standing::default();
        assert!(standing.publish.is_over() && standing.peer.is_over());
        standing.publish.begin(LONG_PAUSE);
        assert!(!standing.publish.is_over() && standing.peer.is_over());
        standing.publish.begin(Duration::ZERO);
        standing.peer.begin(PAUSE);
        assert!(standing.publish.is_over() && !standing.peer.is_over());
    }

    #[test]
    fn a_node_is_let_in_only_if_it_has_published_itself_since() {
        for (shut_out, fresh, want) in [
            (Some("boot1-100"), Some("boot1-100"), false),
            (Some("boot1-100"), Some("boot2-200"), true),
            (Some("boot1-100"), None, false),
            (Some("never"), None, false),
            (Some("never"), Some("boot1-100"), true),
            (None, Some("boot1-100"), true),
        ] {
            assert_eq!(has_published_anew(shut_out, fresh), want, "{shut_out:?} {fresh:?}");
        }
    }
}
