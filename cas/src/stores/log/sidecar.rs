//! A segment's index in a file of its own, so that a start reads no payloads.
//!
//! Written only after its segment is durable: its presence vouches for the records it names.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::record::{ALIGN, KEY, Key, space};
use crate::error::StoreError;
use crate::promises::{ANYBODY, Times};

const MAGIC: [u8; 8] = *b"KILNIDX\n";
const VERSION: u32 = 1;
/// Magic, version, segment, covered bytes, number of entries.
const PREFIX: usize = 8 + 4 + 4 + 8 + 8;
const ENTRY: usize = KEY + 4 * 4;

/// Where a record lies in its segment, and its times as of when the file was written. The store of large
/// files keeps times alone: its entries have 0 for offset and length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SidecarEntry {
    pub key: Key,
    /// Where the record begins: bytes from the start of the segment.
    pub offset: u32,
    /// Bytes of its value.
    pub length: u32,
    pub times: Times,
}

pub struct Sidecar {
    /// The entries describe the segment up to this offset.
    pub covered: u64,
    pub entries: Vec<SidecarEntry>,
    /// Size of the file.
    pub bytes: u64,
}

impl Sidecar {
    /// Whether it can be that of a segment of so many bytes: all records lie within it.
    pub fn fits(&self, length: u64) -> bool {
        let within = |entry: &SidecarEntry| {
            u64::from(entry.offset) >= super::segment::PREFIX
                && u64::from(entry.offset) + space(entry.length.into()) <= self.covered
        };
        (super::segment::PREFIX..=length).contains(&self.covered)
            && self.covered.is_multiple_of(ALIGN)
            && self.entries.iter().all(within)
    }
}

pub fn path(dir: &Path, segment: u32) -> PathBuf {
    dir.join(format!("{segment:08x}.idx"))
}

/// Writes the file whole or not at all; returns its size.
pub fn write(
    dir: &Path,
    segment: u32,
    covered: u64,
    entries: &[SidecarEntry],
) -> Result<u64, StoreError> {
    let data = encode(segment, covered, entries);
    let (path, temporary) = (path(dir, segment), dir.join(format!("{segment:08x}.idx.tmp")));
    let result = std::fs::File::create(&temporary)
        .and_then(|mut file| file.write_all(&data))
        .and_then(|()| std::fs::rename(&temporary, &path));
    if let Err(error) = result {
        // Start-up removes it as well.
        let _ = std::fs::remove_file(&temporary);
        return Err(StoreError::io(format!("write {}", path.display()), error));
    }
    Ok(data.len() as u64)
}

pub fn encode(segment: u32, covered: u64, entries: &[SidecarEntry]) -> Vec<u8> {
    let mut data = Vec::with_capacity(PREFIX + entries.len() * ENTRY + 4);
    data.extend_from_slice(&MAGIC);
    data.extend_from_slice(&VERSION.to_le_bytes());
    data.extend_from_slice(&segment.to_le_bytes());
    data.extend_from_slice(&covered.to_le_bytes());
    data.extend_from_slice(&(entries.len() as u64).to_le_bytes());
    for entry in entries {
        data.extend_from_slice(&entry.key.0);
        let Times { accessed, leased_until, .. } = entry.times;
        for word in [entry.offset, entry.length, accessed, leased_until] {
            data.extend_from_slice(&word.to_le_bytes());
        }
    }
    let crc = crc32fast::hash(&data);
    data.extend_from_slice(&crc.to_le_bytes());
    data
}

/// `None`: absent, damaged or of another version; the segment is walked instead.
pub fn read(dir: &Path, segment: u32) -> Option<Sidecar> {
    let data = std::fs::read(path(dir, segment)).ok()?;
    let (content, crc) = data.split_last_chunk::<4>()?;
    let prefix = content.get(..PREFIX)?;
    let intact = crc32fast::hash(content) == u32::from_le_bytes(*crc)
        && prefix[..8] == MAGIC
        && prefix[8..12] == VERSION.to_le_bytes()
        && prefix[12..16] == segment.to_le_bytes();
    if !intact {
        return None;
    }
    let covered = u64::from_le_bytes(prefix[16..24].try_into().ok()?);
    let entries = content[PREFIX..].chunks_exact(ENTRY).map(decode_entry).collect();
    Some(Sidecar { covered, entries, bytes: data.len() as u64 })
}

fn decode_entry(bytes: &[u8]) -> SidecarEntry {
    let mut key = [0; KEY];
    key.copy_from_slice(&bytes[..KEY]);
    let word = |number: usize| {
        let at = KEY + 4 * number;
        u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    };
    let times = Times { accessed: word(2), leased_until: word(3), holders: ANYBODY };
    SidecarEntry { key: Key(key), offset: word(0), length: word(1), times }
}

pub fn remove(dir: &Path, segment: u32) -> Result<(), StoreError> {
    let path = path(dir, segment);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::io(format!("remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}
