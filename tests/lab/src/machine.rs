//! The machines, and their power.

use crate::net::{self, NAMESPACE, NETWORKS};
use crate::state::Lab;
use crate::{disks, guest, image, plug, ssh};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::command::{await_until, run};

/// The processor: the fewest features with which Debian's kernels run and ZFS computes checksums quickly.
pub(crate) const CPU: &str =
    "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+aes,+pclmulqdq,+abm,+bmi1,+bmi2,+adx,+rdrand";

/// A virtual machine.
pub(crate) struct Machine {
    /// Number, the last part of its addresses.
    pub(crate) id: u8,
    /// Name.
    pub(crate) name: &'static str,
    /// Its networks.
    pub(crate) networks: &'static [&'static str],
    /// How many data disks it has.
    pub(crate) disks: u8,
    /// Memory, MiB. A thousand LUNs take more than half a GiB of the kernel of a storage node: LIO keeps 128 buffers of a page
    /// for each (`target_core_iblock.h`, `IBLOCK_BIO_POOL_SIZE`).
    memory: u32,
}

/// The machines.
pub(crate) static MACHINES: [Machine; 4] = [
    Machine { id: 1, name: "storage-a", networks: &NETWORKS, disks: 2, memory: 3072 },
    Machine { id: 2, name: "storage-b", networks: &NETWORKS, disks: 2, memory: 3072 },
    Machine { id: 3, name: "quorum-c", networks: &["mgmt"], disks: 0, memory: 1024 },
    Machine { id: 4, name: "client", networks: &["mgmt", "end", "hyp"], disks: 1, memory: 768 },
];

impl Machine {
    /// The machine of this name.
    pub(crate) fn named(name: &str) -> Result<&'static Machine> {
        MACHINES
            .iter()
            .find(|machine| machine.name == name)
            .with_context(|| format!("there is no machine {name:?}"))
    }

    /// QEMU's control socket.
    pub(crate) fn control(&self, lab: &Lab) -> PathBuf {
        lab.file(&format!("{}.qmp", self.name))
    }

    /// The file of its root disk: what differs from the image.
    pub(crate) fn root(&self, lab: &Lab) -> PathBuf {
        lab.file(&format!("{}.qcow2", self.name))
    }

    /// What its console has shown since its cluster was made or came from a snapshot, over all boots.
    pub(crate) fn console(&self, lab: &Lab) -> PathBuf {
        lab.file(&format!("{}.log", self.name))
    }

    fn pid_file(&self, lab: &Lab) -> PathBuf {
        lab.file(&format!("{}.pid", self.name))
    }

    /// Whether its QEMU runs.
    pub(crate) fn has_power(&self, lab: &Lab) -> bool {
        read_pid(&self.pid_file(lab)).is_some_and(is_alive)
    }
}

/// Gives a machine power: it boots from its disks.
pub(crate) fn boot(lab: &Lab, machine: &Machine) -> Result<()> {
    start(lab, machine, &[])
}

/// Starts QEMU, with further arguments.
pub(crate) fn start(lab: &Lab, machine: &Machine, more: &[String]) -> Result<()> {
    if machine.has_power(lab) {
        return Ok(());
    }
    let image = image::folder(lab)?;
    let root = machine.root(lab);
    if !root.exists() {
        let base = image.join("root.qcow2").display().to_string();
        let root = root.display().to_string();
        let create = ["create", "-q", "-f", "qcow2", "-b", &base, "-F", "qcow2", &root];
        run(Duration::from_secs(20), "qemu-img", &create)?;
    }
    disks::serve(lab, machine)?;
    let arguments = arguments(lab, machine, &image);
    let all: Vec<&str> = ["netns", "exec", NAMESPACE, "qemu-system-x86_64"]
        .into_iter()
        .chain(arguments.iter().chain(more).map(String::as_str))
        .collect();
    run(Duration::from_secs(60), "ip", &all).map(|_| ())
}

fn arguments(lab: &Lab, machine: &Machine, image: &Path) -> Vec<String> {
    let (id, name) = (machine.id, machine.name);
    // Loading ZFS takes half a minute of processor time under emulation: only where there are disks for a pool.
    let masks = match machine.networks.contains(&"stor") {
        true => "",
        false => "systemd.mask=zfs-load-module.service systemd.mask=systemd-modules-load.service",
    };
    // Mitigations, audit, AppArmor: all of it costs much under emulation.
    let kernel_line = format!(
        "root=/dev/vda rw console=ttyS0 loglevel=7 systemd.show_status=false mitigations=off net.ifnames=0 selinux=0 apparmor=0 audit=0 panic=5 lab.id={id} lab.name={name} {masks}"
    );
    let text = format!(
        "-accel tcg,thread=multi,tb-size=256 -cpu {CPU} -smp 1 -m {} -display none -nodefaults -no-user-config \
         -daemonize -device virtio-rng-pci -device i6300esb",
        machine.memory
    );
    let mut arguments: Vec<String> = text.split_whitespace().map(str::to_string).collect();
    let mut add = |option: &str, value: String| arguments.extend([option.to_string(), value]);
    add("-kernel", image.join("vmlinuz").display().to_string());
    add("-initrd", image.join("initrd").display().to_string());
    add("-append", kernel_line);
    let log = machine.console(lab).display().to_string();
    add("-chardev", format!("file,id=console,path={log},append=on"));
    add("-serial", "chardev:console".to_string());
    add("-pidfile", machine.pid_file(lab).display().to_string());
    add("-qmp", format!("unix:{},server=on,wait=off", machine.control(lab).display()));
    let root = machine.root(lab);
    add("-drive", format!("file={},if=none,id=root,format=qcow2,cache=writeback", root.display()));
    add("-device", "virtio-blk-pci,drive=root".to_string());
    for number in 1..=machine.disks {
        let socket = disks::socket(lab, machine, number);
        let at = format!("file=nbd+unix:///?socket={}", socket.display());
        add(
            "-drive",
            format!("{at},if=none,id=d{number},format=raw,cache=writeback,discard=unmap"),
        );
        add("-device", format!("virtio-blk-pci,drive=d{number},serial={name}-d{number}"));
    }
    for (at, network) in NETWORKS.iter().enumerate() {
        if machine.networks.contains(network) {
            let tap = net::tap(network, id);
            add("-netdev", format!("tap,id=n{at},ifname={tap},script=no,downscript=no"));
            let mac = format!("52:54:00:00:0{at}:0{id}");
            add("-device", format!("virtio-net-pci,netdev=n{at},mac={mac},romfile="));
        }
    }
    arguments
}

/// Pulls a machine's plug: QEMU and its disks die at once.
pub(crate) fn kill(lab: &Lab, machine: &Machine) -> Result<()> {
    disks::kill(lab, machine);
    kill_by_file(&machine.pid_file(lab));
    ssh::forget(lab, machine);
    Ok(())
}

/// Stops all machines, and the plugs.
pub(crate) fn stop_all(lab: &Lab) -> Result<()> {
    plug::stop(lab);
    guest::stop(lab);
    MACHINES.iter().try_for_each(|machine| kill(lab, machine))
}

/// Kills the process whose number is in a file, and waits until it is gone.
pub(crate) fn kill_by_file(path: &Path) {
    let Some(pid) = read_pid(path).filter(|pid| is_alive(*pid)) else { return };
    // A process that has just ended by itself is as good as killed.
    let _ = run(Duration::from_secs(5), "kill", &["-9", &pid.to_string()]);
    let gone = || if is_alive(pid) { bail!("process {pid} lives") } else { Ok(()) };
    if let Err(error) = await_until("a killed process ends", Duration::from_secs(10), gone) {
        eprintln!("{error:#}");
        return;
    }
    let _ = fs::remove_file(path);
}

fn read_pid(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Whether the process is there and is the lab's: after a restart of the host its number may be somebody else's. A
/// zombie, whose parent has not looked yet, is dead.
fn is_alive(pid: u32) -> bool {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command);
    if !command.contains("hasan-lab") && !command.contains("plugd") {
        return false;
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().unwrap_or_default().trim_start().chars().next();
    state.is_some_and(|state| state != 'Z')
}
