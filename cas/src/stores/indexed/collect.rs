//! Collecting garbage: blobs whose lease has ended go, those whose lease ended longest ago
//! first; out of the index, and only then out of the object store. Where that is not enough,
//! blobs go that were promised to nobody who runs ([`super::running`]).

use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::claim::CollectionClaim;
use super::index::{BlobIndex, Candidate};
use super::objects::Objects;
use super::presence::PresenceCache;
use super::running::RunningInvocations;
use super::space::Space;
use crate::error::StoreError;

/// Candidates that one survey keeps in mind.
const SURVEY: usize = 50_000;
/// Blobs that are evicted, and objects that are deleted, at once.
const BATCH: usize = 1000;

/// What a pass has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Another process collects: this one did nothing, or stopped.
    pub busy: bool,
    pub blobs: u64,
    pub bytes: u64,
}

/// Blobs and their bytes.
#[derive(Default)]
struct Tally {
    blobs: AtomicU64,
    bytes: AtomicU64,
}

impl Tally {
    fn add(&self, bytes: u64) {
        self.blobs.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn now(&self) -> (u64, u64) {
        (self.blobs.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

/// Evicts blobs from the index, and deletes their objects.
pub struct Collector {
    index: Arc<dyn BlobIndex>,
    objects: Arc<dyn Objects>,
    presence: Arc<PresenceCache>,
    space: Arc<Space>,
    running: Arc<RunningInvocations>,
    claim: Arc<CollectionClaim>,
    /// Blobs go this long after their lease has ended; `None`: when room is needed.
    keep: Option<Duration>,
    evicted: Tally,
    cut_short: Tally,
}

impl Collector {
    pub fn new(
        (index, objects): (Arc<dyn BlobIndex>, Arc<dyn Objects>),
        presence: Arc<PresenceCache>,
        space: Arc<Space>,
        running: Arc<RunningInvocations>,
        claim: Arc<CollectionClaim>,
        keep: Option<Duration>,
    ) -> Self {
        let (evicted, cut_short) = Default::default();
        Self { index, objects, presence, space, running, claim, keep, evicted, cut_short }
    }

    /// Blobs and bytes that were evicted since the start.
    pub fn evicted(&self) -> (u64, u64) {
        self.evicted.now()
    }

    /// Of these, the blobs whose promise was cut short, and their bytes.
    pub fn cut_short(&self) -> (u64, u64) {
        self.cut_short.now()
    }

    /// Evicts what has outlived its time, and what is in the way of `need` more bytes: first what nobody is
    /// promised, then what was promised to nobody who runs.
    pub async fn collect(&self, need: u64) -> Result<Collected, StoreError> {
        let mut collected = Collected::default();
        self.collect_until(need, 0, &mut collected).await?;
        if collected.busy || self.excess(need).await? == 0 {
            return Ok(collected);
        }
        if let Some(until) = self.running.cut_until().await? {
            let before = self.cut_short();
            self.collect_until(need, until, &mut collected).await?;
            self.warn_of_cuts(before);
        }
        Ok(collected)
    }

    /// Bytes that are to go, for `need` more to come.
    async fn excess(&self, need: u64) -> Result<u64, StoreError> {
        match self.space.limited() {
            true => Ok(self.space.excess(self.space.count(&*self.index).await?, need)),
            false => Ok(0),
        }
    }

    /// One pass. Blobs go whose lease has ended, and also those whose lease ends in the second `until` of
    /// the index's clock, or before.
    async fn collect_until(
        &self,
        need: u64,
        until: u32,
        collected: &mut Collected,
    ) -> Result<(), StoreError> {
        loop {
            collected.busy = !self.claim.take().await?;
            if collected.busy {
                return Ok(());
            }
            let excess = self.excess(need).await?;
            if excess == 0 && self.keep.is_none() {
                return Ok(());
            }
            let survey = self.survey(until).await?;
            let truncated = survey.len() == SURVEY;
            let chosen = self.choose(survey, excess);
            let before = collected.blobs;
            for batch in chosen.chunks(BATCH) {
                collected.busy = !self.claim.take().await?;
                if collected.busy {
                    return Ok(());
                }
                self.evict(batch, until, collected).await?;
            }
            if !truncated || collected.blobs == before {
                return Ok(());
            }
        }
    }

    /// Finds the blobs that may go: those first whose lease ends first, or ended longest ago.
    async fn survey(&self, until: u32) -> Result<Vec<Candidate>, StoreError> {
        let may_go =
            |candidate: &Candidate| !candidate.expired.is_zero() || candidate.ends <= until;
        let mut oldest = BinaryHeap::new();
        let mut from = None;
        loop {
            let (page, next) = self.index.scan(from).await?;
            for candidate in page.into_iter().filter(may_go) {
                oldest.push(ByEnd(candidate));
                if oldest.len() > SURVEY {
                    oldest.pop();
                }
            }
            from = next;
            if from.is_none() {
                return Ok(oldest
                    .into_sorted_vec()
                    .into_iter()
                    .map(|ByEnd(found)| found)
                    .collect());
            }
        }
    }

    fn choose(&self, survey: Vec<Candidate>, excess: u64) -> Vec<Candidate> {
        let mut freed = 0;
        let chosen = survey.into_iter().filter(|candidate| {
            let outlived = self.keep.is_some_and(|keep| candidate.expired > keep);
            let goes = outlived || freed < excess;
            freed += if goes { candidate.digest.size } else { 0 };
            goes
        });
        chosen.collect()
    }

    async fn evict(
        &self,
        batch: &[Candidate],
        until: u32,
        collected: &mut Collected,
    ) -> Result<(), StoreError> {
        let blobs: Vec<_> = batch.iter().map(|found| (found.digest, found.generation)).collect();
        let evicted = self.index.evict_until(&blobs, until).await?;
        let gone =
            batch.iter().zip(evicted).filter_map(|(found, evicted)| evicted.then_some(found));
        let mut objects = Vec::new();
        for found in gone {
            collected.blobs += 1;
            collected.bytes += found.digest.size;
            self.evicted.add(found.digest.size);
            if found.expired.is_zero() {
                self.cut_short.add(found.digest.size);
            }
            self.presence.forget(&found.digest);
            objects.push((found.digest, found.generation));
        }
        if objects.is_empty() {
            return Ok(());
        }
        // What cannot be deleted now is an orphan, and found as such later.
        self.objects.delete(&objects).await
    }

    fn warn_of_cuts(&self, before: (u64, u64)) {
        let now = self.cut_short();
        if now != before {
            tracing::warn!(
                blobs = now.0 - before.0,
                bytes = now.1 - before.1,
                "the store is too small for what it promised: promises to builds that are over were \
                 cut short; raise s3.max_size by about so many bytes to keep them"
            );
        }
    }
}

struct ByEnd(Candidate);

impl Ord for ByEnd {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |this: &Self| (this.0.ends, this.0.digest);
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for ByEnd {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByEnd {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for ByEnd {}
