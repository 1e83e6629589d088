//! Collecting garbage: blobs whose lease has ended go, those whose lease ended longest ago
//! first; out of the index, and only then out of the object store.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::index::{Candidate, Generation};
use super::parts::Parts;
use crate::digest::Digest;
use crate::error::StoreError;

/// Candidates that one survey keeps in mind.
const SURVEY: usize = 50_000;
/// Blobs that are evicted, and objects that are deleted, at once.
const BATCH: usize = 1000;
/// How long a process keeps the right to collect without using it.
pub const HOLD: Duration = Duration::from_secs(60);

/// What a pass has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Another process collects: this one did nothing, or stopped.
    pub busy: bool,
    pub blobs: u64,
    pub bytes: u64,
}

impl Parts {
    /// Whether this process may collect now; others may not meanwhile.
    pub async fn claim(&self) -> Result<bool, StoreError> {
        self.index.claim_collection(&self.owner, HOLD).await
    }

    /// Evicts what has outlived its time, and what is in the way of `need` more bytes.
    pub async fn collect(&self, need: u64) -> Result<Collected, StoreError> {
        let mut collected = Collected::default();
        loop {
            if !self.claim().await? {
                return Ok(Collected { busy: true, ..collected });
            }
            let excess = match self.space.limited() {
                true => self.space.excess(self.count_space().await?, need),
                false => 0,
            };
            if excess == 0 && self.options.keep.is_none() {
                return Ok(collected);
            }
            let survey = self.survey().await?;
            let truncated = survey.len() == SURVEY;
            let chosen = self.choose(survey, excess);
            if chosen.is_empty() {
                return Ok(collected);
            }
            let before = collected.blobs;
            for batch in chosen.chunks(BATCH) {
                if !self.claim().await? {
                    return Ok(Collected { busy: true, ..collected });
                }
                self.evict(batch, &mut collected).await?;
            }
            if !truncated || collected.blobs == before {
                return Ok(collected);
            }
        }
    }

    /// Those whose lease ended longest ago, the longest first.
    async fn survey(&self) -> Result<Vec<Candidate>, StoreError> {
        let mut oldest = BinaryHeap::new();
        let mut from = None;
        loop {
            let (page, next) = self.index.scan(from).await?;
            for candidate in page.into_iter().filter(|candidate| !candidate.expired.is_zero()) {
                oldest.push(Reverse(ByAge(candidate)));
                if oldest.len() > SURVEY {
                    oldest.pop();
                }
            }
            from = next;
            if from.is_none() {
                // Sorted as `Reverse` is: what ended longest ago comes first.
                let sorted = oldest.into_sorted_vec();
                return Ok(sorted.into_iter().map(|Reverse(ByAge(found))| found).collect());
            }
        }
    }

    fn choose(&self, survey: Vec<Candidate>, excess: u64) -> Vec<(Digest, Generation)> {
        let mut freed = 0;
        let chosen = survey.into_iter().filter(|candidate| {
            let outlived = self.options.keep.is_some_and(|keep| candidate.expired > keep);
            let goes = outlived || freed < excess;
            freed += if goes { candidate.digest.size } else { 0 };
            goes
        });
        chosen.map(|candidate| (candidate.digest, candidate.generation)).collect()
    }

    async fn evict(
        &self,
        batch: &[(Digest, Generation)],
        collected: &mut Collected,
    ) -> Result<(), StoreError> {
        let evicted = self.index.evict(batch).await?;
        let gone: Vec<_> = batch
            .iter()
            .zip(evicted)
            .filter_map(|(blob, evicted)| evicted.then_some(*blob))
            .collect();
        if gone.is_empty() {
            return Ok(());
        }
        let bytes = gone.iter().map(|(digest, _)| digest.size).sum();
        collected.blobs += gone.len() as u64;
        collected.bytes += bytes;
        self.counters.evicted_blobs.fetch_add(gone.len() as u64, Ordering::Relaxed);
        self.counters.evicted_bytes.fetch_add(bytes, Ordering::Relaxed);
        gone.iter().for_each(|(digest, _)| self.known.forget(digest));
        // What cannot be deleted now is an orphan, and found as such later.
        self.objects.delete(&gone).await
    }
}

struct ByAge(Candidate);

impl Ord for ByAge {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |this: &Self| (this.0.expired, this.0.digest);
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for ByAge {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByAge {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for ByAge {}
