//! Makes the cluster out of freshly booted machines: installs hasan, makes the pool, runs the example's script, and logs
//! the client in.

use crate::machine::{MACHINES, Machine};
use crate::state::Lab;
use crate::{image, plug, ssh, timers};
use anyhow::{Context, Result, bail};
use quick_xml::Reader;
use quick_xml::events::Event;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::time::Duration;
use support::cache::digest;
use support::command::{await_until, run};

/// The target that the client uses, and the device that it gets.
pub(crate) const TARGET: &str = "iqn.2025-01.lab.home:hypervisor";
/// Its portal.
pub(crate) const PORTAL: &str = "10.40.40.10:3260";
/// The resources that move together.
pub(crate) const RESOURCES: [&str; 4] =
    ["zfs-pool", "luns-hypervisor", "vip-hypervisor", "door-hypervisor"];
/// The programs that the machines get.
const PROGRAMS: [&str; 7] = [
    "zfs-pool",
    "sync-iscsi-luns",
    "client-iscsi-tpg",
    "iscsi-backend-export",
    "iscsi-backend-health",
    "fence_smartplug",
    "lab-writer",
];

/// The passwords of the storage nodes for each other.
const BACKEND_CHAP: &str = r#"{"user": "legs", "password": "backend-canary-1", "mutual_user": "answer",
 "mutual_password": "backend-canary-2"}"#;

/// A key of all that the configured cluster is made of.
pub(crate) fn key(lab: &Lab) -> Result<String> {
    let mut paths: Vec<_> = PROGRAMS.iter().map(|name| lab.program(name)).collect();
    paths.push(lab.project.join("packaging"));
    let parts =
        ["image.sh", "cluster.vars", "pcs.py", "src/cluster.rs", "src/machine.rs", "src/disks.rs"];
    for part in parts {
        paths.push(lab.project.join("tests/lab").join(part));
    }
    digest(&paths).context("build the programs first: make build")
}

/// Puts hasan on the cluster's nodes.
pub(crate) fn install(lab: &Lab) -> Result<()> {
    let folder = lab.state.join("install");
    // What an earlier run left behind.
    let _ = fs::remove_dir_all(&folder);
    let script = lab.project.join("packaging/install").display().to_string();
    run(Duration::from_secs(60), &script, &[&folder.display().to_string()])?;
    let tar = lab.state.join("install.tar.gz");
    let (tar_name, folder_name) = (tar.display().to_string(), folder.display().to_string());
    let pack = ["-C", &folder_name, "--owner=0", "--group=0", "-czf", &tar_name, "."];
    run(Duration::from_secs(60), "tar", &pack)?;
    let bytes = fs::read(&tar)?;
    let writer = fs::read(lab.program("lab-writer"))?;
    on_each(&MACHINES, |machine| {
        if machine.name == "client" {
            let place = "cat > /usr/local/bin/lab-writer && chmod 755 /usr/local/bin/lab-writer";
            return ssh::feed(lab, machine, place, &writer);
        }
        // What the module's options say holds from the next boot on; until then it is said by hand.
        let unpack = "tar -C / --keep-directory-symlink -xzf - && systemctl daemon-reload && \
             for option in $(sed -n 's/^options zfs //p' /usr/lib/modprobe.d/hasan.conf); do \
                 path=/sys/module/zfs/parameters/${option%=*}; \
                 [ ! -e $path ] || echo ${option#*=} > $path; done";
        ssh::feed(lab, machine, unpack, &bytes)?;
        let keep = "umask 077; mkdir -p /etc/hasan; cat > /etc/hasan/plug.password";
        ssh::feed(lab, machine, keep, plug::PASSWORD.as_bytes())
    })?;
    on_each(&MACHINES[..2], |machine| serve_pcs(lab, machine))
}

/// Starts what makes pcs quick in a machine. It imports pcs while other things are done.
fn serve_pcs(lab: &Lab, machine: &Machine) -> Result<()> {
    let text = fs::read(lab.project.join("tests/lab/pcs.py"))?;
    let place = "cat > /usr/local/sbin/pcs && chmod 755 /usr/local/sbin/pcs && \
                 systemd-run --quiet --unit=lab-pcs /usr/local/sbin/pcs --serve";
    ssh::feed(lab, machine, place, &text)
}

/// Brings up the backend on both storage nodes: all four legs on each.
pub(crate) fn backend(lab: &Lab) -> Result<()> {
    let nodes = [("a", "b", 1, 2), ("b", "a", 2, 1)];
    for (own, peer, number, peer_number) in nodes {
        let machine = Machine::named(&format!("storage-{own}"))?;
        let text = backend_conf(own, peer, number, peer_number);
        ssh::put(lab, machine, "/etc/hasan/backend.conf", text.as_bytes())?;
        ssh::put(lab, machine, "/etc/hasan/backend-chap.json", BACKEND_CHAP.as_bytes())?;
        ssh::run(lab, machine, "chmod 600 /etc/hasan/backend-chap.json")?;
    }
    for unit in ["hasan-backend-export", "hasan-backend-watch"] {
        let enable = format!("systemctl enable --now {unit} 2>&1");
        on_each(&MACHINES[..2], |machine| ssh::run(lab, machine, &enable).map(|_| ()))?;
    }
    for (own, ..) in nodes {
        let machine = Machine::named(&format!("storage-{own}"))?;
        await_until(&format!("all legs are on storage-{own}"), timers::CLUSTER, || {
            let list = "ls /dev/mapper/data-a1 /dev/mapper/data-a2 /dev/mapper/data-b1 /dev/mapper/data-b2";
            ssh::run(lab, machine, list).map(|_| ())
        })?;
    }
    Ok(())
}

/// Does something on several machines at the same time.
fn on_each(machines: &[Machine], work: impl Fn(&Machine) -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            machines.iter().map(|machine| scope.spawn(|| work(machine))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no worker panics"))
    })
}

fn backend_conf(own: &str, peer: &str, number: u8, peer_number: u8) -> String {
    let iqn = "iqn.2025-01.lab.home";
    format!(
        "leg.data-{own}1 = /dev/disk/by-id/virtio-storage-{own}-d1\n\
         leg.data-{own}2 = /dev/disk/by-id/virtio-storage-{own}-d2\n\
         iqn = {iqn}:storage-{own}\n\
         portal = 10.10.10.{number}:3260\n\
         initiator = {iqn}:initiator-storage-{own}\n\
         chap_file = /etc/hasan/backend-chap.json\n\
         peer.node = storage-{peer}\n\
         peer.iqn = {iqn}:storage-{peer}\n\
         peer.portal = 10.10.10.{peer_number}:3260\n\
         peer.initiator = {iqn}:initiator-storage-{peer}\n\
         peer.legs = data-{peer}1 data-{peer}2\n\
         pool = san-pool\n"
    )
}

/// Makes the pool with two zvols on it, and gives it back.
pub(crate) fn pool(lab: &Lab) -> Result<()> {
    let script = "set -e
        legs=/dev/mapper
        zpool create -o multihost=on -o ashift=12 -o cachefile=none san-pool \
            mirror $legs/data-a1 $legs/data-b1 mirror $legs/data-a2 $legs/data-b2
        zfs create -p san-pool/iscsi/hypervisor
        zfs create -s -V 256M san-pool/iscsi/hypervisor/vm-101-disk-0
        zfs create -s -V 64M san-pool/iscsi/hypervisor/vm-102-disk-0
        zpool export san-pool";
    ssh::run(lab, Machine::named("storage-a")?, script).map(|_| ())
}

/// Makes the three nodes a cluster. pcs writes the configuration; its daemon, which would bring it to the other nodes,
/// takes minutes under emulation, so the lab brings it there.
pub(crate) fn membership(lab: &Lab) -> Result<()> {
    let first = Machine::named("storage-a")?;
    on_each(&MACHINES[..2], |machine| {
        await_until(&format!("pcs is served on {}", machine.name), timers::PCS, || {
            ssh::run(lab, machine, "test -S /run/lab-pcs").map(|_| ())
        })
    })?;
    let nodes: Vec<String> = MACHINES[..3]
        .iter()
        .map(|machine| format!("{} addr=10.20.20.{}", machine.name, machine.id))
        .collect();
    let setup = format!(
        "pcs cluster setup san-cluster {} totem token={} --corosync_conf /root/corosync.conf --overwrite >&2 && \
         cat /root/corosync.conf",
        nodes.join(" "),
        timers::TOKEN
    );
    let conf = ssh::run(lab, first, &setup)?;
    let mut key = [0; 256];
    fs::File::open("/dev/urandom")?.read_exact(&mut key)?;
    on_each(&MACHINES[..3], |machine| {
        ssh::put(lab, machine, "/etc/corosync/corosync.conf", conf.as_bytes())?;
        ssh::put(lab, machine, "/etc/corosync/authkey", &key)?;
        let start =
            "chmod 400 /etc/corosync/authkey && systemctl enable --now corosync pacemaker 2>&1";
        // SysV's scripts and three starts at once.
        ssh::within(lab, machine, timers::PCS, start).map(|_| ())
    })?;
    await_until("all nodes are members", timers::CLUSTER, || {
        let status = ssh::run(lab, first, "crm_mon --one-shot --output-as=xml")?;
        match status.matches("online=\"true\"").count() {
            3 if status.contains("with_quorum=\"true\"") => Ok(()),
            count => bail!("{count} members"),
        }
    })
}

/// Runs the example's script with the lab's values, and waits until all resources run.
pub(crate) fn configure(lab: &Lab) -> Result<()> {
    let first = Machine::named("storage-a")?;
    let vars = fs::read(lab.project.join("tests/lab/cluster.vars"))?;
    ssh::put(lab, first, "/root/cluster.vars", &vars)?;
    let script = "/usr/share/doc/hasan/cluster.sh /root/cluster.vars 2>&1";
    let said = ssh::within(lab, first, Duration::from_secs(1500), script)?;
    println!("{}", said.trim_end());
    await_placed(lab, first, None)?;
    Ok(())
}

/// Logs the client in to the target. A failover is a pause to it, not an error.
pub(crate) fn client(lab: &Lab) -> Result<()> {
    let script = format!(
        "set -e
        sed -i 's/^node.session.timeo.replacement_timeout.*/node.session.timeo.replacement_timeout = 3600/' \
            /etc/iscsi/iscsid.conf
        systemctl restart iscsid
        iscsiadm -m discovery -t st -p {PORTAL}
        iscsiadm -m node -T {TARGET} -p {PORTAL} --login
        udevadm settle -t 30
        ls {}",
        device(0)
    );
    let said = ssh::run(lab, Machine::named("client")?, &script)?;
    println!("{}", said.trim_end());
    Ok(())
}

/// The client's device of a LUN.
pub(crate) fn device(lun: u8) -> String {
    format!("/dev/disk/by-path/ip-{PORTAL}-iscsi-{TARGET}-lun-{lun}")
}

/// Number and serial of each LUN, as the client's kernel has them.
pub(crate) fn luns_of_client(lab: &Lab) -> Result<String> {
    let script = "for page in /sys/class/scsi_device/*/device/vpd_pg80; do \
                  lun=${page%/device/vpd_pg80}; echo ${lun##*:} $(tail -c +5 $page | tr -d '\\0'); done | sort";
    ssh::run(lab, Machine::named("client")?, script)
}

/// Where each resource runs, as a node sees it; an error if one does not run, or does not run well.
pub(crate) fn placement(lab: &Lab, from: &Machine) -> Result<BTreeMap<String, String>> {
    parse_placement(&ssh::run(lab, from, "crm_mon --one-shot --output-as=xml")?)
}

fn parse_placement(xml: &str) -> Result<BTreeMap<String, String>> {
    let mut reader = Reader::from_str(xml);
    let mut placement = BTreeMap::new();
    let mut resource = None;
    loop {
        match reader.read_event()? {
            Event::Start(element) | Event::Empty(element) => {
                let get = |name: &str| -> Option<String> {
                    let attribute = element.try_get_attribute(name).ok()??;
                    Some(attribute.value.into_owned())
                };
                match element.name().as_ref() {
                    "resource" => {
                        let name = get("id").unwrap_or_default();
                        let (role, failed) = (get("role"), get("failed"));
                        let is_well = role.as_deref() == Some("Started")
                            && failed.as_deref() == Some("false");
                        if RESOURCES.contains(&name.as_str()) && !is_well {
                            bail!("{name} is {role:?}, failed: {failed:?}");
                        }
                        // One that is starting has its node already.
                        resource = is_well.then_some(name);
                    }
                    "node" => {
                        if let (Some(resource), Some(node)) = (&resource, get("name")) {
                            placement.insert(resource.clone(), node);
                        }
                    }
                    _ => {}
                }
            }
            Event::End(element) if element.name().as_ref() == "resource" => resource = None,
            Event::Eof => return Ok(placement),
            _ => {}
        }
    }
}

/// Moves everything from the active node to the other one, and takes the first one back as a member.
pub(crate) fn move_away(lab: &Lab, from: &Machine, to: &Machine) -> Result<()> {
    ssh::within(lab, to, timers::PCS, &format!("pcs node standby {}", from.name))?;
    await_placed(lab, to, Some(to.name))?;
    // As `pcs node unstandby` does it, which takes minutes under emulation.
    let unstandby = format!("crm_attribute --node {} --name standby --delete", from.name);
    ssh::run(lab, to, &unstandby).map(|_| ())
}

/// Waits until all resources run on one node, on this one if it is given; returns its name.
pub(crate) fn await_placed(lab: &Lab, from: &Machine, on: Option<&str>) -> Result<String> {
    let mut node = String::new();
    await_until("all resources run on one node", timers::CLUSTER, || {
        let placement = placement(lab, from)?;
        let nodes: Vec<Option<&String>> =
            RESOURCES.iter().map(|resource| placement.get(*resource)).collect();
        let Some(first) = nodes[0] else { bail!("{placement:?}") };
        let together = nodes.iter().all(|each| *each == Some(first));
        if !together || on.is_some_and(|on| on != first) {
            bail!("{placement:?}");
        }
        node.clone_from(first);
        Ok(())
    })?;
    Ok(node)
}

/// Shows the cluster as an administrator sees it.
pub(crate) fn show(lab: &Lab, from: &Machine) -> Result<()> {
    println!(
        "{}",
        ssh::within(lab, from, timers::PCS, "pcs status --full 2>&1 || crm_mon -1")?.trim_end()
    );
    println!("image: {}", image::folder(lab)?.display());
    Ok(())
}
