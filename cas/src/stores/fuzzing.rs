//! Entry points into the log for `fuzz/`: they open files of any bytes, and damage good ones. A property that
//! does not hold is a panic.

use std::path::Path;

use super::log::sidecar::SidecarEntry;
use super::log::{Key, LogOptions, LogStore, Put, segment, sidecar};
use crate::digest::DigestFunction;
use crate::promises::Times;

const SEGMENT: u64 = 16 << 10;
const NOW: u32 = 1000;

/// What happens to the files of a log.
#[derive(Debug, Clone)]
pub enum Damage {
    /// Four bytes are changed where `bits` says so.
    Flip {
        sidecar: bool,
        at: usize,
        bits: [u8; 4],
    },
    Truncate {
        sidecar: bool,
        at: usize,
    },
    /// To the segment.
    Append(Vec<u8>),
}

fn open(dir: &Path) -> Result<LogStore, String> {
    let options =
        LogOptions { dir: dir.to_owned(), segment_size: SEGMENT, lease: 100, mutable: true };
    LogStore::open(options, NOW).map_err(|error| error.to_string())
}

fn key(seed: &[u8]) -> Key {
    Key::new(&DigestFunction::Sha256.digest(seed).hash, 0, 1)
}

fn times() -> Times {
    Times { accessed: NOW, leased_until: 0, holders: 0 }
}

/// How a segment file begins.
pub fn segment_prefix(id: u32) -> [u8; segment::PREFIX as usize] {
    segment::prefix(id)
}

/// A sidecar with a checksum that matches. Entries: seed of the key, offset, length.
pub fn sidecar(id: u32, covered: u64, entries: &[([u8; 3], u32, u32)]) -> Vec<u8> {
    let entry = |(seed, offset, length): &([u8; 3], u32, u32)| SidecarEntry {
        key: key(seed),
        offset: *offset,
        length: *length,
        times: times(),
    };
    let entries: Vec<_> = entries.iter().map(entry).collect();
    sidecar::encode(id, covered, &entries)
}

/// Opens a log of these files in the empty `dir`. What can be read after that has the right
/// checksum, and what is put then is found, also after another start.
pub fn open_files(dir: &Path, segment: &[u8], sidecar: Option<&[u8]>) {
    std::fs::write(segment::path(dir, 0), segment).expect("the segment is written");
    if let Some(sidecar) = sidecar {
        std::fs::write(sidecar::path(dir, 0), sidecar).expect("the sidecar is written");
    }
    let Ok(log) = open(dir) else { return };
    let mut keys = Vec::new();
    log.for_each_key(|key| keys.push(*key));
    for key in &keys {
        log.get(key, times()).expect("reading works");
    }
    let added = key(b"added");
    log.put(&added, b"value", Put::Replace, times()).expect("putting works");
    while log.compact_worst(1_000_000).expect("compaction works") {}
    log.sync().expect("syncing works");
    drop(log);
    let log = open(dir).expect("what was opened once opens again");
    let found = log.get(&added, times()).expect("reading works");
    assert_eq!(found.as_deref(), Some(&b"value"[..]));
}

/// Puts values of these lengths, closes or abandons the log, damages it, and opens it again:
/// every value is absent or what it was.
pub fn damaged(dir: &Path, lengths: &[u16], close: bool, damage: &[Damage]) {
    let value = |number: usize, length: u16| vec![number as u8; usize::from(length)];
    let log = open(dir).expect("an empty log opens");
    for (number, length) in lengths.iter().enumerate() {
        let value = value(number, *length);
        let stored = log.put(&key(&[number as u8]), &value, Put::Replace, times());
        assert!(stored.expect("putting works"));
    }
    if close {
        log.close().expect("closing works");
    }
    drop(log);
    damage.iter().for_each(|damage| apply(dir, damage));
    let Ok(log) = open(dir) else { return };
    for (number, length) in lengths.iter().enumerate() {
        let found = log.get(&key(&[number as u8]), times()).expect("reading works");
        assert!(found.is_none_or(|found| found == value(number, *length)), "a wrong value");
    }
    if damage.is_empty() {
        assert_eq!(log.count(), lengths.len() as u64, "a value was lost");
    }
}

fn apply(dir: &Path, damage: &Damage) {
    let path = |sidecar: bool| match sidecar {
        true => sidecar::path(dir, 0),
        false => segment::path(dir, 0),
    };
    let (file, change): (_, Box<dyn Fn(&mut Vec<u8>)>) = match damage.clone() {
        Damage::Flip { sidecar, at, bits } => (
            path(sidecar),
            Box::new(move |data| {
                let length = data.len().max(1);
                let place = data.iter_mut().skip(at % length);
                place.zip(bits).for_each(|(byte, bits)| *byte ^= bits);
            }),
        ),
        Damage::Truncate { sidecar, at } => {
            (path(sidecar), Box::new(move |data| data.truncate(at % (data.len() + 1))))
        }
        Damage::Append(bytes) => {
            (path(false), Box::new(move |data| data.extend_from_slice(&bytes)))
        }
    };
    // Without a clean close there is no sidecar to damage.
    let Ok(mut data) = std::fs::read(&file) else { return };
    change(&mut data);
    std::fs::write(&file, data).expect("the file is written");
}
