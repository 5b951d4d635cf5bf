//! `zfs-pool`, action by action, on real kernels: the cluster is in maintenance mode and leaves the resources alone, and
//! the actions are run by hand as Pacemaker runs them.

use crate::faults::signal_watch;
use crate::machine::{self, Machine};
use crate::orders::{fail_disk, mend_disk};
use crate::scenarios::{await_healed, fresh_cluster, other, query_mark};
use crate::state::Lab;
use crate::{cluster, ssh, timers};
use anyhow::{Result, bail, ensure};
use std::time::{Duration, Instant};
use support::command::await_until;

pub(crate) const AGENTS: &str = "/usr/lib/ocf/resource.d/hasan";
pub(crate) const POOL: &str = "zfs-pool";
/// Finds what imports, and neither itself nor the `zpool events` of the watch.
const IMPORTER: &str = "pgrep -f '[z]pool import|[z]hack '";
/// The client's resources, door first, with their parameters.
pub(crate) const CLIENT_SIDE: [(&str, &str); 2] = [
    (
        "client-iscsi-tpg",
        "OCF_RESKEY_iqn=iqn.2025-01.lab.home:hypervisor OCF_RESKEY_portals=10.40.40.10:3260",
    ),
    (
        "sync-iscsi-luns",
        "OCF_RESKEY_iqn=iqn.2025-01.lab.home:hypervisor OCF_RESKEY_dataset=san-pool/iscsi/hypervisor \
         OCF_RESKEY_generate_node_acls=true",
    ),
];

/// A node on which actions are run by hand.
pub(crate) struct Hand<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) node: &'static Machine,
}

/// What an action answered.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) text: String,
    pub(crate) took: Duration,
}

impl<'a> Hand<'a> {
    /// The node that has the pool.
    pub(crate) fn on_active(lab: &'a Lab) -> Result<Hand<'a>> {
        let quorum = Machine::named("quorum-c")?;
        let node = Machine::named(&cluster::await_placed(lab, quorum, None)?)?;
        Ok(Hand { lab, node })
    }

    pub(crate) fn run(&self, command: &str) -> Result<String> {
        ssh::run(self.lab, self.node, command)
    }

    /// Runs one action of an agent.
    pub(crate) fn act(&self, agent: &str, environment: &str, action: &str) -> Result<Said> {
        let line =
            format!("{}{AGENTS}/{agent} {action} 2>&1; echo \"exit $?\"", exports(environment));
        let begun = Instant::now();
        let said = ssh::within(self.lab, self.node, timers::PCS, &line)?;
        let (text, code) = said.trim_end().rsplit_once("exit ").unwrap_or(("", "-1"));
        println!("{}: {agent} {action}: exit {code}: {}", self.node.name, text.trim());
        Ok(Said { code: code.parse()?, text: text.trim().to_string(), took: begun.elapsed() })
    }

    /// Runs an action, and returns its exit code and the seconds that it took in the machine.
    pub(crate) fn timed(&self, agent: &str, environment: &str, action: &str) -> Result<(i32, f64)> {
        let line = format!(
            "{}begin=$(date +%s%N); {AGENTS}/{agent} {action} > /dev/null; code=$?; \
             echo $code $(( $(date +%s%N) - begin ))",
            exports(environment)
        );
        let said = ssh::within(self.lab, self.node, timers::PCS, &line)?;
        let (code, time) = said.trim().split_once(' ').unwrap_or_default();
        Ok((code.parse()?, time.parse::<f64>()? / 1e9))
    }

    /// Runs an action of zfs-pool, whose exit code and words must be these.
    pub(crate) fn expect(&self, action: &str, code: i32, words: &[&str]) -> Result<Said> {
        let said = self.act(POOL, "", action)?;
        let is_right = said.code == code && words.iter().all(|word| said.text.contains(word));
        ensure!(
            is_right,
            "{action} should exit {code} and say {words:?}, and exited {} and said {:?}",
            said.code,
            said.text
        );
        Ok(said)
    }

    /// Waits until the cluster knows that the other node's power is gone.
    pub(crate) fn await_peer_lost(&self, peer: &Hand<'_>) -> Result<()> {
        self.await_row(peer.node, "unclean=\"true\"")
    }

    /// Waits until the cluster says this of a node.
    fn await_row(&self, node: &Machine, words: &str) -> Result<()> {
        let start = format!("<node name=\"{}\"", node.name);
        await_until(&format!("{} is shown with {words}", node.name), timers::CLUSTER, || {
            let status = self.run("crm_mon --one-shot --output-as=xml")?;
            let row = status.lines().find(|line| line.contains(&start)).unwrap_or_default();
            if row.contains(words) { Ok(()) } else { bail!("{row}") }
        })
    }

    /// Begins an action and kills it when it has said so many steps; returns whether it had ended by then. The worker says
    /// each step before it does it.
    pub(crate) fn cut(
        &self,
        agent: &str,
        environment: &str,
        action: &str,
        steps: u32,
    ) -> Result<bool> {
        let script = format!(
            "{}coproc W {{ exec {AGENTS}/{agent} {action} --worker 2>/dev/null; }}; pid=$W_PID
             for i in $(seq {steps}); do read -r step <&${{W[0]}} || {{ echo whole; exit; }}; done
             kill -9 $pid; echo \"killed at: $step\"",
            exports(environment)
        );
        let end = self.run(&script)?;
        println!("{}: {agent} {action} with {steps} steps: {}", self.node.name, end.trim());
        Ok(end.trim() == "whole")
    }

    /// Takes the client's side down, so that the pool can be stopped.
    pub(crate) fn free_pool(&self) -> Result<()> {
        for (agent, environment) in CLIENT_SIDE {
            let said = self.act(agent, environment, "stop")?;
            ensure!(said.code == 0, "stop of {agent}");
        }
        Ok(())
    }
}

pub(crate) fn exports(environment: &str) -> String {
    format!(
        "export OCF_ROOT=/usr/lib/ocf OCF_RESOURCE_INSTANCE=by-hand OCF_RESKEY_pool=san-pool \
         OCF_RESKEY_CRM_meta_timeout=300000 {environment}; "
    )
}

/// A fresh cluster that leaves the resources alone: the active node, and the other one.
pub(crate) fn by_hand(lab: &Lab) -> Result<(Hand<'_>, Hand<'_>)> {
    let active = fresh_cluster(lab)?;
    let here = Hand { lab, node: active };
    here.run("crm_attribute --type crm_config --name maintenance-mode --update true")?;
    Ok((here, Hand { lab, node: other(active)? }))
}

/// While another node has the pool, or may have it, nothing makes this node take it.
pub(crate) fn refusals(lab: &Lab) -> Result<()> {
    let (here, there) = by_hand(lab)?;
    here.expect("monitor", 0, &[])?;
    there.expect("monitor", 7, &[])?;
    let host = format!("in use by {}", here.node.name);
    there.expect("start", 1, &[&host, "Online, not fenced"])?;
    // What the kernel itself says to somebody who forces it.
    let forced = there.run(
        "zpool import -f -o cachefile=none -d /dev/mapper san-pool 2>&1 | tr '\\n' ' '; \
         zpool list -H -o name",
    )?;
    ensure!(forced.contains("imported on"), "a forced import beside the owner: {forced}");
    // Pacemaker leaves in maintenance mode, and the pool stays imported.
    here.run("systemctl stop pacemaker corosync")?;
    there.await_row(here.node, "online=\"false\"")?;
    there.expect("start", 1, &[&host, "Offline, not fenced"])?;
    there.expect("monitor", 7, &[])?;
    here.expect("monitor", 0, &[])?;
    Ok(())
}

/// The owner was fenced once, came back, took the pool, and left with it: that old fencing proves nothing. A new one does.
pub(crate) fn fenced_before(lab: &Lab) -> Result<()> {
    let (here, there) = by_hand(lab)?;
    let fence = |action: &str| {
        here.run(&format!("stonith_admin --{action} {} --timeout 100", there.node.name))
    };
    fence("reboot")?;
    ssh::await_one(lab, there.node)?;
    here.await_row(there.node, "online=\"true\"")?;
    await_healed(lab, here.node, there.node)?;
    here.free_pool()?;
    here.expect("stop", 0, &[])?;
    there.expect("start", 0, &[])?;
    let record = here.run("crm_attribute --type crm_config --name hasan-owner-san-pool --query")?;
    println!("{}", record.trim());
    there.run("systemctl stop pacemaker corosync")?;
    here.await_row(there.node, "online=\"false\"")?;
    here.expect("start", 1, &[&format!("in use by {}", there.node.name), "Offline, not fenced"])?;
    there.expect("monitor", 0, &[])?;
    fence("fence")?;
    here.expect("start", 0, &[])?;
    Ok(())
}

/// A disk fails, and the pool is given back before the watch has marked the node, and the disk works again. The next start, on
/// the other node, finds the leg behind its mirror's other one, and marks the node before anything is written.
pub(crate) fn behind(lab: &Lab) -> Result<()> {
    let (here, there) = by_hand(lab)?;
    here.free_pool()?;
    signal_watch(lab, here.node, "STOP")?;
    fail_disk(lab, here.node)?;
    await_until("ZFS has dropped the leg", timers::CLUSTER, || {
        here.run("zfs set hasan:written=1 san-pool; zpool sync san-pool; zpool status san-pool | grep FAULTED").map(|_| ())
    })?;
    here.expect("stop", 0, &[])?;
    mend_disk(lab, here.node)?;
    let mark = || there.run(&query_mark(here.node));
    let before = mark()?;
    ensure!(before.trim() == "none", "{} is marked already: {before}", here.node.name);
    // The mark is to be the start's own.
    signal_watch(lab, there.node, "STOP")?;
    there.expect("start", 0, &[])?;
    let since = mark()?;
    println!("{} is marked: {}", here.node.name, since.trim());
    ensure!(since.trim() != "none", "{} is not marked", here.node.name);
    signal_watch(lab, there.node, "CONT")?;
    signal_watch(lab, here.node, "CONT")?;
    await_healed(lab, there.node, here.node)
}

/// A stop names who holds the pool and changes nothing; without holders it gives the pool back.
pub(crate) fn holders(lab: &Lab) -> Result<()> {
    let (here, _) = by_hand(lab)?;
    here.expect("stop", 1, &["in use by the LIO backstore", "vm-101-disk-0"])?;
    here.free_pool()?;
    let zvols = "ls /dev/zvol/san-pool/many 2>/dev/null | wc -l";
    ssh::within(
        lab,
        here.node,
        timers::PCS,
        "zfs create san-pool/many && for i in $(seq 12); do zfs create -s -V 8M san-pool/many/v$i; done",
    )?;
    await_until("a dozen zvols", timers::CLUSTER, || {
        let count = here.run(zvols)?;
        if count.trim() == "12" { Ok(()) } else { bail!(count) }
    })?;
    here.run("(sleep 1000 < /dev/zvol/san-pool/many/v7) > /dev/null 2>&1 &")?;
    here.expect("stop", 1, &["in use by sleep (process "])?;
    ensure!(here.run(zvols)?.trim() == "12", "a refused stop took nodes of zvols away");
    here.expect("monitor", 0, &[])?;
    // A program that only looks is waited for.
    here.run("pkill sleep; (sleep 5 < /dev/zvol/san-pool/many/v7) > /dev/null 2>&1 &")?;
    here.expect("stop", 0, &[])?;
    here.expect("monitor", 7, &[])?;
    here.expect("stop", 0, &[])?;
    a_backup_fences_no_node(&here)
}

/// A stream whose reader does not read on has the pool for ever, as far as ZFS is concerned.
fn a_backup_fences_no_node(here: &Hand<'_>) -> Result<()> {
    here.expect("start", 0, &[])?;
    let zvol = "san-pool/many/v7";
    here.run(&format!(
        "dd if=/dev/urandom of=/dev/zvol/{zvol} bs=1M count=4 conv=fsync; zfs snapshot {zvol}@s
         (zfs send {zvol}@s | sleep 1000) > /dev/null 2>&1 < /dev/null &"
    ))?;
    await_until("it is sent", timers::CLUSTER, || {
        here.run("grep pipe_write /proc/$(pgrep -x zfs)/task/*/stack").map(|_| ())
    })?;
    let refused = here.run("zpool export san-pool 2>&1; true")?;
    ensure!(refused.contains("pool is busy"), "the export of a pool that is sent: {refused:?}");
    here.expect("stop", 0, &[])?;
    here.expect("monitor", 7, &[])?;
    ensure!(here.run("pgrep -x zfs").is_err(), "the stream goes on");
    Ok(())
}

/// A deep monitor writes to the pool, and says who has it by the cluster's record. A start loads keys and mounts; a key that does
/// not come holds up nothing else.
pub(crate) fn datasets(lab: &Lab) -> Result<()> {
    let (here, there) = by_hand(lab)?;
    let said = here.act(POOL, "OCF_CHECK_LEVEL=10", "monitor")?;
    ensure!(said.code == 0, "a deep monitor");
    let checked = here.run("zfs get -Hp -o value hasan:checked san-pool")?;
    let is_time = checked.starts_with("20") && checked.trim().ends_with('Z');
    ensure!(is_time, "a deep monitor wrote {checked:?}");
    let attribute = "crm_attribute --type crm_config --name hasan-owner-san-pool";
    let record = here.run(&format!("{attribute} --query --quiet"))?;
    here.run(&format!("{attribute} --update {}", there.node.name))?;
    let said = here.act(POOL, "OCF_CHECK_LEVEL=10", "monitor")?;
    let is_told = said.code == 190 && said.text.contains(&format!("-v {}", here.node.name));
    ensure!(is_told, "a pool of which the record says another node has it: {}", said.text);
    here.run(&format!("{attribute} --update '{}'", record.trim()))?;
    here.free_pool()?;
    here.run(
        "for name in one two; do
             head -c 32 /dev/urandom > /root/key-$name
             options=\"-o encryption=on -o keyformat=raw -o keylocation=file:///root/key-$name\"
             zfs create $options -o mountpoint=/secret-$name san-pool/secret-$name
         done
         zfs create -V 8M san-pool/secret-one/zvol; zfs create -V 8M san-pool/secret-two/zvol",
    )?;
    here.expect("stop", 0, &[])?;
    here.run("rm /root/key-two && mkfifo /root/key-two")?;
    let options = "OCF_RESKEY_load_keys=true OCF_RESKEY_failmode=continue";
    let said = here.act(POOL, options, "start")?;
    ensure!(said.code == 0, "a start with a key that does not come");
    let found = here.run(
        "zfs get -Hp -o value mounted san-pool/secret-one san-pool/secret-two; zpool get -Hp -o value failmode san-pool
         ls -d /dev/zvol/san-pool/secret-*/zvol",
    )?;
    let want = "yes\nno\ncontinue\n/dev/zvol/san-pool/secret-one/zvol\n";
    ensure!(found == want, "after the start: {found:?}");
    // A shell that stands in a mounted dataset is a holder, too.
    here.run("(cd /secret-one && sleep 1000) > /dev/null 2>&1 &")?;
    here.expect("stop", 1, &["in use by ", "(process "])?;
    here.run("pkill sleep")?;
    here.expect("stop", 0, &[])?;
    Ok(())
}

/// Killed between any two of its steps, a start leaves nothing that the next action cannot settle.
pub(crate) fn cut_starts(lab: &Lab) -> Result<()> {
    let (here, _) = by_hand(lab)?;
    here.free_pool()?;
    here.expect("stop", 0, &[])?;
    for steps in 1.. {
        let is_whole = here.cut(POOL, "", "start", steps)?;
        let state = here.act(POOL, "", "monitor")?;
        let under_way = state.code == 1 && state.text.contains("is under way");
        let is_told = matches!(state.code, 0 | 7) || under_way;
        ensure!(is_told, "monitor after a start that was cut off: {}", state.text);
        ensure!(!is_whole || state.code == 0, "a whole start");
        here.expect("stop", 0, &[])?;
        here.expect("monitor", 7, &[])?;
        if is_whole {
            ensure!(steps > 5, "a start has more than {steps} steps");
            break;
        }
    }
    here.expect("start", 0, &[])?;
    here.expect("start", 0, &[])?;
    here.expect("monitor", 0, &[])?;
    Ok(())
}

/// The agent is killed while ZFS looks for another importer: nobody says "not running" while the pool may appear, and a
/// stop ends it. The next start takes the pool, although the dead node is back by then.
pub(crate) fn killed_import(lab: &Lab) -> Result<()> {
    let (dead, here) = by_hand(lab)?;
    machine::kill(lab, dead.node)?;
    here.await_peer_lost(&dead)?;
    // Whatever it was, it is not proven dead; and in maintenance mode Pacemaker fences nobody by itself.
    here.expect("start", 1, &["is Unclean, not fenced"])?;
    here.run(&format!("stonith_admin --reboot {} --timeout 100", dead.node.name))?;
    let wait = "/sys/module/zfs/parameters/zfs_multihost_import_intervals";
    let as_configured = here.run(&format!("cat {wait}"))?;
    // ZFS waits for another importer's sign so long that it waits when it is killed.
    here.run(&format!("echo 1000 > {wait}"))?;
    here.run(&format!("{}{AGENTS}/{POOL} start > /dev/null 2>&1 &", exports("")))?;
    await_until("the import is under way", timers::CLUSTER, || here.run(IMPORTER).map(|_| ()))?;
    here.run("pkill -9 -x zfs-pool")?;
    here.expect("monitor", 1, &["is under way"])?;
    here.expect("stop", 0, &[])?;
    here.expect("monitor", 7, &[])?;
    ensure!(here.run(&format!("{IMPORTER} || true"))?.is_empty(), "an import is left");
    here.run(&format!("echo {} > {wait}", as_configured.trim()))?;
    ssh::await_one(lab, dead.node)?;
    here.expect("start", 0, &[])?;
    let state = here.act(POOL, "", "monitor")?;
    ensure!(matches!(state.code, 0 | 190), "after the import: {}", state.text);
    Ok(())
}

/// Cuts the storage link when the import is about to begin, and lets it begin when the session is known to be lost.
const CUT_FIRST: &str = "#!/bin/sh
if [ \"$1\" = import ]; then
    ip link set stor down
    while grep -q LOGGED_IN /sys/class/iscsi_session/*/state; do sleep 0.1; done
fi
exec /run/lab/real \"$@\"
";

/// The pool is given back, and the legs of the node that had it are lost between the other's look at them and its import,
/// which would wait for them for ever: the start goes on without them, and that node is marked before anything is written.
pub(crate) fn legs_lost_at_import(lab: &Lab) -> Result<()> {
    let (there, here) = by_hand(lab)?;
    there.free_pool()?;
    there.expect("stop", 0, &[])?;
    here.run("mkdir /run/lab && mount -t tmpfs -o mode=755 lab /run/lab && cp /usr/sbin/zpool /run/lab/real")?;
    ssh::put(lab, here.node, "/run/lab/zpool", CUT_FIRST.as_bytes())?;
    here.run("chmod 755 /run/lab/zpool && mount --bind /run/lab/zpool /usr/sbin/zpool")?;
    let begun = here.run("date +%s")?;
    let began = here.expect("start", 0, &[]);
    let journal = format!("journalctl --no-pager --since @{} -t zfs-pool", begun.trim());
    println!("{}", here.run(&journal)?);
    began?;
    here.run(&format!("umount /usr/sbin/zpool && ip link set stor up && {journal} | grep 'was lost during the import'"))?;
    let marked = here.run("cibadmin --query --local --scope nodes")?;
    ensure!(marked.contains("hasan-dirty-san-pool"), "{} is not marked", there.node.name);
    await_until("the mark is gone", timers::CLUSTER, || {
        let nodes = here.run("cibadmin --query --local --scope nodes")?;
        if nodes.contains("hasan-dirty-san-pool") { bail!(nodes) } else { Ok(()) }
    })?;
    here.expect("monitor", 0, &[])?;
    Ok(())
}

/// Begins and ends a scrub again and again while monitors run; says how many monitors found the pool not well, and how often
/// each of the kernel's words for it was seen.
const SCRUBS: &str = "{ while :; do cat /proc/spl/kstat/zfs/san-pool/state; done; } > /run/words & reader=$!
    { for i in $(seq 6); do zpool scrub san-pool; zpool scrub -s san-pool; done; } > /dev/null 2>&1 & scrubs=$!
    wrong=0; while kill -0 $scrubs 2> /dev/null; do $monitor > /dev/null 2>&1 || wrong=$((wrong + 1)); done
    kill $reader; echo $wrong $(sort /run/words | uniq -c)";

/// Whenever a scrub begins, the kernel calls a pool that works OFFLINE for a moment: no monitor says so.
pub(crate) fn scrubs(lab: &Lab) -> Result<()> {
    let (here, _) = by_hand(lab)?;
    let script = format!("{}monitor='{AGENTS}/{POOL} monitor'\n{SCRUBS}", exports(""));
    let said = ssh::within(lab, here.node, timers::CLUSTER, &script)?;
    println!("monitors that found it not well, and the kernel's words: {}", said.trim());
    ensure!(said.contains("OFFLINE"), "no scrub was seen to begin: {said}");
    ensure!(said.starts_with("0 "), "a monitor took a scrub for a failure: {said}");
    Ok(())
}

/// All legs are lost: the monitor says so, and a stop fails; neither waits for the pool.
pub(crate) fn suspended(lab: &Lab) -> Result<()> {
    let (here, _) = by_hand(lab)?;
    here.expect("monitor", 0, &[])?;
    here.run(
        "systemctl stop hasan-backend-watch
         for leg in data-a1 data-a2 data-b1 data-b2; do
             sectors=$(blockdev --getsz /dev/mapper/$leg)
             dmsetup suspend --noflush --nolockfs $leg
             dmsetup load $leg --table \"0 $sectors error\"
             dmsetup resume $leg
         done
         (zfs set hasan:lost=1 san-pool > /dev/null 2>&1 &)",
    )?;
    await_until("the pool is suspended", timers::CLUSTER, || {
        let state = here.run("cat /proc/spl/kstat/zfs/san-pool/state")?;
        if state.trim() == "SUSPENDED" { Ok(()) } else { bail!(state) }
    })?;
    for action in ["monitor", "stop"] {
        // One that waited would say that it did not end in time.
        here.expect(action, 1, &["is SUSPENDED"])?;
    }
    Ok(())
}
