//! One append-only file of records.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::sys::uio::pwritev;

use super::record::{ALIGN, DEAD, HEADER, Header, Key};
use crate::error::StoreError;

const MAGIC: [u8; 8] = *b"KILNLOG\n";
const VERSION: u32 = 1;
/// Bytes before the first record: magic, version, segment number.
pub const PREFIX: u64 = 16;
/// Bytes searched at once for the next record after a damaged one.
const SEARCH_WINDOW: usize = 64 * 1024;

pub struct Segment {
    pub id: u32,
    path: PathBuf,
    file: File,
    /// Where the next record goes.
    length: AtomicU64,
    /// Bytes of records that nothing points at.
    dead: AtomicU64,
    /// Written to since it was last made durable.
    dirty: AtomicBool,
    /// Bytes known to be durable.
    #[cfg(test)]
    pub durable: AtomicU64,
    /// Bytes of its sidecar file, 0 without one.
    pub sidecar: AtomicU64,
}

/// A record found by walking a segment.
pub struct Found {
    pub offset: u64,
    pub key: Key,
    pub length: u32,
    pub live: bool,
}

pub fn path(dir: &Path, id: u32) -> PathBuf {
    dir.join(format!("{id:08x}.log"))
}

/// How the file of segment `id` begins.
pub fn prefix(id: u32) -> [u8; PREFIX as usize] {
    let mut prefix = [0; PREFIX as usize];
    prefix[..8].copy_from_slice(&MAGIC);
    prefix[8..12].copy_from_slice(&VERSION.to_le_bytes());
    prefix[12..16].copy_from_slice(&id.to_le_bytes());
    prefix
}

impl Segment {
    pub fn create(dir: &Path, id: u32) -> Result<Self, StoreError> {
        let path = path(dir, id);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(|error| failed("create", &path, error))?;
        if let Err(error) = file.write_all_at(&prefix(id), 0) {
            // Nothing partial stays behind; that the removal fails too changes nothing.
            let _ = std::fs::remove_file(&path);
            return Err(failed("write", &path, error));
        }
        Ok(Self::new(id, path, file, PREFIX, true))
    }

    /// `None`: the file ends within its prefix, so that nothing was ever stored in it.
    pub fn open(dir: &Path, id: u32) -> Result<Option<Self>, StoreError> {
        let path = path(dir, id);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|error| failed("open", &path, error))?;
        let length = file.metadata().map_err(|error| failed("stat", &path, error))?.len();
        if length < PREFIX {
            return Ok(None);
        }
        let mut prefix = [0; PREFIX as usize];
        file.read_exact_at(&mut prefix, 0).map_err(|error| failed("read", &path, error))?;
        if prefix[..8] != MAGIC || prefix[8..12] != VERSION.to_le_bytes() {
            return Err(StoreError::corrupt(format!(
                "{} is not a log segment of version {VERSION}; move it away to go on without it",
                path.display()
            )));
        }
        Ok(Some(Self::new(id, path, file, length, false)))
    }

    fn new(id: u32, path: PathBuf, file: File, length: u64, dirty: bool) -> Self {
        Self {
            id,
            path,
            file,
            length: length.into(),
            dead: AtomicU64::new(0),
            dirty: dirty.into(),
            #[cfg(test)]
            durable: AtomicU64::new(0),
            sidecar: AtomicU64::new(0),
        }
    }

    pub fn length(&self) -> u64 {
        self.length.load(Ordering::Acquire)
    }

    pub fn dead(&self) -> u64 {
        self.dead.load(Ordering::Relaxed)
    }

    pub fn add_dead(&self, bytes: u64) {
        self.dead.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn reset_dead(&self) {
        self.dead.store(0, Ordering::Relaxed);
    }

    /// Writes a record at the end and returns its offset. The caller is the only writer. After
    /// an error the segment is as it was before.
    pub fn append(&self, header: &[u8; HEADER], payload: &[u8]) -> Result<u64, StoreError> {
        let offset = self.length();
        let padding = [0; ALIGN as usize];
        let content = HEADER + payload.len();
        let padding = &padding[..content.next_multiple_of(ALIGN as usize) - content];
        let written = write_all_at(&self.file, &[header, payload, padding], offset);
        if let Ok(written) = written {
            self.length.store(offset + written, Ordering::Release);
        }
        // Only now: a sync that runs meanwhile may have missed these bytes.
        self.dirty.store(true, Ordering::Release);
        match written {
            Ok(_) => Ok(offset),
            Err(error) => {
                // If the cut fails too, the bytes are overwritten by the next record, and a
                // restart cuts them off.
                let _ = self.file.set_len(offset);
                Err(failed("write", &self.path, error))
            }
        }
    }

    /// Marks the record at `offset` so that no restart brings it back.
    pub fn mark_dead(&self, offset: u64) -> Result<(), StoreError> {
        let marked = self.file.write_all_at(&DEAD, offset);
        self.dirty.store(true, Ordering::Release);
        marked.map_err(|error| failed("write", &self.path, error))
    }

    pub fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; length];
        self.file.read_exact_at(&mut buffer, offset)?;
        Ok(buffer)
    }

    /// Whether anything was written since a sync began, be that over or not.
    pub fn is_dirty(&self) -> bool {
        self.dirty.load(Ordering::Acquire)
    }

    /// Makes what was written durable, if anything was.
    pub fn sync(&self) -> Result<(), StoreError> {
        if !self.dirty.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        #[cfg(test)]
        self.durable.fetch_max(self.length(), Ordering::AcqRel);
        self.file.sync_data().map_err(|error| {
            self.dirty.store(true, Ordering::Release);
            failed("sync", &self.path, error)
        })
    }

    /// Cuts the file off at `length`.
    pub fn truncate(&self, length: u64) -> Result<(), StoreError> {
        self.file.set_len(length).map_err(|error| failed("truncate", &self.path, error))?;
        self.length.store(length, Ordering::Release);
        self.dirty.store(true, Ordering::Release);
        Ok(())
    }

    /// Visits the intact records from `from` on, dead ones included, reading and checking their
    /// payloads; damaged ones are stepped over. Returns the end of the last intact record.
    pub fn walk(&self, from: u64, mut visit: impl FnMut(Found)) -> Result<u64, StoreError> {
        let end = self.length();
        let (mut at, mut intact) = (from, from);
        while at + HEADER as u64 <= end {
            match self.record_at(at, end).map_err(|error| failed("read", &self.path, error))? {
                Some(header) => {
                    let next = at + super::record::space(u64::from(header.length));
                    let Header { live, length, key, .. } = header;
                    visit(Found { offset: at, key, length, live });
                    (at, intact) = (next, next);
                }
                None => {
                    let next = self.next_candidate(at + ALIGN, end);
                    at = next.map_err(|error| failed("read", &self.path, error))?;
                }
            }
        }
        Ok(intact)
    }

    fn record_at(&self, at: u64, end: u64) -> io::Result<Option<Header>> {
        let Some(header) = Header::decode(&self.read(at, HEADER)?) else { return Ok(None) };
        if at + super::record::space(u64::from(header.length)) > end {
            return Ok(None);
        }
        let payload = self.read(at + HEADER as u64, header.length as usize)?;
        Ok(header.matches(&payload).then_some(header))
    }

    /// The next aligned offset at or after `at` that could begin a record; `end` if none.
    fn next_candidate(&self, mut at: u64, end: u64) -> io::Result<u64> {
        while at < end {
            let window = self.read(at, SEARCH_WINDOW.min((end - at) as usize))?;
            let hit = window.chunks(ALIGN as usize).position(|chunk| {
                chunk.starts_with(&super::record::LIVE) || chunk.starts_with(&DEAD)
            });
            if let Some(hit) = hit {
                return Ok(at + hit as u64 * ALIGN);
            }
            at += SEARCH_WINDOW as u64;
        }
        Ok(end)
    }

    pub fn delete(&self) -> Result<(), StoreError> {
        std::fs::remove_file(&self.path).map_err(|error| failed("remove", &self.path, error))
    }
}

fn failed(what: &str, path: &Path, error: io::Error) -> StoreError {
    StoreError::io(format!("{what} {}", path.display()), error)
}

/// Writes all `parts` one after the other; returns how many bytes that were.
fn write_all_at(file: &File, parts: &[&[u8]; 3], offset: u64) -> io::Result<u64> {
    let total: usize = parts.iter().map(|part| part.len()).sum();
    let mut written = 0;
    while written < total {
        let mut skip = written;
        let rest = parts.map(|part| {
            let from = skip.min(part.len());
            skip -= from;
            IoSlice::new(&part[from..])
        });
        match pwritev(file, &rest, (offset + written as u64) as i64) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => written += count,
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(total as u64)
}
