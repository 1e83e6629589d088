//! What is in fresh segments.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};

use super::digest::Digest;
use super::query::{damaged, within_skew};
use super::segment;
use super::snapshot::Snapshot;
use super::{History, HistoryError, SegmentMeta};
use crate::attempts::Attempt;

impl History {
    /// Attempts in fresh segments.
    pub(super) async fn fresh_of(
        &self,
        snapshot: &Snapshot,
        wanted: impl Fn(&Attempt) -> bool,
    ) -> Result<Vec<Attempt>, HistoryError> {
        self.forget_joined(snapshot);
        let mut found = Vec::new();
        for (fresh, _) in &snapshot.fresh {
            let all = self.fresh_segment(&fresh.meta).await?;
            found.extend(all.iter().filter(|it| wanted(it)).cloned());
        }
        Ok(found)
    }

    /// Digests of all fresh segments, in their order.
    pub(super) async fn digests(
        &self,
        snapshot: &Snapshot,
    ) -> Result<Vec<Arc<Digest>>, HistoryError> {
        self.forget_joined(snapshot);
        let mut digests = Vec::with_capacity(snapshot.fresh.len());
        for (fresh, _) in &snapshot.fresh {
            digests.push(self.digest(&fresh.meta).await?);
        }
        Ok(digests)
    }

    /// The invocations that are settled. What was told late of them waits for their segments to be written anew, so that
    /// nothing counts twice in sums over all tests.
    pub(super) async fn settled_invocations(
        &self,
        snapshot: &Snapshot,
    ) -> Result<HashSet<String>, HistoryError> {
        let fresh = || snapshot.fresh.iter().map(|(it, _)| &it.meta);
        let (from, to) = (fresh().map(|it| it.from).min(), fresh().map(|it| it.to).max());
        let (Some(from), Some(to)) = (from, to) else { return Ok(HashSet::new()) };
        let (from, to) = within_skew(from, to);
        let near = |it: &&SegmentMeta| it.runs > 0 && it.touches(from, to);
        let mut known = HashSet::new();
        for it in snapshot.catalogue.segments.iter().filter(near) {
            known.extend(self.invocations(it).await?.iter().map(|it| it.id.clone()));
        }
        Ok(known)
    }

    /// What was joined since is asked for no more. Whoever looks at an earlier moment reads it again.
    pub(super) fn forget_joined(&self, snapshot: &Snapshot) {
        let names = snapshot.fresh.iter().map(|(it, _)| it.meta.name.as_str()).collect();
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner).retain(&names);
        if self.digests.lock().unwrap_or_else(PoisonError::into_inner).retain(&names) {
            self.names.lock().unwrap_or_else(PoisonError::into_inner).prune();
        }
    }

    async fn fresh_segment(&self, it: &SegmentMeta) -> Result<Arc<Vec<Attempt>>, HistoryError> {
        let cached = self.fresh.lock().unwrap_or_else(PoisonError::into_inner).get(&it.name);
        if let Some(cached) = cached {
            return Ok(cached);
        }
        let bytes = self.whole(&it.name).await?;
        let attempts = segment::read_all(&bytes).map_err(|source| damaged(it, source))?;
        let attempts = Arc::new(attempts);
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        fresh.keep(&it.name, it.weight(), &attempts);
        drop(fresh);
        Ok(attempts)
    }

    async fn digest(&self, it: &SegmentMeta) -> Result<Arc<Digest>, HistoryError> {
        let cached = self.digests.lock().unwrap_or_else(PoisonError::into_inner).get(&it.name);
        if let Some(cached) = cached {
            return Ok(cached);
        }
        let bytes = self.whole(&it.name).await?;
        self.keep_digest(it, &bytes)
    }

    /// The digest of a segment with these bytes, which is kept where there is room.
    pub(super) fn keep_digest(
        &self,
        it: &SegmentMeta,
        bytes: &[u8],
    ) -> Result<Arc<Digest>, HistoryError> {
        let outlines = segment::read_outlines(bytes).map_err(|source| damaged(it, source))?;
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let digest = Arc::new(Digest::new(outlines, &mut names));
        drop(names);
        let mut digests = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        digests.keep(&it.name, digest.bytes(), &digest);
        drop(digests);
        Ok(digest)
    }
}
