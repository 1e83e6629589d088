//! The engine under test.

mod cases;
mod model;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::*;
use crate::promises::ANYBODY;

const SEGMENT: u64 = 2048;
const LEASE: u32 = 100;
const START: u32 = 1000;

fn open(dir: &Path, now: u32) -> LogStore {
    let options =
        LogOptions { dir: dir.to_owned(), segment_size: SEGMENT, lease: LEASE, mutable: true };
    LogStore::open(options, now).unwrap()
}

fn key(number: u8) -> Key {
    Key::new(&crate::digest::DigestFunction::Sha256.digest(&[number]).hash, 0, 1)
}

fn at(accessed: u32) -> Times {
    Times { accessed, leased_until: 0, holders: ANYBODY }
}

fn leased(until: u32) -> Times {
    Times { accessed: START, leased_until: until, holders: ANYBODY }
}

/// Bytes of all segment and sidecar files.
fn bytes_on_disk(dir: &Path) -> u64 {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

fn active_path(log: &LogStore) -> PathBuf {
    segment::path(&log.options.dir, lock(&log.active).segment.id)
}

/// Live and dead bytes add up to the segments' lengths.
fn check_accounts(log: &LogStore) {
    assert_eq!(log.used(), bytes_on_disk(&log.options.dir), "bytes on disk");
    let mut live: HashMap<u32, u64> = HashMap::new();
    let mut count = 0;
    log.index.for_each(|_, at, _| {
        *live.entry(at.segment).or_default() += at.space();
        count += 1;
    });
    assert_eq!(log.count(), count);
    for (id, segment) in log.segments.read().unwrap().iter() {
        let live = live.get(id).copied().unwrap_or(0);
        let length = segment.length() - segment::PREFIX;
        assert_eq!(live + segment.dead(), length, "segment {id}: live and dead bytes");
    }
}
