//! Runs in the client: writes numbered, checksummed blocks and says which were acknowledged; reads them back.
//!
//!     lab-writer write DEVICE SLOTS FIRST     until its standard input ends
//!     lab-writer verify DEVICE SLOTS
//!
//! Each block is 4 KiB, opened O_DIRECT and O_SYNC: an acknowledged one is on stable storage, or somebody lied. The
//! blocks go round over SLOTS places, so that all but the first round are rewrites.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its output is its product")]

use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write, stdin, stdout};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const BLOCK: usize = 4096;
const MAGIC: &[u8; 8] = b"HASANLAB";
/// Pause between two blocks: without it the writer takes the processor time that the cluster needs.
const PAUSE: Duration = Duration::from_millis(30);
/// Pause before a block that failed is written again.
const RETRY: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["write", device, slots, first] => match (slots.parse(), first.parse()) {
            (Ok(slots), Ok(first)) => write(device, slots, first),
            _ => Err(format!("{slots:?} and {first:?} must be numbers")),
        },
        ["verify", device, slots] => match slots.parse() {
            Ok(slots) => verify(device, slots),
            Err(_) => Err(format!("{slots:?} must be a number")),
        },
        _ => Err("usage: lab-writer write DEVICE SLOTS FIRST | verify DEVICE SLOTS".to_string()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("lab-writer: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn open(device: &str, write: bool) -> Result<File, String> {
    OpenOptions::new()
        .read(!write)
        .write(write)
        .custom_flags(libc::O_DIRECT | libc::O_SYNC)
        .open(device)
        .map_err(|error| format!("cannot open {device}: {error}"))
}

/// A buffer at an address that O_DIRECT takes.
struct Aligned {
    bytes: Vec<u8>,
    start: usize,
}

impl Aligned {
    fn new() -> Aligned {
        let bytes = vec![0; 2 * BLOCK];
        let start = bytes.as_ptr().align_offset(BLOCK);
        Aligned { bytes, start }
    }

    fn block(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + BLOCK]
    }
}

/// Magic, slot, number; a filling made of the number; a digest of all that.
fn fill(block: &mut [u8], slot: u64, number: u64) {
    block[..8].copy_from_slice(MAGIC);
    block[8..16].copy_from_slice(&slot.to_le_bytes());
    block[16..24].copy_from_slice(&number.to_le_bytes());
    for (at, byte) in block[24..BLOCK - 32].iter_mut().enumerate() {
        *byte = number.wrapping_mul(31).wrapping_add(at as u64) as u8;
    }
    let digest = Sha256::digest(&block[..BLOCK - 32]);
    block[BLOCK - 32..].copy_from_slice(&digest);
}

fn write(device: &str, slots: u64, first: u64) -> Result<(), String> {
    let file = open(device, true)?;
    let is_over = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&is_over);
    std::thread::spawn(move || {
        // An error ends the writing as well as the end does.
        let _ = stdin().read_to_end(&mut Vec::new());
        flag.store(true, Ordering::Relaxed);
    });
    let mut buffer = Aligned::new();
    let mut number = first;
    while !is_over.load(Ordering::Relaxed) {
        let slot = number % slots;
        fill(buffer.block(), slot, number);
        let begun = Instant::now();
        match file.write_at(buffer.block(), slot * BLOCK as u64) {
            Ok(BLOCK) => {
                say(&format!("ack {slot} {number} {}", begun.elapsed().as_micros()))?;
                number += 1;
                std::thread::sleep(PAUSE);
            }
            Ok(short) => say(&format!("err {slot} {number} only {short} bytes"))?,
            Err(error) => {
                say(&format!("err {slot} {number} {error}"))?;
                std::thread::sleep(RETRY);
            }
        }
    }
    say("end")
}

fn say(line: &str) -> Result<(), String> {
    let mut out = stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|error| error.to_string())
}

/// Prints `block SLOT NUMBER` for a block that is whole, `empty SLOT` for one that was never written, `bad SLOT` else.
fn verify(device: &str, slots: u64) -> Result<(), String> {
    let file = open(device, false)?;
    let mut buffer = Aligned::new();
    let mut want = vec![0; BLOCK];
    for slot in 0..slots {
        file.read_exact_at(buffer.block(), slot * BLOCK as u64)
            .map_err(|error| format!("cannot read block {slot} of {device}: {error}"))?;
        let block = buffer.block();
        let number = block[16..24].try_into().map(u64::from_le_bytes).map_err(|_| "no number")?;
        fill(&mut want, slot, number);
        if block == want.as_slice() {
            say(&format!("block {slot} {number}"))?;
        } else if block.iter().all(|byte| *byte == 0) {
            say(&format!("empty {slot}"))?;
        } else {
            say(&format!("bad {slot}"))?;
        }
    }
    say("end")
}
