//! Rebuilding an index that was lost or wiped from what the object store holds.

use std::time::Duration;

use super::claim::HOLD;
use super::index::{BlobIndex, Generation};
use super::objects::Objects;
use crate::digest::Digest;
use crate::error::StoreError;

/// The owner of the right to collect while an index is rebuilt. All processes that rebuild use this one name and
/// so share the right: they do the same work.
const OWNER: &str = "rebuild";

/// What was found so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Objects listed.
    pub objects: u64,
    /// Objects that are now the place of their blob.
    pub blobs: u64,
    pub bytes: u64,
    /// Objects whose blob has another one; the collector deletes them when they are old.
    pub spare: u64,
}

/// Places every object in the index and promises it for `lease`; it may run while the store is
/// used, and again. `progress` is told about each page. Nobody collects garbage meanwhile.
/// Errors: `Unavailable` also when another process collects, or the index is lost once more.
pub async fn rebuild(
    index: &dyn BlobIndex,
    objects: &dyn Objects,
    lease: Duration,
    progress: &mut (dyn FnMut(&Rebuilt) + Send),
) -> Result<Rebuilt, StoreError> {
    let epoch = index.epoch().await?;
    let (mut rebuilt, mut after) = (Rebuilt::default(), None);
    loop {
        if !index.claim_collection(OWNER, HOLD).await? {
            return Err(StoreError::unavailable(format!(
                "another process is collecting garbage or rebuilding the index: try again in {} s",
                HOLD.as_secs()
            )));
        }
        let (page, next) = objects.list(after).await?;
        let names: Vec<_> = page.iter().map(|listed| (listed.digest, listed.generation)).collect();
        let winners = index.place_all(&names, lease).await?;
        rebuilt.count(&names, &winners);
        progress(&rebuilt);
        after = next;
        if after.is_none() {
            break;
        }
    }
    if index.epoch().await? != epoch {
        let message = "the index was lost again while it was rebuilt: rebuild it once more";
        return Err(StoreError::unavailable(message));
    }
    objects.set_mark(epoch).await?;
    Ok(rebuilt)
}

impl Rebuilt {
    fn count(&mut self, names: &[(Digest, Generation)], winners: &[Generation]) {
        for ((digest, generation), winner) in names.iter().zip(winners) {
            self.objects += 1;
            if generation == winner {
                self.blobs += 1;
                self.bytes += digest.size;
            } else {
                self.spare += 1;
            }
        }
    }
}
