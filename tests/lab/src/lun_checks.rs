//! `sync-iscsi-luns`, action by action, on real kernels, beside people and programs that use targetcli.

use crate::command::await_until;
use crate::machine::Machine;
use crate::pool_checks::{AGENTS, CLIENT_SIDE, Hand, Said, by_hand};
use crate::state::Lab;
use crate::{cluster, ssh, timers};
use anyhow::{Result, ensure};

const DATASET: &str = "san-pool/iscsi/hypervisor";

/// Syncs once; what others are at counts for so many seconds.
fn sync(here: &Hand<'_>, settle: u32) -> Result<Said> {
    let (agent, environment) = CLIENT_SIDE[1];
    let environment = format!(
        "{environment} OCF_RESKEY_names=proxmox OCF_RESKEY_settle={settle} OCF_CHECK_LEVEL=10"
    );
    here.act(agent, &environment, "monitor")
}

/// What the client sees after it has looked again: number, serial and size (512 bytes) of each LUN.
fn client_sees(lab: &Lab) -> Result<String> {
    let client = Machine::named("client")?;
    let script = "iscsiadm -m session --rescan > /dev/null; udevadm settle -t 30
        for page in /sys/class/scsi_device/*/device/vpd_pg80; do
            device=${page%/vpd_pg80}; name=${device%/device}
            [ -d $device/block ] || continue
            echo ${name##*:} $(tail -c +5 $page | tr -d '\\0') $(cat $device/block/*/size)
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

fn zvol_exists(here: &Hand<'_>, name: &str) -> Result<()> {
    await_until(&format!("{name} has its device"), timers::CLUSTER, || {
        here.run(&format!("test -b /dev/zvol/{DATASET}/{name}"))
            .map(|_| ())
            .map_err(|error| format!("{error:#}"))
    })
}

/// New zvols come, grown ones grow, bad ones hold up nobody, and none of it is a failover.
pub(crate) fn syncs(lab: &Lab) -> Result<()> {
    let (here, _) = by_hand(lab)?;
    let before = client_sees(lab)?;
    ensure!(before.lines().count() == 2, "the client sees {before:?}");
    here.run(&format!(
        "zfs create -p {DATASET}/deep/er
         zfs create -s -V 32M \"{DATASET}/deep/er/disk one\"
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

    // Its LUNs survive a stop and a start, with their numbers, names and serials.
    let (agent, environment) = CLIENT_SIDE[1];
    let before = client_sees(lab)?;
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
        let after = client_sees(lab).map_err(|error| format!("{error:#}"))?;
        if after == before { Ok(()) } else { Err(format!("{before} before, {after} now")) }
    })?;
    ensure!(
        here.run(&format!("ls -d /sys/kernel/config/target/core/*/{name}")).is_ok(),
        "a name has changed"
    );

    // It deletes for good.
    cli(&format!("{target} delete lun2"))?;
    cli(&format!("/backstores/block delete {name}"))?;
    here.run(&format!("zfs destroy -r {DATASET}/vm-103-disk-0"))?;
    ensure!(sync(&here, 60)?.code == 0, "a sync after a delete");
    ensure!(served(&here)?.lines().count() == 2, "a deleted LUN is there");
    cluster::luns_of_client(lab).map(|_| ())
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

/// How long things took with many LUNs, seconds of the emulated machine.
#[derive(Debug)]
pub(crate) struct Times {
    /// One operation after the other, by a program that does nothing else.
    bare_up: f64,
    bare_down: f64,
    /// The agent's.
    start: f64,
    stop: f64,
    sync: f64,
    /// `zfs get` of all that the agent asks for, in which a sync that has nothing to do spends its time.
    list: f64,
}

impl Times {
    /// The shorter time of each: a machine that others use as well makes things slow now and then, but never fast.
    fn best(self, other: &Times) -> Times {
        Times {
            bare_up: self.bare_up.min(other.bare_up),
            bare_down: self.bare_down.min(other.bare_down),
            start: self.start.min(other.start),
            stop: self.stop.min(other.stop),
            sync: self.sync.min(other.sync),
            list: self.list.min(other.list),
        }
    }
}

/// Up and down of many LUNs, by the agent and by a bare loop of the same operations in the same machine.
pub(crate) fn measure(lab: &Lab, count: u32) -> Result<Times> {
    const IQN: &str = "iqn.2025-01.lab.home:many";
    let (here, _) = by_hand(lab)?;
    let program = std::fs::read(lab.program("lab-luns"))?;
    let place = "cat > /usr/local/bin/lab-luns && chmod 755 /usr/local/bin/lab-luns";
    ssh::feed(lab, here.node, place, &program)?;
    let make = format!(
        "zfs create -o volmode=dev san-pool/many
         for i in $(seq {count}); do zfs create -s -V 8M san-pool/many/v$i; done; udevadm settle -t 100"
    );
    ssh::within(lab, here.node, timers::PCS * count.div_ceil(200), &make)?;
    await_until("all zvols have their devices", timers::CLUSTER, || {
        let there =
            here.run("ls /dev/zvol/san-pool/many | wc -l").map_err(|error| format!("{error:#}"))?;
        if there.trim() == count.to_string() { Ok(()) } else { Err(there) }
    })?;
    let bare = |verb: &str| -> Result<f64> {
        let line = format!("lab-luns {verb} {IQN} /dev/zvol/san-pool/many");
        Ok(ssh::within(lab, here.node, timers::PCS, &line)?.trim().parse::<f64>()? / 1000.0)
    };
    let act = |action: &str, more: &str| -> Result<f64> {
        let environment = format!(
            "OCF_RESKEY_iqn={IQN} OCF_RESKEY_dataset=san-pool/many OCF_RESKEY_generate_node_acls=1 {more}"
        );
        let said = here.timed("sync-iscsi-luns", &environment, action)?;
        ensure!(said.0 == 0, "{action} of {count} LUNs: exit {}", said.0);
        Ok(said.1)
    };
    let columns =
        "type,guid,volmode,keystatus,receive_resume_token,creation,hasan:lun,hasan:serial";
    let list = format!(
        "begin=$(date +%s%N); zfs get -Hp -r -t filesystem,volume {columns} san-pool/many > /dev/null; \
         echo $(( $(date +%s%N) - begin ))"
    );
    // The first start gives identities; the figures are of those after it.
    act("start", "")?;
    act("stop", "")?;
    let round = || -> Result<Times> {
        let times = Times {
            bare_up: bare("up")?,
            bare_down: bare("down")?,
            start: act("start", "")?,
            sync: act("monitor", "OCF_CHECK_LEVEL=10")?,
            list: here.run(&list)?.trim().parse::<f64>()? / 1e9,
            stop: act("stop", "")?,
        };
        println!("{count} LUNs: {times:.2?}");
        Ok(times)
    };
    let mut times = round()?;
    for _ in 1..3 {
        times = times.best(&round()?);
    }
    let held = here.run("ls /sys/kernel/config/target/core; cat /sys/kernel/rcu_expedited")?;
    ensure!(
        held.lines().filter(|line| line.starts_with("iblock_")).count() == 4
            && held.ends_with("0\n"),
        "{held}"
    );
    println!("{count} LUNs, the best of three: {times:.2?}");
    Ok(times)
}

/// The agent is in the range of a program that does only what must be done: a start that waited for the kernel or for
/// the disk at each LUN would take many times as long, and so would a stop that waits for each grace period.
pub(crate) fn many(lab: &Lab) -> Result<()> {
    let times = measure(lab, 100)?;
    ensure!(times.start <= 2.0 * (times.bare_up + times.list), "a start is slow: {times:.2?}");
    ensure!(times.sync <= times.start, "a sync is slow: {times:.2?}");
    ensure!(times.stop <= times.bare_down, "a stop is slow: {times:.2?}");
    Ok(())
}
