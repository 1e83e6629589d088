//! Eviction and compaction. Both block and belong on a thread for blocking work.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use kiln_net::causes::chain;

use super::index::Location;
use super::record::{HEADER, Header};
use super::segment::{Found, PREFIX, Segment};
use super::{LogStore, lock};
use crate::error::StoreError;
use crate::promises::{Ruling, Times};

impl LogStore {
    /// Calls `visit` with the bytes and times of every entry.
    pub fn survey(&self, mut visit: impl FnMut(u64, Times)) {
        self.index.for_each(|_, at, times| visit(at.space(), times));
    }

    /// Forgets the entries without a promise that stands that `choose` picks by bytes and times.
    /// Returns how many went. Their space is free only after compaction.
    pub fn evict(&self, ruling: &Ruling, mut choose: impl FnMut(u64, Times) -> bool) -> u64 {
        let mut gone = Vec::new();
        self.index.evict(ruling, |at, times| choose(at.space(), times), |at| gone.push(at));
        for at in &gone {
            let Some(segment) = self.segment(at.segment) else { continue };
            if self.options.mutable
                && let Err(error) = segment.mark_dead(u64::from(at.offset))
            {
                tracing::warn!(
                    error = %chain(&error),
                    "a restart may bring an evicted record back"
                );
            }
            segment.add_dead(at.space());
        }
        gone.len() as u64
    }

    /// Compacts the segment with the largest share of dead bytes, if that is at least
    /// `1/divisor` of it. `false`: there is none.
    pub fn compact_worst(&self, divisor: u64) -> Result<bool, StoreError> {
        if let Some(segment) = self.worst(divisor) {
            self.compact(&segment)?;
            return Ok(true);
        }
        let Some(segment) = self.seal_if_dead(divisor)? else { return Ok(false) };
        self.compact(&segment)?;
        Ok(true)
    }

    /// Seals the active segment if that share of it is dead: compaction leaves that one alone.
    fn seal_if_dead(&self, divisor: u64) -> Result<Option<Arc<Segment>>, StoreError> {
        let mut active = lock(&self.active);
        let segment = active.segment.clone();
        let length = segment.length() - PREFIX;
        if segment.dead() == 0 || segment.dead() * divisor < length {
            return Ok(None);
        }
        if segment.dead() == length {
            // Nothing in it is alive: no other file is needed, which a full disk might refuse.
            self.remove_sidecar(&segment)?;
            segment.truncate(PREFIX)?;
            segment.reset_dead();
            active.entries.clear();
            self.used.fetch_sub(length, Ordering::Relaxed);
            return Ok(None);
        }
        self.roll(&mut active)?;
        Ok(Some(segment))
    }

    fn worst(&self, divisor: u64) -> Option<Arc<Segment>> {
        let active = lock(&self.active).segment.id;
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let candidates = segments.values().filter(|segment| {
            segment.id != active && segment.dead() * divisor >= segment.length() - PREFIX
        });
        // Compared in parts per million: lengths differ between segments.
        candidates
            .max_by_key(|segment| segment.dead() * 1_000_000 / segment.length())
            .filter(|segment| segment.dead() > 0 || segment.length() == PREFIX)
            .cloned()
    }

    /// Copies the live records forward, makes the copies durable, then removes the segment.
    fn compact(&self, segment: &Arc<Segment>) -> Result<(), StoreError> {
        let mut live = Vec::new();
        let end = segment.length();
        if segment.dead() < end - PREFIX {
            segment.walk(PREFIX, |found| {
                let at = location(segment, &found);
                if found.live && self.index.locate(&found.key) == Some(at) {
                    live.push(found);
                }
            })?;
        }
        for found in &live {
            self.copy_forward(segment, found)?;
        }
        if !live.is_empty() {
            self.sync()?;
        }
        self.remove(segment)
    }

    fn copy_forward(&self, segment: &Segment, found: &Found) -> Result<(), StoreError> {
        let from = location(segment, found);
        let record = segment
            .read(found.offset, HEADER + found.length as usize)
            .map_err(|error| StoreError::io(format!("read log segment {}", segment.id), error))?;
        let intact = Header::decode(&record)
            .filter(|header| header.live && header.matches(&record[HEADER..]));
        let (Some(_), Some(header)) = (intact, record.first_chunk::<HEADER>()) else {
            self.drop_damaged(&found.key, from);
            return Ok(());
        };
        let mut active = lock(&self.active);
        // Under this lock nobody replaces the record; it may have been evicted since.
        let Some(times) = self.index.times_at(&found.key, from) else { return Ok(()) };
        let to = self.append(&mut active, &found.key, header, &record[HEADER..], times)?;
        if !self.index.relocate(&found.key, from, to) {
            drop(active);
            self.mark_space_dead(to);
        }
        Ok(())
    }

    fn remove(&self, segment: &Segment) -> Result<(), StoreError> {
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        // The sidecar first: it must not be found by a later segment of that number.
        self.remove_sidecar(segment)?;
        segment.delete()?;
        segments.remove(&segment.id);
        drop(segments);
        lock(&self.sealed).retain(|sealed| sealed.segment.id != segment.id);
        self.used.fetch_sub(segment.length(), Ordering::Relaxed);
        Ok(())
    }
}

fn location(segment: &Segment, found: &Found) -> Location {
    Location { segment: segment.id, offset: found.offset as u32, length: found.length }
}
