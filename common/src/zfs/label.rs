//! The label of a vdev: who had the pool last, and up to which transaction group.
//!
//! Label 0 is the first 256 KiB of a vdev; its configuration, an nvlist in XDR, lies at 16 KiB, its
//! ring of uberblocks at 128 KiB (`include/sys/vdev_impl.h`, `vdev_label_t`; encoding:
//! `module/nvpair/nvpair.c`; `include/sys/uberblock_impl.h`).

use crate::machine::Machine;
use crate::ocf::Fault;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const OFFSET: u64 = 16 * 1024;
/// Of the configuration.
const LENGTH: usize = 112 * 1024;
/// Of the ring of uberblocks, which follows the configuration.
const RING: usize = 128 * 1024;
/// The smallest distance between two uberblocks; others are multiples of it.
const SLOT: usize = 1 << SLOT_SHIFTS.0;
/// The distance between two uberblocks: a sector of the mirror, within these bounds (`UBERBLOCK_SHIFT`, `MAX_UBERBLOCK_SHIFT`).
const SLOT_SHIFTS: (u64, u64) = (10, 13);
const UBERBLOCK_MAGIC: u64 = 0x00ba_b10c;
const MMP_MAGIC: u64 = 0xa11c_ea11;
const TYPE_UINT64: u32 = 8;
const TYPE_STRING: u32 = 9;
const TYPE_NVLIST: u32 = 19;
const TYPE_NVLIST_ARRAY: u32 = 20;
/// How deep vdevs can lie in each other, and more: a mirror, what is being replaced in it, a spare for it.
const DEPTH: usize = 16;

/// What a label says of its pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The pool's name.
    pub pool: String,
    /// The pool's GUID.
    pub pool_guid: u64,
    /// Whether the pool was given back.
    pub state: LabelState,
    /// The newest transaction group that is on this vdev.
    pub txg: u64,
    /// The newest one that a sync has put there, as it does on all legs of a mirror; 0 if there is none. Under multihost the sign
    /// of life carries the newest uberblock of the pool to one leg of any mirror, or of a log, by itself (`mmp_write_uberblock`).
    pub synced: u64,
    /// Whether the pool was written under multihost.
    pub multihost: bool,
    /// The host that had it last: its id, and its name.
    pub hostid: u64,
    /// The name of that host.
    pub hostname: String,
    /// The top-level vdev, such as a mirror, that this one is in: its GUID.
    pub top_guid: u64,
    /// How many top-level vdevs the pool has.
    pub tops: u64,
    /// The devices of that top-level vdev, this one and its partners, by the paths that they had.
    pub members: BTreeSet<String>,
}

/// `pool_state_t` as far as it matters (`include/sys/fs/zfs.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelState {
    /// 0, ACTIVE: imported, or was when its host died.
    InUse,
    /// 1, EXPORTED: given back.
    Exported,
    /// 3 and 4, SPARE and L2CACHE: it holds nothing that a pool could miss, and names none.
    Beside,
    /// 2, DESTROYED, and what else there may be.
    NoPool,
}

/// Reads the label of a device; `None` if it carries none.
///
/// # Errors
/// If the device cannot be read, or what lies there is half a label.
pub fn read_label(machine: &Machine, device: &Path) -> Result<Option<Label>, Fault> {
    let bytes = machine.read_direct(device, OFFSET, LENGTH + RING)?;
    parse(&bytes)
        .map_err(|wrong| Fault::generic(format!("the ZFS label of {}: {wrong}", device.display())))
}

fn parse(bytes: &[u8]) -> Result<Option<Label>, String> {
    // nvs_header_t: encoding (1 is XDR), byte order, two reserved.
    if bytes.first() != Some(&1) {
        return Ok(None);
    }
    let (configuration, ring) = bytes.split_at_checked(LENGTH).ok_or("it ends too early")?;
    let (list, _) = nvlist(configuration, 4, DEPTH)?;
    let number = |name: &str| list.numbers.get(name).copied();
    let text = |name: &str| list.texts.get(name).cloned().unwrap_or_default();
    let state = match number("state") {
        Some(0) => LabelState::InUse,
        Some(1) => LabelState::Exported,
        Some(3 | 4) => LabelState::Beside,
        Some(_) => LabelState::NoPool,
        None => return Err("it has no state".to_string()),
    };
    let uberblock = match (newest(ring), state) {
        (Some(newest), _) => newest,
        (None, LabelState::Beside) => Uberblock { txg: 0, timestamp: 0, multihost: false },
        (None, _) => return Err("it has no uberblock".to_string()),
    };
    let tree = || list.lists.get("vdev_tree").into_iter().flatten();
    let ashift = tree().find_map(|top| top.numbers.get("ashift").copied());
    Ok(Some(Label {
        pool: text("name"),
        pool_guid: number("pool_guid").unwrap_or_default(),
        state,
        txg: uberblock.txg,
        synced: synced(ring, ashift.unwrap_or_default()),
        multihost: uberblock.multihost,
        hostid: number("hostid").unwrap_or_default(),
        hostname: text("hostname"),
        top_guid: number("top_guid").unwrap_or_default(),
        tops: number("vdev_children").unwrap_or_default(),
        members: tree().flat_map(leaves).collect(),
    }))
}

/// What an uberblock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Uberblock {
    txg: u64,
    timestamp: u64,
    multihost: bool,
}

fn newest(ring: &[u8]) -> Option<Uberblock> {
    uberblocks(ring).map(|(_, uberblock)| uberblock).max()
}

/// The newest transaction group of a sync. Under multihost it leaves the last slot to the sign of life (`vdev_uberblock_sync`,
/// `MMP_BLOCKS_PER_LABEL`); without multihost that slot is one as any other.
fn synced(ring: &[u8], ashift: u64) -> u64 {
    let last = RING - (1 << ashift.clamp(SLOT_SHIFTS.0, SLOT_SHIFTS.1));
    let by_sync = uberblocks(ring).filter(|(at, each)| *at < last || !each.multihost);
    by_sync.map(|(_, uberblock)| uberblock.txg).max().unwrap_or_default()
}

/// The uberblocks of a ring, and where they lie in it. Those of a host with the other byte order are passed over.
fn uberblocks(ring: &[u8]) -> impl Iterator<Item = (usize, Uberblock)> {
    let number = |slot: &[u8], at: usize| {
        slot.get(at..at + 8)
            .and_then(|bytes| <[u8; 8]>::try_from(bytes).ok())
            .map(u64::from_le_bytes)
    };
    let slots = ring.chunks_exact(SLOT).enumerate();
    slots.filter(move |(_, slot)| number(slot, 0) == Some(UBERBLOCK_MAGIC)).filter_map(
        move |(index, slot)| {
            // Behind magic, version, txg, guid sum, timestamp, root pointer and software version.
            let (magic, delay) = (number(slot, 176)?, number(slot, 184)?);
            let multihost = magic == MMP_MAGIC && delay != 0;
            let (txg, timestamp) = (number(slot, 16)?, number(slot, 32)?);
            Some((index * SLOT, Uberblock { txg, timestamp, multihost }))
        },
    )
}

/// The pairs of an nvlist, by name; those of other types are passed over.
#[derive(Default)]
struct Nvlist {
    numbers: BTreeMap<String, u64>,
    texts: BTreeMap<String, String>,
    lists: BTreeMap<String, Vec<Nvlist>>,
}

/// The paths of the vdevs without children.
fn leaves(vdev: &Nvlist) -> Vec<String> {
    match vdev.lists.get("children") {
        Some(children) => children.iter().flat_map(leaves).collect(),
        None => vdev.texts.get("path").cloned().into_iter().collect(),
    }
}

/// The nvlist at a place, and where it ends.
fn nvlist(bytes: &[u8], start: usize, depth: usize) -> Result<(Nvlist, usize), String> {
    let depth = depth.checked_sub(1).ok_or("its vdevs lie too deep in each other")?;
    let mut list = Nvlist::default();
    // Version and flags come first.
    let mut at = start + 8;
    loop {
        let size = word(bytes, at)? as usize;
        if size == 0 {
            // The end is two words, the encoded size and the decoded one.
            return Ok((list, at + 8));
        }
        // A pair: its size encoded and decoded, name, type, count of elements, value.
        let name = text(bytes, at + 8)?;
        let behind = at + 12 + padded(name.len());
        let (kind, count, value) = (word(bytes, behind)?, word(bytes, behind + 4)?, behind + 8);
        match kind {
            TYPE_UINT64 => {
                let high = u64::from(word(bytes, value)?);
                list.numbers.insert(name, high << 32 | u64::from(word(bytes, value + 4)?));
            }
            TYPE_STRING => {
                list.texts.insert(name, text(bytes, value)?);
            }
            TYPE_NVLIST | TYPE_NVLIST_ARRAY => {
                let (mut lists, mut next) = (Vec::new(), value);
                for _ in 0..count {
                    let (each, end) = nvlist(bytes, next, depth)?;
                    lists.push(each);
                    next = end;
                }
                list.lists.insert(name, lists);
            }
            _ => {}
        }
        at += size;
    }
}

fn word(bytes: &[u8], at: usize) -> Result<u32, String> {
    let four = bytes.get(at..at + 4).and_then(|slice| <[u8; 4]>::try_from(slice).ok());
    four.map(u32::from_be_bytes).ok_or_else(|| "it ends too early".to_string())
}

fn text(bytes: &[u8], at: usize) -> Result<String, String> {
    let length = word(bytes, at)? as usize;
    let text = bytes.get(at + 4..at + 4 + length).ok_or("it ends too early")?;
    String::from_utf8(text.to_vec()).map_err(|_| "it holds a name that is not text".to_string())
}

fn padded(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(name: &str, kind: u32, value: &[u8]) -> Vec<u8> {
        put_many(name, kind, 1, value)
    }

    fn put_many(name: &str, kind: u32, count: u32, value: &[u8]) -> Vec<u8> {
        let mut body = (name.len() as u32).to_be_bytes().to_vec();
        body.extend(name.as_bytes());
        body.resize(padded(body.len()), 0);
        body.extend(kind.to_be_bytes());
        body.extend(count.to_be_bytes());
        body.extend(value);
        body.resize(padded(body.len()), 0);
        let mut pair = (body.len() as u32 + 8).to_be_bytes().to_vec();
        pair.extend([0; 4]);
        pair.extend(body);
        pair
    }

    fn string(value: &str) -> Vec<u8> {
        [&(value.len() as u32).to_be_bytes()[..], value.as_bytes()].concat()
    }

    /// An nvlist of these pairs in another one.
    fn nested(pairs: &[Vec<u8>]) -> Vec<u8> {
        [&[0; 8][..], &pairs.concat(), &[0; 8]].concat()
    }

    fn disk(path: &str) -> Vec<u8> {
        nested(&[
            put("type", TYPE_STRING, &string("disk")),
            put("path", TYPE_STRING, &string(path)),
        ])
    }

    /// A mirror of data-a1 and of data-b1, which is being replaced.
    fn mirror() -> Vec<u8> {
        let parts = [disk("/dev/mapper/data-b1"), disk("/dev/mapper/data-b2")].concat();
        let replacing = nested(&[put_many("children", TYPE_NVLIST_ARRAY, 2, &parts)]);
        let both = [disk("/dev/mapper/data-a1"), replacing].concat();
        nested(&[
            put("type", TYPE_STRING, &string("mirror")),
            put_many("children", TYPE_NVLIST_ARRAY, 2, &both),
            put("ashift", TYPE_UINT64, &12u64.to_be_bytes()),
        ])
    }

    fn label() -> Vec<u8> {
        let mut bytes = vec![1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        bytes.extend(put("version", TYPE_UINT64, &5000u64.to_be_bytes()));
        bytes.extend(put("name", TYPE_STRING, &string("tank")));
        bytes.extend(put("state", TYPE_UINT64, &1u64.to_be_bytes()));
        bytes.extend(put("pool_guid", TYPE_UINT64, &u64::MAX.to_be_bytes()));
        bytes.extend(put("hostid", TYPE_UINT64, &7u64.to_be_bytes()));
        bytes.extend(put("hostname", TYPE_STRING, &string("storage-a")));
        bytes.extend(put("top_guid", TYPE_UINT64, &6u64.to_be_bytes()));
        bytes.extend(put("vdev_children", TYPE_UINT64, &2u64.to_be_bytes()));
        bytes.extend(put("vdev_tree", TYPE_NVLIST, &mirror()));
        bytes.extend(put("features_for_read", TYPE_NVLIST, &nested(&[])));
        bytes.extend([0; 8]);
        bytes
    }

    fn uberblock(txg: u64, mmp_delay: u64) -> Vec<u8> {
        let mut slot = vec![0; SLOT];
        let numbers = [(0, UBERBLOCK_MAGIC), (16, txg), (32, 1_700_000_000), (176, MMP_MAGIC)];
        for (at, number) in numbers.into_iter().chain([(184, mmp_delay)]) {
            slot[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        slot
    }

    /// A label with a ring of these uberblocks, among slots that hold none.
    fn with_ring(slots: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = label();
        bytes.resize(LENGTH, 0);
        for slot in slots {
            bytes.extend(slot);
            bytes.extend([0; 3 * SLOT]);
        }
        bytes.resize(LENGTH + RING, 0);
        bytes
    }

    #[test]
    fn a_label_is_read() {
        let mut want = Label {
            pool: "tank".to_string(),
            pool_guid: u64::MAX,
            state: LabelState::Exported,
            txg: 0x1_0000_0002,
            synced: 0x1_0000_0002,
            multihost: true,
            hostid: 7,
            hostname: "storage-a".to_string(),
            top_guid: 6,
            tops: 2,
            members: ["a1", "b1", "b2"].map(|leg| format!("/dev/mapper/data-{leg}")).into(),
        };
        let older = uberblock(0x1_0000_0001, 0);
        let bytes = with_ring(&[older.clone(), uberblock(0x1_0000_0002, 1000)]);
        assert_eq!(parse(&bytes), Ok(Some(want.clone())));
        want.multihost = false;
        let bytes = with_ring(&[uberblock(0x1_0000_0002, 0), older]);
        assert_eq!(parse(&bytes), Ok(Some(want)));
        assert_eq!(parse(&with_ring(&[])), Err("it has no uberblock".to_string()));
    }

    #[test]
    fn a_sign_of_life_is_no_sync() {
        // Sectors of 4096 bytes: the last slot is the last of 32. A sync writes under multihost, too.
        let with_last = |delay: u64, at: usize| {
            let mut bytes = with_ring(&[uberblock(4, 1000), uberblock(5, 1000)]);
            bytes[LENGTH + at..LENGTH + at + SLOT].copy_from_slice(&uberblock(7, delay));
            let label = parse(&bytes).unwrap().unwrap();
            (label.txg, label.synced)
        };
        assert_eq!(with_last(1000, RING - 4096), (7, 5));
        assert_eq!(with_last(1000, RING - 8192), (7, 7));
        assert_eq!(with_last(0, RING - 4096), (7, 7));
        let ring = [vec![0; RING - 8192], uberblock(7, 1000), vec![0; 8192 - SLOT]].concat();
        assert_eq!((synced(&ring, 13), synced(&ring, 16), synced(&ring, 12)), (0, 0, 7));
        let ring = [vec![0; RING - SLOT], uberblock(7, 1000)].concat();
        assert_eq!((synced(&ring, 9), synced(&ring, 10)), (0, 0));
    }

    #[test]
    fn a_spare_and_a_cache_have_no_uberblock() {
        for state in [3u64, 4] {
            let mut bytes = vec![1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
            bytes.extend(put("state", TYPE_UINT64, &state.to_be_bytes()));
            bytes.resize(LENGTH + RING, 0);
            let label = parse(&bytes).unwrap().unwrap();
            assert_eq!((label.state, label.pool.as_str()), (LabelState::Beside, ""));
        }
    }

    #[test]
    fn a_label_whose_vdevs_have_no_end_is_an_error() {
        let deep =
            (0..50).fold(disk("x"), |inner, _| nested(&[put("vdev_tree", TYPE_NVLIST, &inner)]));
        let mut bytes = with_ring(&[uberblock(1, 0)]);
        let list = [&[1, 1, 0, 0][..], &deep].concat();
        bytes[..list.len()].copy_from_slice(&list);
        assert!(parse(&bytes).unwrap_err().contains("too deep"));
    }

    #[test]
    fn no_label_is_none_and_half_a_label_is_an_error_at_any_length() {
        assert_eq!(parse(&[0; 64]), Ok(None));
        assert_eq!(parse(&[]), Ok(None));
        for length in 1..label().len() - 4 {
            let mut half = with_ring(&[uberblock(1, 0)]);
            half[length..LENGTH].fill(0xff);
            assert!(parse(&half).is_err(), "{length}");
            assert!(parse(&half[..length]).is_err(), "{length}");
        }
    }
}
