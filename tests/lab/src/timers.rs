//! All the lab's times in one place. Under emulation everything takes 20 to 30 times as long as on a real machine, and
//! four machines share two processors, so the cluster's own timers are longer here than in the example.

use std::time::Duration;

/// Until a machine that boots answers by ssh.
pub(crate) const BOOT: Duration = Duration::from_secs(420);
/// Until the cluster has done what it was told. On Debian 13 a node that boots and serves alone takes 420 s by itself.
pub(crate) const CLUSTER: Duration = Duration::from_secs(900);
/// Until a pool has healed.
pub(crate) const HEAL: Duration = Duration::from_secs(900);
/// Until the writer has written the blocks that a scenario asks for.
pub(crate) const BLOCKS: Duration = Duration::from_secs(300);
/// For a command of pcs: a large Python program, which under emulation takes a minute.
pub(crate) const PCS: Duration = Duration::from_secs(400);
/// For an ordinary command in a machine.
pub(crate) const SSH: Duration = Duration::from_secs(120);
/// Corosync's token, milliseconds. The example has 4000; a machine here can stand still for seconds.
pub(crate) const TOKEN: u32 = 10_000;
