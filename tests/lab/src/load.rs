//! The client's load: a writer in the client, the list of what was acknowledged to it kept here, outside of all
//! machines, and the comparison afterwards.

use crate::cluster;
use crate::machine::Machine;
use crate::ssh;
use crate::state::Lab;
use crate::timers;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};
use support::command::{self, await_until};

/// How many places the writer goes round over.
pub(crate) const SLOTS: u64 = 200;

/// What the writer was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Acks {
    /// The client's device.
    pub(crate) device: String,
    /// The number that each slot must hold.
    pub(crate) last: BTreeMap<u64, u64>,
    /// How many blocks were acknowledged, of them rewrites.
    pub(crate) count: u64,
    pub(crate) rewrites: u64,
    /// When each block was acknowledged, by this host's clock.
    pub(crate) times: Vec<SystemTime>,
    /// I/O errors.
    pub(crate) errors: Vec<String>,
    /// Whether the writer ended of its own accord, so that nothing is on its way.
    pub(crate) has_ended: bool,
}

impl Acks {
    pub(crate) fn take(&mut self, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["ack", slot, number, _] => {
                let strange = |_| format!("the writer says {line:?}");
                let slot = slot.parse().map_err(strange)?;
                let number = number.parse().map_err(strange)?;
                self.rewrites += u64::from(self.last.insert(slot, number).is_some());
                self.count += 1;
                self.times.push(SystemTime::now());
            }
            ["err", ..] => {
                let last = self.times.last().and_then(|last| last.elapsed().ok());
                let since = last.unwrap_or_default().as_secs();
                self.errors.push(format!("{line}, {since} s after the last block"));
            }
            ["end"] => self.has_ended = true,
            _ => return Err(format!("the writer says {line:?}")),
        }
        Ok(())
    }

    /// The longest time between two acknowledgements.
    pub(crate) fn longest_stall(&self) -> Duration {
        let gaps = self.times.windows(2).filter_map(|pair| pair[1].duration_since(pair[0]).ok());
        gaps.max().unwrap_or_default()
    }
}

/// A writer at work.
pub(crate) struct Writer {
    child: Child,
    reader: JoinHandle<Result<(), String>>,
    acks: Arc<Mutex<Acks>>,
}

impl Writer {
    /// Starts writing to the client's first LUN.
    pub(crate) fn start(lab: &Lab) -> Result<Writer> {
        Writer::start_on(lab, cluster::device(0))
    }

    /// Starts writing to a device of the client.
    pub(crate) fn start_on(lab: &Lab, device: String) -> Result<Writer> {
        let client = Machine::named("client")?;
        // An initiator waits for two minutes by itself, and fails what has waited for six of its disk's timeouts, three
        // minutes, and is to be tried again (scsi_cmd_runtime_exceeced): plenty for a failover, short for an emulated one.
        let patience =
            "for each in /sys/class/iscsi_session/*/recovery_tmo; do echo 1200 > $each; done
            for each in /sys/block/sd*/device/timeout; do echo 300 > $each; done";
        ssh::run(lab, client, patience)?;
        let line = format!("lab-writer write {device} {SLOTS} 1");
        let mut child = ssh::command(lab, client, &line)?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let name = device.rsplit('/').next().unwrap_or_default();
        let mut record = File::create(lab.file(&format!("acknowledged-{name}")))?;
        let acks = Arc::new(Mutex::new(Acks { device, ..Acks::default() }));
        let stdout = child.stdout.take().context("stdout is piped")?;
        let shared = Arc::clone(&acks);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let line = line.map_err(|error| error.to_string())?;
                writeln!(record, "{line}").map_err(|error| error.to_string())?;
                shared.lock().map_err(|error| error.to_string())?.take(&line)?;
            }
            Ok(())
        });
        Ok(Writer { child, reader, acks })
    }

    /// What was acknowledged until now.
    pub(crate) fn acks(&self) -> Acks {
        self.acks.lock().map(|acks| acks.clone()).unwrap_or_default()
    }

    /// Waits until so many more blocks are acknowledged.
    pub(crate) fn await_more(&mut self, blocks: u64) -> Result<()> {
        let goal = self.acks().count + blocks;
        await_until(&format!("{blocks} more blocks"), timers::BLOCKS, || {
            let acks = self.acks();
            match acks.count {
                count if count >= goal => Ok(()),
                count => bail!("{count} of {goal}; last errors: {:?}", acks.errors.last()),
            }
        })
    }

    /// Stops writing, and returns all that was acknowledged.
    pub(crate) fn stop(mut self) -> Result<Acks> {
        drop(self.child.stdin.take());
        await_until("the writer ends", timers::BLOCKS, || match self.child.try_wait() {
            Ok(Some(_)) => Ok(()),
            other => bail!("{other:?}"),
        })?;
        match self.reader.join() {
            Ok(result) => result.map_err(anyhow::Error::msg)?,
            Err(_) => bail!("the reader of the writer's words died"),
        }
        let acks = self.acks.lock().map(|acks| acks.clone()).unwrap_or_default();
        if !acks.has_ended {
            bail!("the writer did not end in order");
        }
        Ok(acks)
    }
}

/// Reads all blocks back in the client and compares them with what was acknowledged. Returns what is lost: nothing, if
/// all is well.
pub(crate) fn verify(lab: &Lab, acks: &Acks) -> Result<Vec<String>> {
    let line = format!("lab-writer verify {} {SLOTS}", acks.device);
    let found = ssh::run(lab, Machine::named("client")?, &line)?;
    Ok(lost(acks, &found))
}

/// The acknowledged blocks that are not there. A block of another number is lost, newer ones too: the writer had ended.
fn lost(acks: &Acks, found: &str) -> Vec<String> {
    let mut blocks = BTreeMap::new();
    for line in found.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["block", slot, number] = words[..] {
            blocks.insert(slot.to_string(), number.to_string());
        }
    }
    let mut lost = Vec::new();
    for (slot, number) in &acks.last {
        match blocks.get(&slot.to_string()) {
            Some(there) if *there == number.to_string() => {}
            Some(there) => {
                lost.push(format!("slot {slot}: block {number} acknowledged, {there} found"))
            }
            None => {
                lost.push(format!("slot {slot}: block {number} acknowledged, no whole block found"))
            }
        }
    }
    lost
}

/// Overwrites one block of the client's LUN with other bytes.
pub(crate) fn corrupt(lab: &Lab, acks: &Acks, slot: u64) -> Result<()> {
    let device = &acks.device;
    let line = format!(
        "yes | dd of={device} bs=4096 seek={slot} count=1 iflag=fullblock oflag=direct,sync conv=notrunc status=none"
    );
    ssh::run(lab, Machine::named("client")?, &line).map(|_| ())
}

/// A short line about the load.
pub(crate) fn summary(acks: &Acks, lost: &[String]) -> String {
    let stall = acks.longest_stall().as_secs_f64();
    format!(
        "{} blocks acknowledged, {} of them rewrites; longest stall {stall:.1} s\n\
         {} acknowledged writes lost, {} I/O errors",
        acks.count,
        acks.rewrites,
        lost.len(),
        acks.errors.len()
    )
}

/// Proves on a real machine that its disks lose what was not flushed, and nothing else.
pub(crate) fn unflushed_is_lost(lab: &Lab) -> Result<()> {
    let client = Machine::named("client")?;
    let disk = "/dev/disk/by-id/virtio-client-d1";
    let script = format!(
        "set -e
        printf flushed%4089s '' | dd of={disk} bs=4096 seek=1 iflag=fullblock oflag=direct conv=fsync status=none
        printf unflushed%4087s '' | dd of={disk} bs=4096 seek=2 iflag=fullblock oflag=direct status=none"
    );
    ssh::run(lab, client, &script)?;
    crate::machine::kill(lab, client)?;
    let bytes = command::run(
        timers::SSH,
        "dd",
        &[
            &format!("if={}", crate::disks::file(lab, client, 1).display()),
            "bs=4096",
            "skip=1",
            "count=2",
            "status=none",
        ],
    )?;
    let (first, second) = (bytes.starts_with("flushed"), bytes.contains("unflushed"));
    if first && !second {
        return Ok(());
    }
    bail!(
        "after the machine died, the flushed block is there: {first}; the unflushed one: {second}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_as_acknowledged_is_lost() {
        let mut acks = Acks::default();
        for line in ["ack 1 1 900", "ack 2 2 900", "ack 1 3 900", "err 2 4 broken", "end"] {
            acks.take(line).unwrap();
        }
        assert_eq!((acks.count, acks.rewrites, acks.errors.len()), (3, 1, 1));
        assert!(acks.has_ended);
        assert_eq!(lost(&acks, "empty 0\nblock 1 3\nblock 2 2\nend\n"), Vec::<String>::new());
        for (found, want) in [
            ("block 1 1\nblock 2 2\n", "slot 1: block 3 acknowledged, 1 found"),
            ("block 1 3\nbad 2\n", "slot 2: block 2 acknowledged, no whole block found"),
            ("block 1 3\nempty 2\n", "slot 2: block 2 acknowledged, no whole block found"),
            ("block 1 3\n", "slot 2: block 2 acknowledged, no whole block found"),
        ] {
            assert_eq!(lost(&acks, found), [want]);
        }
    }

    #[test]
    fn a_strange_word_of_the_writer_is_an_error() {
        for line in ["", "ack 1 x 900", "ack 1", "hello"] {
            assert!(Acks::default().take(line).is_err(), "{line:?}");
        }
    }
}
