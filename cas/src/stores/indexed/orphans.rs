//! Objects that no blob is in: a process ended between writing and placing them, or between
//! evicting a blob and deleting its object.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::index::{Entry, Place};
use super::objects::Listed;
use super::parts::Parts;
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

impl Parts {
    /// Whether the index knows all objects. One that was lost knows none, and by its word all
    /// of them would be orphans.
    pub async fn index_is_complete(&self) -> Result<bool, StoreError> {
        let (mark, epoch) = (self.objects.mark().await?, self.index.epoch().await?);
        Ok(mark == Some(epoch))
    }

    /// Deletes old objects that no blob is in, and what is left of old uploads.
    pub async fn collect_orphans(&self) -> Result<Orphans, StoreError> {
        let mut found = Orphans::default();
        if !self.claim().await? {
            return Ok(Orphans { stopped: true, ..found });
        }
        let before = self.objects.now().await?.saturating_sub(AGE);
        found.uploads = self.objects.sweep(before).await?;
        let mut after = None;
        loop {
            let (page, next) = self.objects.list(after).await?;
            let old: Vec<_> = page.into_iter().filter(|listed| listed.modified < before).collect();
            if !old.is_empty() && !self.delete_orphans(&old, &mut found).await? {
                return Ok(Orphans { stopped: true, ..found });
            }
            after = next;
            if after.is_none() {
                return Ok(found);
            }
        }
    }

    /// `false`: it must not go on.
    async fn delete_orphans(
        &self,
        old: &[Listed],
        found: &mut Orphans,
    ) -> Result<bool, StoreError> {
        let digests: Vec<_> = old.iter().map(|listed| listed.digest).collect();
        let entries = self.index.find(&digests, Duration::ZERO).await?;
        // Asked last, so that the answers above are those of a complete index.
        if !self.claim().await? || !self.index_is_complete().await? {
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
        self.counters.orphans.fetch_add(orphans.len() as u64, Ordering::Relaxed);
        Ok(true)
    }
}

/// An object of a blob that is pending may be about to become its place.
fn is_orphan(listed: &Listed, entry: Option<&Entry>) -> bool {
    match entry.map(|entry| entry.place) {
        None => true,
        Some(Place::Object(generation)) => generation != listed.generation,
        Some(Place::Index) => false,
    }
}
