//! Objects that no blob is in: a process ended between writing and placing them, or between
//! evicting a blob and deleting its object.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::claim::CollectionClaim;
use super::epoch::is_marked;
use super::index::{BlobIndex, IndexEntry, Place};
use super::objects::{Listed, Objects};
use crate::error::StoreError;

/// Younger objects may still be on their way into the index.
const AGE: u64 = 24 * 3600;

/// What a pass has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Orphans {
    /// Nothing was done or the pass ended early: another process collects, or the index does
    /// not know all that is there and must be rebuilt first.
    pub stopped: bool,
    pub objects: u64,
    pub bytes: u64,
    /// Uploads that had begun and never ended.
    pub uploads: u64,
}

/// Finds objects that no blob is in, and deletes them.
pub struct OrphanCollector {
    index: Arc<dyn BlobIndex>,
    objects: Arc<dyn Objects>,
    claim: Arc<CollectionClaim>,
    deleted: AtomicU64,
}

impl OrphanCollector {
    pub fn new(
        index: Arc<dyn BlobIndex>,
        objects: Arc<dyn Objects>,
        claim: Arc<CollectionClaim>,
    ) -> Self {
        Self { index, objects, claim, deleted: AtomicU64::new(0) }
    }

    /// Objects that were deleted since the start.
    pub fn deleted(&self) -> u64 {
        self.deleted.load(Ordering::Relaxed)
    }

    /// Deletes old objects that no blob is in, and what is left of old uploads.
    pub async fn collect(&self) -> Result<Orphans, StoreError> {
        let mut found = Orphans::default();
        if !self.claim.take().await? {
            return Ok(Orphans { stopped: true, ..found });
        }
        let before = self.objects.now().await?.saturating_sub(AGE);
        found.uploads = self.objects.sweep(before).await?;
        let mut after = None;
        loop {
            let (page, next) = self.objects.list(after).await?;
            let old: Vec<_> = page.into_iter().filter(|listed| listed.modified < before).collect();
            if !old.is_empty() && !self.delete(&old, &mut found).await? {
                return Ok(Orphans { stopped: true, ..found });
            }
            after = next;
            if after.is_none() {
                return Ok(found);
            }
        }
    }

    /// `false`: it must not go on.
    async fn delete(&self, old: &[Listed], found: &mut Orphans) -> Result<bool, StoreError> {
        let digests: Vec<_> = old.iter().map(|listed| listed.digest).collect();
        let entries = self.index.find(&digests, Duration::ZERO).await?;
        // Asked last, so that the answers above are those of a complete index.
        if !self.claim.take().await? || !is_marked(&*self.index, &*self.objects).await? {
            return Ok(false);
        }
        let orphans: Vec<_> = old
            .iter()
            .zip(entries)
            .filter(|(listed, entry)| is_orphan(listed, entry.as_ref()))
            .map(|(listed, _)| (listed.digest, listed.generation))
            .collect();
        if orphans.is_empty() {
            return Ok(true);
        }
        self.objects.delete(&orphans).await?;
        found.objects += orphans.len() as u64;
        found.bytes += orphans.iter().map(|(digest, _)| digest.size).sum::<u64>();
        self.deleted.fetch_add(orphans.len() as u64, Ordering::Relaxed);
        Ok(true)
    }
}

/// An object of a blob that is pending may be about to become its place.
fn is_orphan(listed: &Listed, entry: Option<&IndexEntry>) -> bool {
    match entry.map(|entry| entry.place) {
        None => true,
        Some(Place::Object(generation)) => generation != listed.generation,
        Some(Place::Index) => false,
    }
}
