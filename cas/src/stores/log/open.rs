//! Start-up: from segment files to an index.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use super::index::{Index, Location};
use super::segment::{PREFIX, Segment};
use super::sidecar::SidecarEntry;
use super::{Active, LogOptions, LogStore, clean, sidecar};
use crate::error::StoreError;
use crate::promises::{ANYBODY, Times};

/// What one segment file held.
struct Loaded {
    segment: Arc<Segment>,
    entries: Vec<SidecarEntry>,
}

impl LogStore {
    /// Opens or creates the log in `options.dir`, which nobody else may use. Blocks. `now` in
    /// seconds since the epoch.
    pub fn open(options: LogOptions, now: u32) -> Result<Self, StoreError> {
        let dir = options.dir.clone();
        std::fs::create_dir_all(&dir)
            .map_err(|error| StoreError::io(format!("create {}", dir.display()), error))?;
        let clean = clean::take_mark(&dir);
        let index = Index::new();
        let mut segments = BTreeMap::new();
        let mut last_entries = Vec::new();
        let mut used = 0;
        let leased_until = now.saturating_add(options.lease);
        let after_crash =
            (!clean).then_some(Times { accessed: now, leased_until, holders: ANYBODY });
        for id in segment_ids(&dir)? {
            let Some(loaded) = load(&dir, id, after_crash, now)? else { continue };
            used += loaded.segment.length() + loaded.segment.sidecar.load(Ordering::Relaxed);
            segments.insert(id, loaded.segment.clone());
            enter(&index, &segments, &loaded)?;
            last_entries = loaded.entries;
        }
        let segment = match segments.last_key_value() {
            Some((_, last)) => last.clone(),
            None => {
                let first = Arc::new(Segment::create(&dir, 0)?);
                used += PREFIX;
                segments.insert(0, first.clone());
                first
            }
        };
        Ok(Self {
            options,
            index,
            segments: RwLock::new(segments),
            active: Mutex::new(Active { segment, entries: last_entries }),
            sealed: Mutex::default(),
            sealing_due: AtomicBool::new(false),
            directory_dirty: AtomicBool::new(true),
            used: AtomicU64::new(used),
            corrupt: AtomicU64::new(0),
            syncing: Mutex::default(),
        })
    }
}

/// Numbers of the segments in `dir`, in order. Removes unfinished sidecars, and those whose
/// segment is gone: the next segment of that number must not find them.
fn segment_ids(dir: &Path) -> Result<Vec<u32>, StoreError> {
    let failed = |error| StoreError::io(format!("list {}", dir.display()), error);
    let (mut ids, mut sidecars) = (Vec::new(), Vec::new());
    for file in std::fs::read_dir(dir).map_err(failed)? {
        let path = file.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number = |suffix| {
            name.strip_suffix(suffix).and_then(|id: &str| u32::from_str_radix(id, 16).ok())
        };
        if name.ends_with(".tmp") {
            std::fs::remove_file(&path).map_err(failed)?;
        }
        ids.extend(number(".log"));
        sidecars.extend(number(".idx"));
    }
    ids.sort_unstable();
    for id in sidecars {
        if ids.binary_search(&id).is_err() {
            sidecar::remove(dir, id)?;
        }
    }
    Ok(ids)
}

/// Reads one segment: from its sidecar what that covers, the rest by walking. Cuts off what
/// comes after the last intact record.
fn load(
    dir: &Path,
    id: u32,
    after_crash: Option<Times>,
    now: u32,
) -> Result<Option<Loaded>, StoreError> {
    let Some(segment) = Segment::open(dir, id)? else {
        std::fs::remove_file(super::segment::path(dir, id))
            .map_err(|error| StoreError::io(format!("remove segment {id}"), error))?;
        sidecar::remove(dir, id)?;
        return Ok(None);
    };
    let sidecar = sidecar::read(dir, id).filter(|sidecar| sidecar.fits(segment.length()));
    let mut entries = Vec::new();
    let mut covered = PREFIX;
    match sidecar {
        Some(sidecar) => {
            segment.sidecar.store(sidecar.bytes, Ordering::Relaxed);
            covered = sidecar.covered;
            entries = sidecar.entries;
        }
        None => sidecar::remove(dir, id)?,
    }
    if let Some(times) = after_crash {
        for entry in &mut entries {
            entry.times.leased_until = entry.times.leased_until.max(times.leased_until);
        }
    }
    let times = after_crash.unwrap_or(Times { accessed: now, leased_until: now, holders: ANYBODY });
    let end = segment.walk(covered, |found| {
        let (offset, length) = (found.offset as u32, found.length);
        if found.live {
            entries.push(SidecarEntry { key: found.key, offset, length, times });
        }
    })?;
    if end < segment.length() {
        segment.truncate(end)?;
    }
    Ok(Some(Loaded { segment: Arc::new(segment), entries }))
}

/// Enters a segment's records into the index. The dead bytes are what remains.
fn enter(
    index: &Index,
    segments: &BTreeMap<u32, Arc<Segment>>,
    loaded: &Loaded,
) -> Result<(), StoreError> {
    let segment = &loaded.segment;
    let mut live = 0;
    for entry in &loaded.entries {
        let at = Location { segment: segment.id, offset: entry.offset, length: entry.length };
        live += at.space();
        let Some(old) = index.set(&entry.key, at, entry.times) else { continue };
        if old.segment == segment.id {
            live -= old.space();
        }
        if let Some(segment) = segments.get(&old.segment) {
            if old.segment != at.segment {
                segment.add_dead(old.space());
            }
            segment.mark_dead(u64::from(old.offset))?;
        }
    }
    segment.add_dead((segment.length() - PREFIX).saturating_sub(live));
    Ok(())
}
