//! Two VLANs, one open to everyone and one with a list and passwords, and a guest of QEMU's own initiator; all of it moves,
//! and is taken over, and nobody loses a disk, a serial or a reservation.

use crate::access_checks::set_password;
use crate::load::Writer;
use crate::machine::{self, Machine};
use crate::scenarios::{BLOCKS, await_healed, fresh_cluster, judge, other};
use crate::state::Lab;
use crate::{cluster, guest, ssh, timers};
use anyhow::{Result, bail, ensure};
use support::command::{await_until, stage};

const PORTAL: &str = "10.30.30.10:3260";
const RESOURCES: [&str; 3] = ["luns-end", "vip-end", "door-end"];
/// Of the guest, which is slow.
const GUEST_BLOCKS: u64 = 50;

/// The second VLAN: end users, with a list of one and its password.
fn add_vlan(lab: &Lab, active: &Machine) -> Result<()> {
    let secrets = r#"{"initiators": {"iqn.2025-01.lab.home:initiator-client": {"user": "end", "password": "lab-end-secret"}}}"#;
    for node in [active, other(active)?] {
        ssh::put(lab, node, "/etc/hasan/chap-end.json", secrets.as_bytes())?;
        ssh::run(lab, node, "chmod 600 /etc/hasan/chap-end.json")?;
    }
    let target = cluster::TARGET;
    let script = format!(
        "set -e
        zfs create -p san-pool/iscsi/end
        zfs create -s -V 64M san-pool/iscsi/end/files
        pcs resource create luns-end ocf:hasan:sync-iscsi-luns iqn={target} tpg=2 dataset=san-pool/iscsi/end vlan=end \
            initiators=iqn.2025-01.lab.home:initiator-client chap_file=/etc/hasan/chap-end.json \
            op start timeout=300s op stop timeout=300s op monitor interval=15s timeout=120s --disabled
        pcs resource create vip-end ocf:heartbeat:IPaddr2 ip=10.30.30.10 cidr_netmask=24 nic=end \
            op start timeout=120s op stop timeout=120s op monitor interval=15s timeout=120s --disabled
        pcs resource create door-end ocf:hasan:client-iscsi-tpg iqn={target} tpg=2 portals={PORTAL} \
            op start timeout=120s op stop timeout=120s op monitor interval=15s timeout=120s --disabled
        pcs resource group add vlan-end luns-end vip-end door-end
        pcs constraint colocation add vlan-end with zfs-pool
        pcs constraint order zfs-pool then vlan-end
        pcs constraint location add never-vlan-end vlan-end quorum-c -INFINITY resource-discovery=never
        pcs resource enable luns-end vip-end door-end"
    );
    ssh::within(lab, active, timers::PCS, &format!("{{ {script}; }} 2>&1"))?;
    await_second(lab, active, active)
}

/// Waits until the second VLAN is served by a node, too.
fn await_second(lab: &Lab, from: &Machine, on: &Machine) -> Result<()> {
    await_until("the second VLAN is served", timers::CLUSTER, || {
        let placement = cluster::placement(lab, from)?;
        let is_there = |name: &&str| placement.get(*name).is_some_and(|node| node == on.name);
        if RESOURCES.iter().all(is_there) { Ok(()) } else { bail!("{placement:?}") }
    })
}

fn device() -> String {
    format!("/dev/disk/by-path/ip-{PORTAL}-iscsi-{}-lun-0", cluster::TARGET)
}

fn log_in(lab: &Lab) -> Result<()> {
    let node = format!("iscsiadm -m node -T {} -p {PORTAL}", cluster::TARGET);
    let script = format!(
        "set -e
        iscsiadm -m discovery -t st -p {PORTAL}
        {}
        {node} --login
        udevadm settle -t 30
        ls {}",
        set_password(&node, "end", "lab-end-secret"),
        device()
    );
    println!("{}", ssh::run(lab, Machine::named("client")?, &script)?.trim_end());
    Ok(())
}

/// A reservation that is to be kept over a loss of power.
fn reserve(lab: &Lab) -> Result<()> {
    let script = format!(
        "set -e; D={}
        sg_persist --no-inquiry --out --register --param-sark=0x1ab --param-aptpl $D
        sg_persist --no-inquiry --out --reserve --param-rk=0x1ab --prout-type=5 $D",
        device()
    );
    ssh::run(lab, Machine::named("client")?, &script).map(|_| ())
}

/// What the client is told of the reservation on the second VLAN's LUN.
fn reservation(lab: &Lab) -> Result<String> {
    let device = device();
    let script = format!(
        "sg_persist --no-inquiry --in --read-keys {device} | grep 0x; \
         sg_persist --no-inquiry --in --read-reservation {device} | grep -E 'Key|scope'"
    );
    ssh::run(lab, Machine::named("client")?, &script)
}

pub(crate) fn two_vlans(lab: &Lab) -> Result<()> {
    let first = fresh_cluster(lab)?;
    let second = other(first)?;
    stage("a second VLAN, with a password", || add_vlan(lab, first))?;
    log_in(lab)?;
    reserve(lab)?;
    let before = (cluster::luns_of_client(lab)?, reservation(lab)?);
    println!("LUNs:\n{}reservation:\n{}", before.0, before.1);
    ensure!(before.1.contains("0x1ab"), "there is no reservation");
    stage("a guest of QEMU's initiator begins to write", || {
        guest::start(lab, 1)?;
        guest::await_more(lab, GUEST_BLOCKS)
    })?;
    let mut writers = [Writer::start(lab)?, Writer::start_on(lab, device())?];
    for writer in &mut writers {
        writer.await_more(BLOCKS)?;
    }
    let mut check = |what: &str| -> Result<()> {
        for writer in &mut writers {
            writer.await_more(BLOCKS)?;
        }
        guest::await_more(lab, GUEST_BLOCKS)?;
        let now = (cluster::luns_of_client(lab)?, reservation(lab)?);
        ensure!(now == before, "{what}: {before:?} before, {now:?} after");
        Ok(())
    };
    stage(&format!("standby of {}", first.name), || {
        cluster::move_away(lab, first, second)?;
        await_second(lab, second, second)?;
        check("a planned move")
    })?;
    stage(&format!("{} dies, {} takes over", second.name, first.name), || {
        // A node that bears a mark would wait for the other one, and rightly so.
        await_healed(lab, second, first)?;
        machine::kill(lab, second)?;
        cluster::await_placed(lab, first, Some(first.name))?;
        await_second(lab, first, first)?;
        check("a crash")
    })?;
    stage(&format!("{} returns", second.name), || {
        ssh::await_one(lab, second)?;
        await_healed(lab, first, second)
    })?;
    let guests = guest::acks(lab);
    guest::stop(lab);
    println!("the guest: {} blocks acknowledged, {} I/O errors", guests.count, guests.errors.len());
    ensure!(guests.errors.is_empty(), "the guest saw {:?}", guests.errors);
    for writer in writers {
        judge(lab, &writer.stop()?)?;
    }
    Ok(())
}
