//! Many LUNs: `sync-iscsi-luns` beside a bare loop of the same operations, and beside what people use today.

use crate::pool_checks::{Hand, by_hand};
use crate::snapshot::{self, Kind};
use crate::state::Lab;
use crate::{cluster, ssh, timers};
use anyhow::{Result, bail, ensure};
use support::command::{await_until, stage};

const IQN: &str = "iqn.2025-01.lab.home:many";
/// What the benchmark measures, to show how it grows.
const COUNTS: [u32; 3] = [15, 300, 1000];
/// For the programs that need seconds for each LUN.
const FEW: u32 = 5;
/// Rounds of the benchmark; the check's limits lie far from what is measured.
const ROUNDS: u32 = 3;
const ROUNDS_OF_CHECK: u32 = 2;
/// Syncs and lists in each round.
const TRIES: u32 = 3;
/// What the agent asks `zfs get` for (its `PROPERTIES`), so that what is left of a sync is its own.
const ROWS: &str = "name,property,value,source";
const COLUMNS: &str = "type,guid,volmode,readonly,keystatus,receive_resume_token,creation,hasan:lun,hasan:serial,hasan:backstore,\
                       hasan:gone,hasan:reservations,hasan:export,hasan:next-lun";

/// How long things took, seconds of the emulated machine.
#[derive(Debug)]
struct Times {
    /// One operation after the other, by a program that does nothing else.
    bare_up: f64,
    bare_down: f64,
    /// The agent's.
    start: f64,
    stop: f64,
    /// The first after a start, which reads each LUN.
    first_sync: f64,
    /// One that sees what the first has left.
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
            first_sync: self.first_sync.min(other.first_sync),
            sync: self.sync.min(other.sync),
            list: self.list.min(other.list),
        }
    }
}

/// A hundred LUNs. The agent is in the range of a program that does only what must be done: a start that waited for the
/// disk at each LUN would take many times as long, and so would a stop that waits for each grace period.
pub(crate) fn hundred(lab: &Lab) -> Result<()> {
    let (here, _) = by_hand(lab)?;
    place_loop(&here)?;
    make_zvols(&here, 100)?;
    let times = measure(&here, 100, ROUNDS_OF_CHECK)?;
    ensure!(times.start <= 2.0 * (times.bare_up + times.list), "a start is slow: {times:.2?}");
    ensure!(times.first_sync <= times.start, "a sync is slow: {times:.2?}");
    ensure!(times.stop <= times.bare_down, "a stop is slow: {times:.2?}");
    Ok(())
}

/// How it grows, on a pool that is made once and kept.
pub(crate) fn bench(lab: &Lab) -> Result<()> {
    let key = cluster::key(lab)?;
    if !snapshot::folder(lab, Kind::Luns, &key).is_dir() {
        let (here, _) = by_hand(lab)?;
        place_loop(&here)?;
        for count in COUNTS {
            stage(&format!("{count} zvols"), || make_zvols(&here, count))?;
        }
        snapshot::save(lab, Kind::Luns, &key)?;
    }
    snapshot::load(lab, Kind::Luns, &key)?;
    ssh::await_all(lab)?;
    let here = Hand::on_active(lab)?;
    rivals(&here)?;
    COUNTS.iter().try_for_each(|count| measure(&here, *count, ROUNDS).map(|_| ()))
}

fn place_loop(here: &Hand<'_>) -> Result<()> {
    let program = std::fs::read(here.lab.program("lab-luns"))?;
    let place = "cat > /usr/local/bin/lab-luns && chmod 755 /usr/local/bin/lab-luns";
    ssh::feed(here.lab, here.node, place, &program).map(|_| ())
}

fn dataset(count: u32) -> String {
    format!("san-pool/many-{count}")
}

/// Makes zvols by ZFS's own library, in one process, many of them in a transaction group: a program for each, one after the
/// other, would take more than a second of emulated time.
const MAKE: &str = r#"
import ctypes, sys
from concurrent.futures import ThreadPoolExecutor
nvpair, core = ctypes.CDLL("libnvpair.so.3"), ctypes.CDLL("libzfs_core.so.3")
core.libzfs_core_init()

def make(number):
    values = ctypes.c_void_p()
    nvpair.nvlist_alloc(ctypes.byref(values), 1, 0)
    nvpair.nvlist_add_uint64(values, b"volsize", ctypes.c_uint64(8 << 20))
    name = f"{sys.argv[1]}/v{number}".encode()
    code = core.lzc_create(name, 3, values, None, 0)  # 3: DMU_OST_ZVOL
    return f"{name}: {code}" if code else ""

with ThreadPoolExecutor(16) as pool:
    wrong = [each for each in pool.map(make, range(1, int(sys.argv[2]) + 1)) if each]
if wrong:
    sys.exit("; ".join(wrong))
"#;

/// Of zvols that are made at one time udev cannot name some, since it finds ZFS busy: it comes after them, and takes one at
/// a time.
const UDEV_LATER: &str = "udevadm control --stop-exec-queue --children-max=1";
const UDEV_NOW: &str = "udevadm control --start-exec-queue";
const UDEV_AS_BEFORE: &str = "systemctl restart systemd-udevd";

/// Sparse zvols in a dataset of their own, with the identities that the first start gives.
fn make_zvols(here: &Hand<'_>, count: u32) -> Result<()> {
    let dataset = dataset(count);
    here.run(&format!("zfs create -o volmode=dev {dataset}"))?;
    ssh::put(here.lab, here.node, "/root/make-zvols.py", MAKE.as_bytes())?;
    let make =
        format!("set -e; {UDEV_LATER}; python3 /root/make-zvols.py {dataset} {count}; {UDEV_NOW}");
    ssh::within(here.lab, here.node, timers::CLUSTER * 2, &make)?;
    await_until("all zvols have their devices", timers::CLUSTER * 2, || {
        let there = here.run(&format!("ls /dev/zvol/{dataset} | wc -l"))?;
        if there.trim() == count.to_string() { Ok(()) } else { bail!(there) }
    })?;
    here.run(UDEV_AS_BEFORE)?;
    // A start that is cut off by its time has written down what it could.
    await_until("all zvols have their identities", timers::CLUSTER * 2, || {
        act(here, count, "start", "").map(|_| ())
    })?;
    act(here, count, "stop", "").map(|_| ())
}

/// Runs an action of the agent over so many zvols; returns the seconds that it took.
fn act(here: &Hand<'_>, count: u32, action: &str, more: &str) -> Result<f64> {
    settle(here)?;
    let environment = format!(
        "OCF_RESKEY_iqn={IQN} OCF_RESKEY_dataset={} OCF_RESKEY_generate_node_acls=1 \
         OCF_RESKEY_CRM_meta_timeout=380000 {more}",
        dataset(count)
    );
    let (code, seconds) = here.timed("sync-iscsi-luns", &environment, action)?;
    ensure!(code == 0, "{action} of {count} LUNs: exit {code}");
    Ok(seconds)
}

/// Up and down by the agent and by the loop, several rounds of each beside the other.
fn measure(here: &Hand<'_>, count: u32, rounds: u32) -> Result<Times> {
    let dataset = dataset(count);
    let bare = |verb: &str| -> Result<f64> {
        settle(here)?;
        let line = format!("lab-luns {verb} {IQN} /dev/zvol/{dataset}");
        Ok(ssh::within(here.lab, here.node, timers::PCS, &line)?.trim().parse::<f64>()? / 1000.0)
    };
    let list =
        format!("zfs get -Hp -r -t filesystem,volume -o {ROWS} {COLUMNS} {dataset} > /dev/null");
    let sync = || act(here, count, "monitor", "OCF_CHECK_LEVEL=10");
    let round = || -> Result<Times> {
        let (bare_up, bare_down) = (bare("up")?, bare("down")?);
        let start = act(here, count, "start", "")?;
        let first_sync = sync()?;
        // They are nearly the same, so that chance tells them apart in one try.
        let (mut each_sync, mut each_list) = (f64::INFINITY, f64::INFINITY);
        for _ in 0..TRIES {
            each_sync = each_sync.min(sync()?);
            each_list = each_list.min(seconds(here, &list)?);
        }
        let stop = act(here, count, "stop", "")?;
        Ok(Times { bare_up, bare_down, start, stop, first_sync, sync: each_sync, list: each_list })
    };
    let mut times = round()?;
    for _ in 1..rounds {
        times = times.best(&round()?);
    }
    let held = here.run("ls /sys/kernel/config/target/core; cat /sys/kernel/rcu_expedited")?;
    let stores = held.lines().filter(|line| line.starts_with("iblock_")).count();
    let shown = here.run("ls /dev/zvol/san-pool/iscsi/hypervisor | wc -l")?;
    let own: usize = shown.trim().parse()?;
    ensure!(stores == own + 2 && held.ends_with("0\n"), "a stop has left {held}");
    println!(
        "{count} LUNs, the best of {rounds}: {times:.2?}; start {:.2} of the loop, stop {:.2} of it, sync without its list {:.3} of the start",
        times.start / times.bare_up,
        times.stop / times.bare_down,
        (times.sync - times.list) / times.start,
    );
    Ok(times)
}

/// Waits until udev has looked at each zvol that was just let go, which would slow down whatever comes next.
fn settle(here: &Hand<'_>) -> Result<()> {
    ssh::within(here.lab, here.node, timers::CLUSTER, "udevadm settle --timeout=300").map(|_| ())
}

/// The seconds that a command takes in the machine.
fn seconds(here: &Hand<'_>, command: &str) -> Result<f64> {
    let line = format!(
        "set -e; begin=$(date +%s%N); {{ {command}; }} > /dev/null; echo $(( $(date +%s%N) - begin ))"
    );
    Ok(ssh::within(here.lab, here.node, timers::PCS, &line)?.trim().parse::<f64>()? / 1e9)
}

/// The same few LUNs by the agent, by one run of targetcli, and by the agent that people use today.
fn rivals(here: &Hand<'_>) -> Result<()> {
    let device = |number: u32| format!("/dev/zvol/{}/v{number}", dataset(COUNTS[0]));
    let numbers = || 1..=FEW;
    let luns = format!("/iscsi/{IQN}/tpg1/luns");
    let mut script = format!("/iscsi create {IQN}\n");
    for number in numbers() {
        let device = device(number);
        script += &format!("/backstores/block create name=few{number} dev={device}\n");
        script += &format!("{luns} create /backstores/block/few{number}\n");
    }
    let up = seconds(here, &format!("printf '{script}' | targetcli"))?;
    let mut script = format!("/iscsi delete {IQN}\n");
    numbers().for_each(|number| script += &format!("/backstores/block delete few{number}\n"));
    let down = seconds(here, &format!("printf '{script}' | targetcli"))?;
    println!("{FEW} LUNs by one run of targetcli: up {up:.2} s, down {down:.2} s");

    let theirs = |agent: &str, instance: &str, more: &str, action: &str| {
        format!(
            "OCF_ROOT=/usr/lib/ocf OCF_RESOURCE_INSTANCE={instance} OCF_RESKEY_implementation=lio-t {more} \
             /usr/lib/ocf/resource.d/heartbeat/{agent} {action} > /dev/null 2>&1"
        )
    };
    let target =
        |action: &str| theirs("iSCSITarget", "few", &format!("OCF_RESKEY_iqn={IQN}"), action);
    let lun = |number: u32, action: &str| {
        let name = format!("few{number}");
        let more = format!(
            "OCF_RESKEY_target_iqn={IQN} OCF_RESKEY_lun={number} OCF_RESKEY_path={} \
             OCF_RESKEY_CRM_meta_resource={name}",
            device(number)
        );
        theirs("iSCSILogicalUnit", &name, &more, action)
    };
    let all =
        |action: &str| numbers().map(|number| lun(number, action)).collect::<Vec<_>>().join("; ");
    here.run(&target("start"))?;
    let (up, down) = (seconds(here, &all("start"))?, seconds(here, &all("stop"))?);
    here.run(&target("stop"))?;
    println!("{FEW} LUNs by ocf:heartbeat:iSCSILogicalUnit: up {up:.2} s, down {down:.2} s");
    Ok(())
}
