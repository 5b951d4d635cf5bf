//! `sync-iscsi-luns`, action by action, on real kernels, beside people and programs that use targetcli.

use crate::machine::{self, Machine};
use crate::pool_checks::{AGENTS, CLIENT_SIDE, Hand, Said, by_hand};
use crate::state::Lab;
use crate::{cluster, ssh, timers};
use anyhow::{Result, bail, ensure};
use support::command::await_until;

const DATASET: &str = "san-pool/iscsi/hypervisor";

/// Syncs once; what others are at counts for so many seconds.
fn sync(here: &Hand<'_>, settle: u32) -> Result<Said> {
    let (agent, environment) = CLIENT_SIDE[1];
    let environment = format!(
        "{environment} OCF_RESKEY_names=proxmox OCF_RESKEY_settle={settle} OCF_CHECK_LEVEL=10"
    );
    here.act(agent, &environment, "monitor")
}

/// What the client sees after it has looked again: number, serial and size (512 bytes) of each LUN, and whether it is read-only.
fn client_sees(lab: &Lab) -> Result<String> {
    let client = Machine::named("client")?;
    let script = "iscsiadm -m session --rescan > /dev/null; udevadm settle -t 30
        for page in /sys/class/scsi_device/*/device/vpd_pg80; do
            device=${page%/vpd_pg80}; name=${device%/device}
            [ -d $device/block ] || continue
            echo ${name##*:} $(tail -c +5 $page | tr -d '\\0') $(cat $device/block/*/size $device/block/*/ro)
        done | sort -n";
    ssh::run(lab, client, script)
}

/// The LUNs of the group, as the kernel of the node has them: number and zvol.
fn served(here: &Hand<'_>) -> Result<String> {
    here.run(
        "cd /sys/kernel/config/target/iscsi/iqn.2025-01.lab.home:hypervisor/tpgt_1/lun
         for lun in lun_*; do
             for link in $lun/*; do
                 [ ! -L $link ] || echo ${lun#lun_} $(sed 's/.*zvol.//' $link/udev_path)
             done
         done | sort -n",
    )
}

/// What initiators see of the backstores, as the kernel of the node has it.
fn attributes(here: &Hand<'_>) -> Result<String> {
    here.run(
        "cd /sys/kernel/config/target/core
         for store in iblock_*/*/; do
             grep -q zvol $store/udev_path || continue
             echo $(basename $store) $(cat $store/attrib/block_size $store/attrib/emulate_model_alias) \
                 $(grep -o 'readonly: .' $store/info)
         done | sort",
    )
}

fn zvol_exists(here: &Hand<'_>, name: &str) -> Result<()> {
    await_until(&format!("{name} has its device"), timers::CLUSTER, || {
        here.run(&format!("test -b /dev/zvol/{DATASET}/{name}")).map(|_| ())
    })
}

/// New zvols come, grown ones grow, bad ones hold up nobody, and none of it is a failover.
pub(crate) fn syncs(lab: &Lab) -> Result<()> {
    let (here, _) = by_hand(lab)?;
    let before = client_sees(lab)?;
    ensure!(before.lines().count() == 2, "the client sees {before:?}");
    here.run(&format!(
        "zfs create -p {DATASET}/deep/er
         zfs create -s -V 32M -o readonly=on \"{DATASET}/deep/er/disk one\"
         zfs create -s -V 32M {DATASET}/off && zfs set hasan:export=off {DATASET}/off
         head -c 32 /dev/urandom > /root/key
         zfs create -s -V 32M -o encryption=on -o keyformat=raw -o keylocation=file:///root/key {DATASET}/locked
         zfs unload-key {DATASET}/locked || {{ udevadm settle; zfs unload-key {DATASET}/locked; }}
         zfs set volsize=512M {DATASET}/vm-101-disk-0"
    ))?;
    zvol_exists(&here, "deep/er/disk+one")?;
    let waiting = sync(&here, 3600)?;
    ensure!(waiting.code == 190 && waiting.text.contains("locked: its key is not loaded"));
    ensure!(served(&here)?.lines().count() == 2, "a zvol that was just made is served at once");
    let said = sync(&here, 0)?;
    ensure!(said.code == 190 && said.text.contains("1 not as wanted: "), "{}", said.text);
    let after = client_sees(lab)?;
    println!("the client saw:\n{before}and sees:\n{after}");
    let rows: Vec<Vec<&str>> = after.lines().map(|row| row.split_whitespace().collect()).collect();
    ensure!(rows.len() == 3 && rows[2][0] == "2", "a new LUN is not there");
    let read_only: Vec<&str> = rows.iter().filter_map(|row| row.get(3).copied()).collect();
    ensure!(read_only == ["0", "0", "1"], "what is read-only to the client: {read_only:?}");
    ensure!(rows[0][2] == (512_u64 * 2048).to_string(), "a grown LUN has its old size");
    let serials = |text: &str| -> Vec<String> {
        text.lines().take(2).filter_map(|row| row.split(' ').nth(1)).map(str::to_string).collect()
    };
    ensure!(serials(&before) == serials(&after), "serials have changed");
    // One that is switched off goes, and a list that cannot be had removes nothing.
    here.run(&format!("zfs set hasan:export=off '{DATASET}/deep/er/disk one'"))?;
    let environment =
        CLIENT_SIDE[1].1.replace("dataset=san-pool/iscsi/hypervisor", "dataset=san-pool/nope");
    let said =
        here.act(CLIENT_SIDE[1].0, &format!("{environment} OCF_CHECK_LEVEL=10"), "monitor")?;
    ensure!(
        said.code == 190 && served(&here)?.lines().count() == 3,
        "a missing dataset: {}",
        said.text
    );
    sync(&here, 0)?;
    ensure!(served(&here)?.lines().count() == 2, "a LUN that was switched off is there");
    explains(&here)
}

/// Two resources, and the dataset of one lies in that of the other: a zvol stays a LUN of the group that has it, the other
/// resource names it, and each stop ends well.
pub(crate) fn nested(lab: &Lab) -> Result<()> {
    let (here, _) = by_hand(lab)?;
    let (agent, outer) = CLIENT_SIDE[1];
    let inner = outer
        .replace("home:hypervisor", "home:inner")
        .replace(DATASET, &format!("{DATASET}/inner"));
    let expect = |environment: &str, action: &str, code: i32, words: &str| -> Result<()> {
        let said = here.act(agent, environment, action)?;
        let is_so = said.code == code && said.text.contains(words);
        ensure!(is_so, "{action} should exit {code} with {words:?}: {} {}", said.code, said.text);
        Ok(())
    };
    here.run(&format!("zfs create {DATASET}/inner && zfs create -s -V 32M {DATASET}/inner/disk"))?;
    zvol_exists(&here, "inner/disk")?;
    sync(&here, 0)?;
    ensure!(served(&here)?.lines().count() == 3, "the outer one has not taken the zvol");
    expect(&inner, "start", 1, "it is a LUN of iqn.2025-01.lab.home:hypervisor/tpgt_1 already")?;
    expect(&inner, "stop", 0, "")?;
    ensure!(served(&here)?.lines().count() == 3, "a stop of the inner one took a LUN");
    // The other way round.
    here.free_pool()?;
    expect(&inner, "start", 0, "")?;
    expect(outer, "start", 0, "")?;
    let said = sync(&here, 0)?;
    let words = "inner/disk: it is a LUN of iqn.2025-01.lab.home:inner/tpgt_1 already";
    ensure!(said.code == 190 && said.text.contains(words), "{}", said.text);
    ensure!(served(&here)?.lines().count() == 2, "the outer one shows what the inner one has");
    expect(outer, "stop", 0, "")?;
    expect(outer, "monitor", 7, "")?;
    expect(&inner, "monitor", 0, "")?;
    expect(&inner, "stop", 0, "")?;
    let left = here.run(
        "ls -d /sys/kernel/config/target/iscsi/iqn*; grep -l zvol /sys/kernel/config/target/core/*/*/udev_path || true",
    )?;
    ensure!(left.lines().count() == 1, "the stops leave {left}");
    Ok(())
}

fn explains(here: &Hand<'_>) -> Result<()> {
    let text = here.run(&format!("{AGENTS}/sync-iscsi-luns explain"))?;
    println!("{text}");
    ensure!(text.contains("not served: its key is not loaded") && text.contains("nothing to do"));
    here.run(&format!(
        "{AGENTS}/sync-iscsi-luns explain --json | python3 -c 'import json, sys; \
         assert len(json.load(sys.stdin)[0][\"rows\"]) == 5'"
    ))?;
    Ok(())
}

/// What Proxmox's ZFS-over-iSCSI plugin does over ssh: its LUNs are taken over as they are, and what it takes away is
/// not made again behind its back.
pub(crate) fn plugin(lab: &Lab) -> Result<()> {
    let (here, _) = by_hand(lab)?;
    let name = "san-pool-iscsi-hypervisor-vm-103-disk-0";
    let target = "/iscsi/iqn.2025-01.lab.home:hypervisor/tpg1/luns";
    let cli =
        |command: &str| ssh::within(lab, here.node, timers::PCS, &format!("targetcli {command}"));
    let create_lu = || -> Result<String> {
        let device = format!("/dev/zvol/{DATASET}/vm-103-disk-0");
        cli(&format!("/backstores/block create name={name} dev={device}"))?;
        ensure!(sync(&here, 60)?.code == 0, "a sync between the plugin's steps");
        cli(&format!("/backstores/block/{name} set attribute emulate_tpu=1"))?;
        cli(&format!("{target} create /backstores/block/{name}"))
    };
    here.run(&format!("zfs create -s -V 64M {DATASET}/vm-103-disk-0"))?;
    zvol_exists(&here, "vm-103-disk-0")?;
    println!("{}", create_lu()?.trim());
    ensure!(sync(&here, 60)?.code == 0, "a sync after the plugin's LUN");
    let properties = format!(
        "zfs get -Hp -s local -o property,value hasan:lun,hasan:serial,hasan:backstore {DATASET}/vm-103-disk-0"
    );
    let recorded = here.run(&properties)?;
    let serial = here.run(&format!(
        "sed 's/.*: //' /sys/kernel/config/target/core/iblock_*/{name}/wwn/vpd_unit_serial"
    ))?;
    println!("adopted:\n{recorded}");
    ensure!(recorded.contains(&format!("hasan:serial\t{}", serial.trim())), "serial {serial}");
    ensure!(recorded.contains("hasan:lun\t2"), "the plugin's LUN was 2");

    // A rollback: the LUN goes, the zvol is rolled back, the LUN comes again with another serial.
    here.run(&format!("zfs snapshot {DATASET}/vm-103-disk-0@s"))?;
    cli(&format!("{target} delete lun2"))?;
    cli(&format!("/backstores/block delete {name}"))?;
    ensure!(sync(&here, 60)?.code == 0, "a sync in the middle of a rollback");
    ensure!(served(&here)?.lines().count() == 2, "a LUN that was taken away came back at once");
    here.run(&format!("zfs rollback {DATASET}/vm-103-disk-0@s"))?;
    create_lu()?;
    ensure!(sync(&here, 60)?.code == 0, "a sync after a rollback");
    let again = here.run(&properties)?;
    ensure!(again != recorded && again.contains("hasan:lun\t2"), "after a rollback: {again}");

    let saved = here.run("cat /etc/rtslib-fb-target/saveconfig.json")?;
    ensure!(saved.contains(&format!("/backstores/block/{name}")), "the saved file: {saved}");
    here.run(&format!("{AGENTS}/iscsi-backend-export strip"))?;
    let stripped = here.run("cat /etc/rtslib-fb-target/saveconfig.json")?;
    ensure!(!stripped.contains("/dev/zvol/"), "stripped, the saved file is {stripped}");
    ensure!(sync(&here, 60)?.code == 0, "a sync after the file was stripped");

    // One more, which no sync has seen yet.
    here.run(&format!("zfs create -s -V 64M {DATASET}/vm-104-disk-0"))?;
    zvol_exists(&here, "vm-104-disk-0")?;
    cli(&format!(
        "/backstores/block create name=theirs dev=/dev/zvol/{DATASET}/vm-104-disk-0 readonly=true"
    ))?;
    cli("/backstores/block/theirs set attribute block_size=4096")?;
    // A port group of theirs, without which the kernel does not let the backstore go.
    here.run("cd /sys/kernel/config/target/core/iblock_*/theirs/alua; mkdir theirs; echo 7 > theirs/tg_pt_gp_id")?;
    cli(&format!("{target} create /backstores/block/theirs"))?;
    survive_a_move(lab, &here)?;
    for name in [name, "theirs"] {
        let is_there = here.run(&format!("ls -d /sys/kernel/config/target/core/*/{name}"));
        ensure!(is_there.is_ok(), "the name {name} has changed");
    }

    // It deletes for good.
    cli(&format!("{target} delete lun2"))?;
    cli(&format!("/backstores/block delete {name}"))?;
    here.run(&format!("zfs destroy -r {DATASET}/vm-103-disk-0"))?;
    ensure!(sync(&here, 60)?.code == 0, "a sync after a delete");
    ensure!(served(&here)?.lines().count() == 3, "a deleted LUN is there");
    cluster::luns_of_client(lab).map(|_| ())
}

/// The LUNs go, and come back with their numbers and serials.
fn survive_a_move(lab: &Lab, here: &Hand<'_>) -> Result<()> {
    let (agent, environment) = CLIENT_SIDE[1];
    let (before, attributes_before) = (client_sees(lab)?, attributes(here)?);
    here.free_pool()?;
    let held = here.run("grep -l zvol /sys/kernel/config/target/core/*/*/udev_path || true")?;
    ensure!(held.is_empty(), "after a stop: {held}");
    let saved = here.run("cat /etc/rtslib-fb-target/saveconfig.json")?;
    ensure!(!saved.contains("hypervisor"), "after a stop the saved file is {saved}");
    let environment = format!("{environment} OCF_RESKEY_names=proxmox");
    ensure!(here.act(agent, &environment, "start")?.code == 0, "a start");
    let (agent, environment) = CLIENT_SIDE[0];
    ensure!(here.act(agent, environment, "start")?.code == 0, "the door");
    await_until("the client sees the same", timers::CLUSTER, || {
        let after = client_sees(lab)?;
        if after == before { Ok(()) } else { bail!("{before} before, {after} now") }
    })?;
    let attributes = attributes(here)?;
    ensure!(attributes == attributes_before, "{attributes_before} before, {attributes} now");
    println!("what initiators see of the backstores, before and after:\n{attributes}");
    Ok(())
}

const RESTORE: &str = "rtslib-fb-targetctl";
const THEIRS: &str = "iqn.2025-01.lab.home:theirs";

/// The distribution's unit that restores targetcli's configuration: while a node serves it is held back; at a boot it
/// restores what others have made, and nothing of ours, whatever the file says.
pub(crate) fn restore(lab: &Lab) -> Result<()> {
    let (here, there) = by_hand(lab)?;
    let before = client_sees(lab)?;
    let restart = format!(
        "systemctl restart {RESTORE}; systemctl stop {RESTORE}; journalctl --sync; \
         journalctl --boot -o cat | grep 'configuration are not restored'"
    );
    println!("{}", ssh::within(lab, here.node, timers::PCS, &restart)?.trim_end());
    ensure!(client_sees(lab)? == before, "a restart of {RESTORE} cost the client its LUNs");

    let create = format!(
        "set -e; targetcli /backstores/fileio create theirs /root/theirs 8M
         targetcli /iscsi create {THEIRS}; targetcli /iscsi/{THEIRS}/tpg1/luns create /backstores/fileio/theirs
         targetcli saveconfig; systemctl -q enable {RESTORE}"
    );
    ssh::within(lab, there.node, timers::PCS, &create)?;
    // As it would be after a loss of power on the active node, with what other people have there, too.
    let active = here.run("cat /etc/rtslib-fb-target/saveconfig.json")?;
    ssh::put(lab, there.node, "/root/active.json", active.as_bytes())?;
    there.run(
        "python3 -c 'import json
path = \"/etc/rtslib-fb-target/saveconfig.json\"
ours, theirs = json.load(open(\"/root/active.json\")), json.load(open(path))
for key in \"storage_objects\", \"targets\": theirs[key] += ours[key]
json.dump(theirs, open(path, \"w\"))'
         grep -q hypervisor /etc/rtslib-fb-target/saveconfig.json && sync",
    )?;
    machine::kill(lab, there.node)?;
    machine::boot(lab, there.node)?;
    ssh::await_one(lab, there.node)?;
    await_until("the export is complete", timers::CLUSTER, || {
        // Pacemaker leaves it alone, and has not started it since the boot.
        let said = there.act("iscsi-backend-export", "", "start")?;
        if said.code == 0 { Ok(()) } else { bail!(said.text) }
    })?;
    let targets = there.run("ls -d /sys/kernel/config/target/iscsi/iqn*")?;
    println!("after a boot there are:\n{targets}");
    ensure!(targets.contains(THEIRS), "the target of others is not restored");
    ensure!(!targets.contains("hypervisor"), "the client's target was restored");
    let devices = there.run("cat /sys/kernel/config/target/core/*/*/udev_path")?;
    ensure!(!devices.contains("zvol"), "zvols were restored: {devices}");
    Ok(())
}

/// Killed between any two of its steps, a start or a stop leaves nothing that the next action cannot settle.
pub(crate) fn cut(lab: &Lab) -> Result<()> {
    let (here, _) = by_hand(lab)?;
    let (agent, environment) = CLIENT_SIDE[1];
    here.free_pool()?;
    let expect = |action: &str, codes: &[i32]| -> Result<()> {
        let said = here.act(agent, environment, action)?;
        ensure!(codes.contains(&said.code), "{action} after a cut: {}", said.text);
        Ok(())
    };
    for action in ["start", "stop"] {
        for steps in 1.. {
            if action == "stop" {
                expect("start", &[0])?;
            }
            let is_whole = here.cut(agent, environment, action, steps)?;
            expect("monitor", &[0, 1, 7])?;
            // Whatever is there: a start completes it, and a stop takes it all away.
            if steps % 2 == 0 {
                expect("start", &[0])?;
                ensure!(served(&here)?.lines().count() == 2, "a start after a cut is not whole");
            }
            expect("stop", &[0])?;
            let left = here.run(
                "ls -d /sys/kernel/config/target/iscsi/iqn*; grep -l zvol /sys/kernel/config/target/core/*/*/udev_path; \
                 cat /sys/kernel/rcu_expedited",
            )?;
            ensure!(left.lines().count() == 2 && left.ends_with("0\n"), "a stop leaves {left}");
            if is_whole {
                ensure!(steps > 4, "{action} has more than {steps} steps");
                break;
            }
        }
    }
    Ok(())
}
