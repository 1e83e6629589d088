//! The index as this process asks it: in batches, and not again for what is remembered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::activity::Activity;
use super::hurry::Hurry;
use super::index::{BlobIndex, Generation, IndexEntry, Place};
use super::presence::PresenceCache;
use super::questions::Questions;
use crate::batch::{Limits, Rules};
use crate::digest::Digest;
use crate::error::StoreError;
use crate::promises::PIN;

/// Batches of digests that are looked up.
const FINDS: Limits = Limits { batch: 10_000, waiting: Some(100_000), flights: 1 };
/// Batches of small blobs that are read, by bytes.
const SMALLS: Limits = Limits { batch: 1 << 20, waiting: Some(32 << 20), flights: 1 };
/// Batches of small blobs that are written, by bytes.
const PUTS: Limits = Limits { batch: 1 << 20, waiting: Some(32 << 20), flights: 1 };
/// How long a small blob waits for others before it is read or written: whoever moves one
/// mostly moves several, each in a call of its own.
const COMPANY: Duration = Duration::from_millis(1);
/// Batches of blobs that got a place.
const PLACES: Limits = Limits { batch: 1000, waiting: Some(10_000), flights: 2 };
/// Batches of blobs that were written behind and got a place.
const LATE_PLACES: Limits = Limits { batch: 1000, waiting: Some(10_000), flights: 1 };
/// What a small blob weighs beside its bytes.
pub const ITEM: usize = 128;

/// For how long blobs are promised.
#[derive(Debug, Clone, Copy)]
pub struct Leases {
    /// What callers of the store are told.
    pub told: Duration,
    /// What the index is asked for, which is longer.
    pub asked: Duration,
}

impl Leases {
    /// The longest lease that the index may give when it is asked for [`Leases::asked`].
    pub fn longest(&self) -> Duration {
        self.asked + self.asked / 4
    }
}

/// Asks the index on behalf of the whole process.
pub struct IndexClient {
    index: Arc<dyn BlobIndex>,
    presence: Arc<PresenceCache>,
    activity: Activity,
    leases: Leases,
    /// Failures of the index that the presence cache has been told of.
    failures: AtomicU64,
    finds: Questions<Digest, Option<IndexEntry>>,
    smalls: Questions<Digest, Option<Bytes>>,
    puts: Questions<(Digest, Bytes), ()>,
    places: Questions<(Digest, Generation), Generation>,
    late_places: Questions<(Digest, Generation), Generation>,
}

fn company() -> BoxFuture<'static, ()> {
    Box::pin(tokio::time::sleep(COMPANY))
}

impl IndexClient {
    /// What is asked runs on the current runtime. `hurry`: who waits for places of blobs that are
    /// written behind.
    pub fn new(
        index: Arc<dyn BlobIndex>,
        presence: Arc<PresenceCache>,
        activity: Activity,
        leases: Leases,
        hurry: Hurry,
    ) -> Self {
        let lease = leases.asked;
        let late = Rules::from(LATE_PLACES).linger(move || Box::pin(hurry.clone().linger()));
        Self {
            failures: AtomicU64::new(index.failures()),
            finds: finds(index.clone(), lease),
            smalls: smalls(index.clone()),
            puts: puts(index.clone(), lease),
            places: places(PLACES.into(), index.clone(), lease),
            late_places: places(late, index.clone(), lease),
            index,
            presence,
            activity,
            leases,
        }
    }

    /// Whether the blob is known to be promised by an index that has not failed since, and to be
    /// in the object store: bytes that the index alone holds are lost with it.
    pub fn promised(&self, digest: &Digest) -> bool {
        let failures = self.index.failures();
        if self.failures.load(Ordering::Acquire) != failures {
            // Before that is noted: who finds it noted relies on what is left.
            self.presence.forget_all();
            self.failures.store(failures, Ordering::Release);
        }
        self.presence.promised(digest, self.leases.told)
    }

    /// Where the blob was last, as far as this process remembers: a hint.
    pub fn last_place(&self, digest: &Digest) -> Option<Place> {
        self.presence.place(digest)
    }

    /// What the index knows of each digest, in order; `None`: it does not know the blob. The
    /// others are promised.
    pub async fn find(&self, digests: Vec<Digest>) -> Result<Vec<Option<IndexEntry>>, StoreError> {
        let asked = self.presence.asking();
        self.activity.note();
        let entries = self.finds.ask(digests.clone(), digests.len()).await?;
        for (digest, entry) in digests.iter().zip(&entries) {
            match entry {
                // A pin may end any time: no more is relied on than what was promised here.
                Some(entry) => {
                    let lease = entry.lease.min(self.leases.longest());
                    self.presence.remember(digest, entry.place, lease, asked);
                }
                None => self.presence.forget(digest),
            }
        }
        Ok(entries)
    }

    /// Promises blobs beyond every lease; returns those that the index does not know, in order.
    pub async fn pin(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let entries = self.index.find(digests, self.leases.longest() + PIN).await?;
        let absent = digests.iter().zip(entries).filter(|(_, entry)| entry.is_none());
        Ok(absent.map(|(digest, _)| *digest).collect())
    }

    /// Takes back what [`IndexClient::pin`] promised: the leases end no later than those of blobs without a pin.
    pub async fn unpin(&self, digests: &[Digest]) -> Result<(), StoreError> {
        self.index.shorten(digests, self.leases.longest()).await
    }

    /// Returns those of `digests` that the index does not know. Promises nothing.
    pub async fn absent(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        self.index.absent(digests).await
    }

    /// The bytes of a small blob, if the index has them.
    pub async fn small(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        let data = self.smalls.ask_one(*digest, digest.size as usize + ITEM).await?;
        match data {
            Some(data) if data.len() as u64 != digest.size => Err(StoreError::corrupt(format!(
                "the index holds {} bytes of blob {digest}",
                data.len()
            ))),
            data => Ok(data),
        }
    }

    /// Makes a small blob visible and promises it.
    pub async fn put_small(&self, digest: &Digest, data: Bytes) -> Result<(), StoreError> {
        let asked = self.presence.asking();
        let weight = data.len() + ITEM;
        self.activity.note();
        self.puts.ask_one((*digest, data), weight).await?;
        // Where it is, if it was there before, the next look-up tells.
        if self.presence.place(digest).is_none() {
            self.presence.remember(digest, Place::Index, self.leases.asked, asked);
        }
        Ok(())
    }

    /// Says that a whole object is the place of its blob. Returns the generation that counts:
    /// another one where the blob had a place already.
    pub async fn place(
        &self,
        digest: &Digest,
        generation: Generation,
    ) -> Result<Generation, StoreError> {
        self.place_by(&self.places, digest, generation).await
    }

    /// [`IndexClient::place`] of a blob that is written behind: it waits for others, unless
    /// somebody is in a hurry.
    pub async fn place_late(
        &self,
        digest: &Digest,
        generation: Generation,
    ) -> Result<Generation, StoreError> {
        self.place_by(&self.late_places, digest, generation).await
    }

    async fn place_by(
        &self,
        places: &Questions<(Digest, Generation), Generation>,
        digest: &Digest,
        generation: Generation,
    ) -> Result<Generation, StoreError> {
        let asked = self.presence.asking();
        self.activity.note();
        let winner = places.ask_one((*digest, generation), 1).await?;
        self.presence.remember(digest, Place::Object(winner), self.leases.asked, asked);
        Ok(winner)
    }

    /// Forgets where the blob was, here and in the index: its bytes are not there.
    pub async fn forget_place(&self, digest: &Digest, place: Place) -> Result<(), StoreError> {
        self.presence.forget(digest);
        self.index.forget(digest, place).await.map(drop)
    }

    /// Forgets where the blob was, here alone.
    pub fn forget(&self, digest: &Digest) {
        self.presence.forget(digest);
    }
}

fn finds(index: Arc<dyn BlobIndex>, lease: Duration) -> Questions<Digest, Option<IndexEntry>> {
    Questions::new(FINDS, move |digests: Vec<Digest>| {
        let index = index.clone();
        Box::pin(async move { index.find(&digests, lease).await })
    })
}

fn smalls(index: Arc<dyn BlobIndex>) -> Questions<Digest, Option<Bytes>> {
    Questions::new(Rules::from(SMALLS).linger(company), move |digests: Vec<Digest>| {
        let index = index.clone();
        Box::pin(async move { index.small(&digests).await })
    })
}

fn puts(index: Arc<dyn BlobIndex>, lease: Duration) -> Questions<(Digest, Bytes), ()> {
    Questions::new(Rules::from(PUTS).linger(company), move |blobs: Vec<(Digest, Bytes)>| {
        let index = index.clone();
        Box::pin(
            async move { index.put_small(&blobs, lease).await.map(|()| vec![(); blobs.len()]) },
        )
    })
}

fn places(
    rules: Rules<Vec<(Digest, Generation)>>,
    index: Arc<dyn BlobIndex>,
    lease: Duration,
) -> Questions<(Digest, Generation), Generation> {
    Questions::new(rules, move |blobs: Vec<(Digest, Generation)>| {
        let index = index.clone();
        Box::pin(async move { index.place_all(&blobs, lease).await })
    })
}
