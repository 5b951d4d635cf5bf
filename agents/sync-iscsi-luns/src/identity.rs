//! Which zvols become LUNs, and the identity of each LUN: number, serial and name, kept in properties of the zvol, given
//! once, never again. Pure functions.

use hasan::lio::Attributes;
use hasan::zfs::Dataset;
use std::collections::{BTreeMap, BTreeSet};

/// Property of a zvol: its LUN number.
pub(crate) const LUN: &str = "hasan:lun";
/// Property of a zvol: the serial of its LUN.
pub(crate) const SERIAL: &str = "hasan:serial";
/// Property of a zvol: the name of its backstore, where it is not the one that the rule gives.
pub(crate) const NAME: &str = "hasan:backstore";
/// Property of a zvol: since when (seconds since 1970) a sync has missed its LUN, which somebody took away.
pub(crate) const GONE: &str = "hasan:gone";
/// Property of a zvol: the persistent reservations of its LUN.
pub(crate) const RESERVATIONS: &str = "hasan:reservations";
/// Property of a zvol: what else initiators see of its LUN, where somebody else has made that (`lio::Attributes`).
pub(crate) const ATTRIBUTES: &str = "hasan:attributes";
/// Property of a zvol or of a dataset above it: `off` keeps it from being served.
pub(crate) const EXPORT: &str = "hasan:export";
/// Property of the VLAN's dataset: the lowest LUN number that was never given.
pub(crate) const NEXT: &str = "hasan:next-lun";
/// All properties that this module reads.
pub(crate) const PROPERTIES: &str = "type,guid,volmode,readonly,keystatus,receive_resume_token,creation,hasan:lun,\
                                     hasan:serial,hasan:backstore,hasan:gone,hasan:reservations,hasan:attributes,hasan:export,\
                                     hasan:next-lun";

/// The digits of a serial that make the NAA name of a LUN (`target_core_spc.c`, `spc_gen_naa_6h_vendor_specific`).
const NAA_DIGITS: usize = 25;

/// How a backstore is called that has no name yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Naming {
    /// The zvol's name below the VLAN's dataset, behind the VLAN's name if one is given.
    Zvol { vlan: Option<String> },
    /// The zvol's whole name, as Proxmox's ZFS-over-iSCSI plugin calls it.
    Proxmox,
}

/// What the kernel shows of a zvol: somebody, perhaps this program, has made a LUN of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) lun: u64,
    pub(crate) serial: String,
    pub(crate) name: String,
    /// Its persistent reservations, empty for none; `None` where they cannot be read.
    pub(crate) reservations: Option<String>,
    /// What somebody else has set of it; `None` for one of ours, which has what its zvol says.
    pub(crate) attributes: Option<Attributes>,
}

/// All that the identities rest on.
pub(crate) struct Seen<'a> {
    /// The VLAN's dataset.
    pub(crate) root: &'a str,
    /// It and all below it, sorted by name.
    pub(crate) datasets: &'a [Dataset],
    pub(crate) pool_guid: u64,
    pub(crate) naming: &'a Naming,
    /// The zvols that the group shows already.
    pub(crate) live: &'a BTreeMap<String, Live>,
    /// The zvols that another group shows, and which one.
    pub(crate) elsewhere: &'a BTreeMap<String, String>,
    /// Numbers of LUNs in the group that are over something else.
    pub(crate) foreign: &'a BTreeSet<u64>,
    /// Set when the group is at work, and others may be changing it.
    pub(crate) patience: Option<Patience>,
    /// The zvols that had a LUN after the last start or sync; `None` if that is not known.
    pub(crate) served: Option<&'a BTreeSet<String>>,
}

/// Others make and remove LUNs in several steps: a zvol that has just been made, or whose LUN has just gone, is theirs
/// for a while. Seconds.
#[derive(Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) now: u64,
    pub(crate) settle: u64,
}

/// A zvol with the identity of its LUN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) zvol: String,
    pub(crate) lun: u64,
    pub(crate) serial: String,
    pub(crate) name: String,
    pub(crate) reservations: String,
    pub(crate) attributes: Attributes,
}

/// A change of a zvol's properties.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Note {
    Set(&'static str, String),
    Remove(&'static str),
}

/// What follows.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Identities {
    pub(crate) luns: Vec<Identity>,
    /// What must be written to zvols before any LUN shows it.
    pub(crate) notes: BTreeMap<String, Vec<Note>>,
    /// The new value of [`NEXT`], if it changes.
    pub(crate) next: Option<u64>,
    /// Zvols that are not served because they cannot be, and why.
    pub(crate) skipped: Vec<(String, String)>,
    /// Zvols that are not served on purpose, or not yet, and why.
    pub(crate) left: Vec<(String, String)>,
}

impl Identities {
    /// Whether all is written down, and each zvol is served.
    pub(crate) fn are_settled(&self) -> bool {
        let Identities { luns: _, notes, next, skipped, left } = self;
        notes.is_empty() && next.is_none() && skipped.is_empty() && left.is_empty()
    }

    /// Leaves a zvol out that turned out not to work.
    pub(crate) fn skip(&mut self, zvol: &str, why: String) {
        self.luns.retain(|each| each.zvol != zvol);
        self.skipped.push((zvol.to_string(), why));
    }
}

/// Gives each zvol its identity.
pub(crate) fn identities(seen: &Seen<'_>) -> Identities {
    let mut result = Identities::default();
    let zvols: Vec<&Dataset> =
        seen.datasets.iter().filter(|each| each.is("type", "volume")).collect();
    let mut numbers = Numbers::new(seen, &zvols);
    let mut wanted = Vec::new();
    for zvol in zvols {
        match standing(seen, zvol) {
            Standing::Serve => wanted.push(zvol),
            Standing::Skip(why) => result.skipped.push((zvol.name.clone(), why)),
            Standing::Leave(why, note) => {
                result.left.push((zvol.name.clone(), why));
                result.notes.extend(note.map(|note| (zvol.name.clone(), vec![note])));
            }
        }
    }
    // What initiators see already keeps its number, whatever else claims it.
    wanted.sort_by_key(|zvol| !seen.live.contains_key(&zvol.name));
    let mut naas = BTreeMap::new();
    for zvol in wanted {
        let identity = match identity(seen, zvol, &mut numbers) {
            Ok(identity) => identity,
            Err(why) => {
                result.skipped.push((zvol.name.clone(), why));
                continue;
            }
        };
        if let Some(other) = naas.insert(naa(&identity.serial), zvol.name.clone()) {
            let why = format!("its serial {} looks like that of {other}", identity.serial);
            result.skipped.push((zvol.name.clone(), why));
            naas.insert(naa(&identity.serial), other);
            continue;
        }
        let notes = notes(seen, zvol, &identity);
        if !notes.is_empty() {
            result.notes.insert(zvol.name.clone(), notes);
        }
        result.luns.push(identity);
    }
    result.luns.sort_by(|one, other| one.zvol.cmp(&other.zvol));
    result.next = (numbers.next != numbers.recorded).then_some(numbers.next);
    result
}

/// Whether a zvol is to be served now.
enum Standing {
    Serve,
    Skip(String),
    Leave(String, Option<Note>),
}

fn standing(seen: &Seen<'_>, zvol: &Dataset) -> Standing {
    if zvol.is(EXPORT, "off") {
        return Standing::Leave(format!("{EXPORT} is off"), None);
    }
    // It is served: whatever its properties say now, its initiators go on.
    if seen.live.contains_key(&zvol.name) {
        return Standing::Serve;
    }
    if let Some(group) = seen.elsewhere.get(&zvol.name) {
        return Standing::Skip(format!("it is a LUN of {group} already"));
    }
    if zvol.is("volmode", "none") {
        return Standing::Leave("volmode is none".to_string(), None);
    }
    if zvol.is("keystatus", "unavailable") {
        return Standing::Skip("its key is not loaded".to_string());
    }
    if zvol.values.contains_key("receive_resume_token") {
        return Standing::Skip("a receive into it has not ended".to_string());
    }
    match seen.patience {
        Some(patience) => {
            let was_served = seen.served.is_none_or(|served| served.contains(&zvol.name));
            settle(zvol, patience, was_served)
        }
        None => Standing::Serve,
    }
}

fn settle(zvol: &Dataset, patience: Patience, was_served: bool) -> Standing {
    let seconds = |name: &str| zvol.values.get(name).and_then(|text| text.parse::<u64>().ok());
    let since = match number(zvol) {
        None => seconds("creation").unwrap_or_default(),
        Some(_) => match zvol.own.get(GONE).and_then(|text| text.parse().ok()) {
            Some(since) => since,
            // Nobody has taken it away: its device came late, or could not be opened.
            None if !was_served => return Standing::Serve,
            None => {
                let note = Note::Set(GONE, patience.now.to_string());
                return Standing::Leave(
                    "somebody has just taken its LUN away".to_string(),
                    Some(note),
                );
            }
        },
    };
    // A clock that went back makes nobody wait for ever.
    let age = patience.now.saturating_sub(since);
    if since <= patience.now && age < patience.settle {
        return Standing::Leave(format!("it changed {age} s ago"), None);
    }
    Standing::Serve
}

/// The LUN numbers of the group.
struct Numbers {
    used: BTreeMap<u64, String>,
    recorded: u64,
    next: u64,
}

impl Numbers {
    fn new(seen: &Seen<'_>, zvols: &[&Dataset]) -> Numbers {
        let root = seen.datasets.iter().find(|each| each.name == seen.root);
        let mark = root.and_then(|root| root.own.get(NEXT));
        let recorded: u64 = mark.and_then(|text| text.parse().ok()).unwrap_or(0);
        let given = zvols.iter().filter_map(|zvol| number(zvol));
        let shown = seen.live.values().map(|live| live.lun).chain(seen.foreign.iter().copied());
        let next = given.chain(shown).map(|lun| lun + 1).max().unwrap_or(0).max(recorded);
        let foreign = seen.foreign.iter().map(|lun| (*lun, "a LUN that is not ours".to_string()));
        Numbers { used: foreign.collect(), recorded, next }
    }

    /// Takes a number, or the next one.
    fn take(&mut self, wanted: Option<u64>, zvol: &str) -> Result<u64, String> {
        let lun = wanted.unwrap_or(self.next);
        if let Some(other) = self.used.get(&lun) {
            return Err(format!("{other} has its LUN number {lun}"));
        }
        self.used.insert(lun, zvol.to_string());
        self.next = self.next.max(lun + 1);
        Ok(lun)
    }
}

fn identity(seen: &Seen<'_>, zvol: &Dataset, numbers: &mut Numbers) -> Result<Identity, String> {
    let name = zvol.name.clone();
    let kept = zvol.own.get(RESERVATIONS).cloned().unwrap_or_default();
    let noted = zvol.own.get(ATTRIBUTES).map_or(Ok(Attributes::default()), |text| text.parse());
    if let Some(live) = seen.live.get(&name) {
        let lun = numbers.take(Some(live.lun), &name)?;
        // It is served: whatever its property says now, its initiators go on.
        let attributes = live.attributes.unwrap_or(noted.unwrap_or_default());
        return Ok(Identity {
            zvol: name,
            lun,
            serial: live.serial.clone(),
            name: live.name.clone(),
            reservations: live.reservations.clone().unwrap_or(kept),
            attributes,
        });
    }
    let attributes = noted?;
    let guid = zvol.values.get("guid").and_then(|guid| guid.parse::<u64>().ok());
    let guid = guid.ok_or("it has no guid")?;
    let lun = numbers.take(number(zvol), &name)?;
    let serial =
        zvol.own.get(SERIAL).cloned().unwrap_or_else(|| default_serial(guid, seen.pool_guid));
    let backstore = zvol.own.get(NAME).cloned().unwrap_or_else(|| default_name(seen, &name));
    Ok(Identity { zvol: name, lun, serial, name: backstore, reservations: kept, attributes })
}

/// What the zvol's properties lack of its identity.
fn notes(seen: &Seen<'_>, zvol: &Dataset, identity: &Identity) -> Vec<Note> {
    let mut notes = Vec::new();
    if number(zvol) != Some(identity.lun) {
        notes.push(Note::Set(LUN, identity.lun.to_string()));
    }
    if zvol.own.get(SERIAL) != Some(&identity.serial) {
        notes.push(Note::Set(SERIAL, identity.serial.clone()));
    }
    let is_default = identity.name == default_name(seen, &identity.zvol);
    if !is_default && zvol.own.get(NAME) != Some(&identity.name) {
        notes.push(Note::Set(NAME, identity.name.clone()));
    }
    notes.extend(note(zvol, RESERVATIONS, &identity.reservations));
    // Of ours the property is what is wanted.
    if seen.live.get(&identity.zvol).is_some_and(|live| live.attributes.is_some()) {
        notes.extend(note(zvol, ATTRIBUTES, &identity.attributes.to_string()));
    }
    if zvol.own.contains_key(GONE) {
        notes.push(Note::Remove(GONE));
    }
    notes
}

/// What makes a property what is wanted; an empty one is none.
fn note(zvol: &Dataset, property: &'static str, wanted: &str) -> Option<Note> {
    match (zvol.own.get(property), wanted) {
        (Some(_), "") => Some(Note::Remove(property)),
        (there, wanted) if there.map_or("", String::as_str) != wanted => {
            Some(Note::Set(property, wanted.to_string()))
        }
        _ => None,
    }
}

fn number(zvol: &Dataset) -> Option<u64> {
    zvol.own.get(LUN)?.parse().ok()
}

/// 32 hexadecimal digits, of which LIO takes the first 25 for the NAA: all of the zvol's GUID, which
/// is unique in the pool, and 9 digits of the pool's.
fn default_serial(zvol_guid: u64, pool_guid: u64) -> String {
    format!("{zvol_guid:016x}{pool_guid:016x}")
}

fn default_name(seen: &Seen<'_>, zvol: &str) -> String {
    let plain = |name: &str| name.replace(['/', ' '], "-");
    match seen.naming {
        Naming::Proxmox => plain(zvol),
        Naming::Zvol { vlan } => {
            let below = zvol.strip_prefix(seen.root).map(|rest| rest.trim_start_matches('/'));
            let name = plain(below.unwrap_or(zvol));
            vlan.as_ref().map_or(name.clone(), |vlan| format!("{vlan}-{name}"))
        }
    }
}

/// What of a serial the initiators tell disks by.
fn naa(serial: &str) -> String {
    let digits = serial.chars().filter(char::is_ascii_hexdigit).take(NAA_DIGITS);
    digits.map(|digit| digit.to_ascii_lowercase()).collect()
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
