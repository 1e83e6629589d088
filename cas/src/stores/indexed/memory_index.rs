//! An index in memory: for tests, and as the plainest statement of what an index does.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::index::{BlobIndex, Candidate, Generation, IndexEntry, IndexUsage, Place, Runs};
use crate::clock::Clock;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::promises::Run;

/// Blobs of one answer of [`BlobIndex::scan`].
const PAGE: usize = 1000;

pub struct MemoryIndex {
    state: Mutex<IndexContents>,
    clock: Clock,
}

struct IndexContents {
    epoch: u64,
    blobs: HashMap<Digest, Record>,
    /// The process that may collect garbage, and until when.
    collector: Option<(String, u32)>,
    /// When invocations began, and until when they count as running.
    runs: HashMap<[u8; 16], (u32, u32)>,
}

struct Record {
    generation: Option<Generation>,
    data: Option<Bytes>,
    leased_until: u32,
    pending_since: u32,
}

impl Record {
    fn place(&self) -> Place {
        self.generation.map_or(Place::Index, Place::Object)
    }

    fn promise(&mut self, until: u32) {
        self.leased_until = self.leased_until.max(until);
    }
}

impl MemoryIndex {
    pub fn new(clock: Clock) -> Self {
        Self { state: Mutex::new(IndexContents::new()), clock }
    }

    /// Loses everything.
    pub fn wipe(&self) {
        *self.state() = IndexContents::new();
    }

    fn state(&self) -> MutexGuard<'_, IndexContents> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn after(&self, time: Duration) -> u32 {
        let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
        self.clock.now().saturating_add(u32::try_from(seconds).unwrap_or(u32::MAX))
    }
}

impl IndexContents {
    fn new() -> Self {
        Self {
            epoch: fastrand::u64(..),
            blobs: HashMap::new(),
            collector: None,
            runs: HashMap::new(),
        }
    }
}

#[async_trait]
impl BlobIndex for MemoryIndex {
    async fn find(
        &self,
        digests: &[Digest],
        lease: Duration,
    ) -> Result<Vec<Option<IndexEntry>>, StoreError> {
        let (now, until) = (self.clock.now(), self.after(lease));
        let mut state = self.state();
        let found = digests.iter().map(|digest| {
            let record = state.blobs.get_mut(digest)?;
            record.promise(until);
            let left = record.leased_until.saturating_sub(now);
            Some(IndexEntry { place: record.place(), lease: Duration::from_secs(left.into()) })
        });
        Ok(found.collect())
    }

    async fn absent(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let state = self.state();
        let known = |digest: &Digest| state.blobs.contains_key(digest);
        Ok(digests.iter().filter(|digest| !known(digest)).copied().collect())
    }

    async fn shorten(&self, digests: &[Digest], lease: Duration) -> Result<(), StoreError> {
        let until = self.after(lease);
        let mut state = self.state();
        for digest in digests {
            if let Some(record) = state.blobs.get_mut(digest) {
                record.leased_until = record.leased_until.min(until);
            }
        }
        Ok(())
    }

    async fn small(&self, digests: &[Digest]) -> Result<Vec<Option<Bytes>>, StoreError> {
        let state = self.state();
        Ok(digests.iter().map(|digest| state.blobs.get(digest)?.data.clone()).collect())
    }

    async fn put_small(
        &self,
        blobs: &[(Digest, Bytes)],
        lease: Duration,
    ) -> Result<(), StoreError> {
        let (now, until) = (self.clock.now(), self.after(lease));
        let wrong = blobs.iter().find(|(digest, data)| data.len() as u64 != digest.size);
        if let Some((digest, data)) = wrong {
            let actual = data.len() as u64;
            return Err(StoreError::SizeMismatch { expected: *digest, actual });
        }
        let mut state = self.state();
        for (digest, data) in blobs {
            let record = state.blobs.entry(*digest).or_insert_with(|| Record {
                generation: None,
                data: Some(data.clone()),
                leased_until: until,
                pending_since: now,
            });
            record.promise(until);
            record.data.get_or_insert_with(|| data.clone());
        }
        Ok(())
    }

    async fn place(
        &self,
        digest: &Digest,
        generation: Generation,
        lease: Duration,
    ) -> Result<Generation, StoreError> {
        let until = self.after(lease);
        let mut state = self.state();
        let record = state.blobs.entry(*digest).or_insert_with(|| Record {
            generation: None,
            data: None,
            leased_until: until,
            pending_since: 0,
        });
        record.promise(until);
        Ok(*record.generation.get_or_insert(generation))
    }

    async fn forget(&self, digest: &Digest, place: Place) -> Result<bool, StoreError> {
        let mut state = self.state();
        let there = state.blobs.get(digest).is_some_and(|record| record.place() == place);
        if there {
            state.blobs.remove(digest);
        }
        Ok(there)
    }

    async fn take_pending(
        &self,
        age: Duration,
        limit: usize,
    ) -> Result<Vec<(Digest, Bytes)>, StoreError> {
        let now = self.clock.now();
        let age = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
        let mut state = self.state();
        let pending = state.blobs.iter_mut().filter(|(_, record)| record.generation.is_none());
        let old = pending.filter(|(_, record)| now.saturating_sub(record.pending_since) > age);
        let taken = old.filter_map(|(digest, record)| {
            record.pending_since = now;
            Some((*digest, record.data.clone()?))
        });
        Ok(taken.take(limit).collect())
    }

    async fn usage(&self) -> Result<IndexUsage, StoreError> {
        let state = self.state();
        Ok(IndexUsage {
            blobs: state.blobs.len() as u64,
            bytes: state.blobs.keys().map(|digest| digest.size).sum(),
            pending: state.blobs.values().filter(|record| record.generation.is_none()).count()
                as u64,
        })
    }

    async fn scan(&self, from: Option<u64>) -> Result<(Vec<Candidate>, Option<u64>), StoreError> {
        let now = self.clock.now();
        let from = usize::try_from(from.unwrap_or(0)).unwrap_or(usize::MAX);
        let state = self.state();
        let mut digests: Vec<_> = state.blobs.keys().copied().collect();
        digests.sort_unstable();
        let page = digests.iter().skip(from).take(PAGE).filter_map(|digest| {
            let record = state.blobs.get(digest)?;
            let expired = Duration::from_secs(now.saturating_sub(record.leased_until).into());
            let (generation, ends) = (record.generation?, record.leased_until);
            Some(Candidate { digest: *digest, generation, expired, ends })
        });
        let next = from.saturating_add(PAGE);
        Ok((page.collect(), (next < digests.len()).then_some(next as u64)))
    }

    async fn evict_until(
        &self,
        blobs: &[(Digest, Generation)],
        ends: u32,
    ) -> Result<Vec<bool>, StoreError> {
        let now = self.clock.now().max(ends);
        let mut state = self.state();
        let evicted = blobs.iter().map(|(digest, generation)| {
            let gone = state.blobs.get(digest).is_some_and(|record| {
                record.generation == Some(*generation) && record.leased_until <= now
            });
            if gone {
                state.blobs.remove(digest);
            }
            gone
        });
        Ok(evicted.collect())
    }

    async fn report_runs(&self, runs: &[Run]) -> Result<Runs, StoreError> {
        let now = self.clock.now();
        let mut state = self.state();
        for run in runs {
            let (since, until) = (now.saturating_sub(run.age), now.saturating_add(run.left));
            let known = state.runs.entry(run.id).or_insert((since, until));
            *known = (known.0.min(since), known.1.max(until));
        }
        state.runs.retain(|_, (_, until)| *until > now);
        Ok(Runs { now, oldest: state.runs.values().map(|(since, _)| *since).min() })
    }

    async fn epoch(&self) -> Result<u64, StoreError> {
        Ok(self.state().epoch)
    }

    async fn claim_collection(&self, owner: &str, hold: Duration) -> Result<bool, StoreError> {
        let (now, until) = (self.clock.now(), self.after(hold));
        let mut state = self.state();
        let free =
            state.collector.as_ref().is_none_or(|(holder, until)| holder == owner || *until <= now);
        if free {
            state.collector = Some((owner.to_owned(), until));
        }
        Ok(free)
    }
}
