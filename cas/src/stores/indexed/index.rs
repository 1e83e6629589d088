//! The index of a store whose bytes lie elsewhere: which blobs there are, where, and until when
//! they are promised.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};

use crate::digest::Digest;
use crate::error::StoreError;
use crate::promises::Run;

/// Calls of [`BlobIndex::place`] at the same time, where an index has nothing better.
const PLACES_IN_FLIGHT: usize = 64;

/// Names one upload of a blob. Two uploads of one blob are two objects, so that what collects
/// garbage deletes exactly the object that it chose, however long it was paused meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation(pub u64);

impl Generation {
    pub fn fresh() -> Self {
        Self(fastrand::u64(..))
    }
}

/// Where the bytes of a present blob are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// In the object store, whole.
    Object(Generation),
    /// In the index itself so far: a small blob that is still to be written to the object store.
    Index,
}

/// What the index knows of a present blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry {
    pub place: Place,
    /// How long it is promised from now on.
    pub lease: Duration,
}

/// Figures of the whole index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IndexUsage {
    pub blobs: u64,
    /// Sum of the sizes of the blobs.
    pub bytes: u64,
    /// Blobs that are still to be written to the object store.
    pub pending: u64,
}

/// A blob that might be collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    pub digest: Digest,
    pub generation: Generation,
    /// How long ago its lease ended; zero while it lasts.
    pub expired: Duration,
    /// The second of the index's clock in which its lease ends or ended.
    pub ends: u32,
}

/// Which invocations run, as all processes of the fleet have reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Runs {
    /// The second of the index's clock.
    pub now: u32,
    /// The second in which the one began that runs longest; `None`: none runs.
    pub oldest: Option<u32>,
}

/// Shared by all processes of a fleet. Every method takes one round trip per bounded batch,
/// however many digests it is given; time is the index's own.
#[async_trait]
pub trait BlobIndex: Send + Sync + 'static {
    /// What is known of each digest, in order; `None`: absent. The present ones are promised
    /// from now on for at least `lease`.
    async fn find(
        &self,
        digests: &[Digest],
        lease: Duration,
    ) -> Result<Vec<Option<IndexEntry>>, StoreError>;

    /// Returns those of `digests` that the index does not know. Promises nothing.
    async fn absent(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError>;

    /// Lets the leases of `digests` that end later end after `lease` from now.
    async fn shorten(&self, digests: &[Digest], lease: Duration) -> Result<(), StoreError>;

    /// Bytes of small blobs that the index holds, in order; `None`: not here (perhaps in the
    /// object store). Promises nothing.
    async fn small(&self, digests: &[Digest]) -> Result<Vec<Option<Bytes>>, StoreError>;

    /// Keeps small blobs, visible and promised for `lease` at once, and pending until
    /// [`BlobIndex::place`] says where they are. A blob that is known already stays where it is,
    /// and is promised all the same; its bytes may be kept beside it for readers.
    async fn put_small(&self, blobs: &[(Digest, Bytes)], lease: Duration)
    -> Result<(), StoreError>;

    /// The blob's object of this generation is whole. Visible and promised for `lease` from now
    /// on. Returns the generation that counts: another one when the blob had a place already,
    /// and then the caller deletes its own object.
    async fn place(
        &self,
        digest: &Digest,
        generation: Generation,
        lease: Duration,
    ) -> Result<Generation, StoreError>;

    /// [`BlobIndex::place`] for many blobs, in order.
    async fn place_all(
        &self,
        blobs: &[(Digest, Generation)],
        lease: Duration,
    ) -> Result<Vec<Generation>, StoreError> {
        futures_util::stream::iter(blobs.to_vec())
            .map(|(digest, generation)| async move { self.place(&digest, generation, lease).await })
            .buffered(PLACES_IN_FLIGHT)
            .try_collect()
            .await
    }

    /// Forgets the blob if it is still at this place: its bytes turned out to be lost or damaged.
    async fn forget(&self, digest: &Digest, place: Place) -> Result<bool, StoreError>;

    /// Takes at most `limit` blobs that have been pending for longer than `age`: the process that put
    /// them is gone or slow. They are not handed out again before `age` has passed once more.
    async fn take_pending(
        &self,
        age: Duration,
        limit: usize,
    ) -> Result<Vec<(Digest, Bytes)>, StoreError>;

    async fn usage(&self) -> Result<IndexUsage, StoreError>;

    /// A part of the placed blobs, in no useful order, and where to go on; start at `None`, end
    /// when `None` comes back. What is added or removed meanwhile may be missed.
    async fn scan(&self, from: Option<u64>) -> Result<(Vec<Candidate>, Option<u64>), StoreError>;

    /// Forgets those whose lease has ended and whose generation is still the one named; returns
    /// for each whether it did. Only then may its object be deleted.
    async fn evict(&self, blobs: &[(Digest, Generation)]) -> Result<Vec<bool>, StoreError> {
        self.evict_until(blobs, 0).await
    }

    /// [`BlobIndex::evict`], and also of those whose lease ends in this second or before: promises are
    /// cut short.
    async fn evict_until(
        &self,
        blobs: &[(Digest, Generation)],
        ends: u32,
    ) -> Result<Vec<bool>, StoreError>;

    /// Notes the invocations that run at this process, and says what all have noted. One that several
    /// processes know began when the first of them says.
    async fn report_runs(&self, runs: &[Run]) -> Result<Runs, StoreError>;

    /// Drawn at random when the index is created: another value means that what was remembered
    /// of the index is void.
    async fn epoch(&self) -> Result<u64, StoreError>;

    /// How often the index may have lost its last writes, as far as this process knows: promises
    /// that were remembered before are void.
    fn failures(&self) -> u64 {
        0
    }

    /// Takes the right to collect garbage for `hold`, or prolongs it; `false`: another process
    /// (`owner` differs) has it.
    async fn claim_collection(&self, owner: &str, hold: Duration) -> Result<bool, StoreError>;
}
