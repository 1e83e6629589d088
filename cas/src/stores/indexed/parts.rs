//! What the parts of an indexed store share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::batch::{Batcher, Limits};
use super::behind::{Behind, linger};
use super::epoch::Epochs;
use super::foreign::Foreign;
use super::heal::Heals;
use super::index::{BlobIndex, Entry, Generation, Place};
use super::known::Known;
use super::objects::Objects;
use super::space::Space;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::promises::Invocations;
use crate::stores::actions::Recent;
use crate::stores::clock::Clock;
use crate::stores::compose::DEFAULT_LEASE;

/// Batches of digests that are looked up.
const FINDS: Limits = Limits { batch: 10_000, waiting: 100_000, flights: 1 };
/// Batches of small blobs that are read, by bytes.
const SMALLS: Limits = Limits { batch: 1 << 20, waiting: 32 << 20, flights: 1 };
/// Batches of small blobs that are written, by bytes.
const PUTS: Limits = Limits { batch: 1 << 20, waiting: 32 << 20, flights: 1 };
/// How long a small blob waits for others before it is read or written: whoever moves one
/// mostly moves several, each in a call of its own.
const COMPANY: Duration = Duration::from_millis(1);
/// Batches of blobs that got a place.
const PLACES: Limits = Limits { batch: 1000, waiting: 10_000, flights: 2 };
/// Batches of blobs that got a place behind.
const LATE_PLACES: Limits = Limits { batch: 1000, waiting: 10_000, flights: 1 };
/// Most bytes of small blobs that are kept in memory after they were written.
const RECENT: usize = 32 << 20;
/// What an item weighs beside its bytes.
const ITEM: usize = 128;

#[derive(Debug, Clone)]
pub struct IndexedOptions {
    /// How long a blob is kept after it was written or reported present.
    pub lease: Duration,
    /// Blobs up to this many bytes go through the index, larger ones straight to the objects.
    pub small: u64,
    /// Most bytes of all blobs of the fleet; 0: no limit. Counted every few seconds and beside
    /// that by each process for itself, so that several may exceed it by what they write
    /// meanwhile.
    pub max_size: u64,
    /// Blobs go this long after their lease has ended; `None`: when room is needed.
    pub keep: Option<Duration>,
    /// Pause between two looks at the index, each of which is one call. What is remembered of it
    /// is only answered when it was seen to be the same within this time.
    pub interval: Duration,
    /// Pause between two passes that collect garbage.
    pub collect_every: Duration,
    /// How long `sync` goes on after a failed write while nothing at all reaches the object store.
    pub patience: Duration,
    /// For what this process remembers; the index has its own clock.
    pub clock: Clock,
    /// Whose promises are not cut short when there is no room. `None`: nobody's are.
    pub invocations: Option<Invocations>,
}

impl IndexedOptions {
    /// What the index is asked to promise: more than callers are, so that a while passes before
    /// it has to be asked again. Where promises may be cut short, little more: until then nobody
    /// knows how long ago they were made.
    fn asked_lease(&self) -> Duration {
        let half = self.lease / 2;
        match &self.invocations {
            Some(invocations) if self.max_size > 0 => {
                self.lease + half.min(Duration::from_secs(invocations.min_lease().into()) / 2)
            }
            _ => self.lease + half,
        }
    }
}

impl Default for IndexedOptions {
    fn default() -> Self {
        Self {
            lease: DEFAULT_LEASE,
            small: 64 << 10,
            max_size: 0,
            keep: None,
            interval: Duration::from_secs(5),
            collect_every: Duration::from_secs(600),
            patience: Duration::from_secs(60),
            clock: Clock::system(),
            invocations: None,
        }
    }
}

/// Counters of one moment; `*_total` count from the start of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IndexedStats {
    /// Small blobs that this process is still to write to the object store.
    pub pending_blobs: u64,
    pub pending_bytes: u64,
    /// Bytes of all blobs of the fleet, as last counted; 0 without a limit.
    pub used_bytes: u64,
    pub max_bytes: u64,
    pub evicted_blobs_total: u64,
    pub evicted_bytes_total: u64,
    /// Of these, the blobs whose promise was cut short.
    pub cut_short_blobs_total: u64,
    pub cut_short_bytes_total: u64,
    /// Objects deleted because no blob is in them.
    pub orphans_total: u64,
    /// Blobs that the index did not know and the object store had.
    pub healed_blobs_total: u64,
    /// Small blobs taken over from processes that are gone.
    pub adopted_blobs_total: u64,
    pub refused_writes_total: u64,
    /// The index was lost and not rebuilt: blobs are there that it does not know.
    pub index_incomplete: bool,
}

#[derive(Default)]
pub struct Counters {
    pub evicted_blobs: AtomicU64,
    pub evicted_bytes: AtomicU64,
    pub cut_short_blobs: AtomicU64,
    pub cut_short_bytes: AtomicU64,
    pub orphans: AtomicU64,
    pub healed: AtomicU64,
    pub adopted: AtomicU64,
    pub incomplete: AtomicBool,
}

fn company() -> BoxFuture<'static, ()> {
    Box::pin(tokio::time::sleep(COMPANY))
}

pub struct Parts {
    pub index: Arc<dyn BlobIndex>,
    pub objects: Arc<dyn Objects>,
    pub options: IndexedOptions,
    pub known: Known,
    /// Of the index, that were looked at.
    failures: AtomicU64,
    pub epochs: Epochs,
    pub finds: Batcher<Digest, Option<Entry>>,
    pub smalls: Batcher<Digest, Option<Bytes>>,
    pub puts: Batcher<(Digest, Bytes), ()>,
    pub places: Batcher<(Digest, Generation), Generation>,
    /// The same, of blobs that are written behind.
    late_places: Batcher<(Digest, Generation), Generation>,
    pub behind: Behind,
    /// Small blobs that were written here: whoever runs an action reads them next.
    recent: Mutex<Recent<Digest, Bytes>>,
    /// Counts what is asked of the store.
    pub uses: AtomicU64,
    pub foreign: Foreign,
    pub heals: Heals,
    pub space: Space,
    pub counters: Counters,
    /// Names this process where only one may do something.
    pub owner: String,
    pub runtime: Handle,
    pub stop: watch::Receiver<bool>,
}

impl Parts {
    pub fn new(
        index: Arc<dyn BlobIndex>,
        objects: Arc<dyn Objects>,
        options: IndexedOptions,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let lease = options.asked_lease();
        let (finding, reading, putting) = (index.clone(), index.clone(), index.clone());
        let place = |placing: Arc<dyn BlobIndex>| {
            move |blobs: Vec<(Digest, Generation)>| -> BoxFuture<'static, _> {
                let index = placing.clone();
                Box::pin(async move { index.place_all(&blobs, lease).await })
            }
        };
        let behind = Behind::default();
        let hurry = behind.hurry();
        Self {
            known: Known::new(options.clock.clone()),
            failures: AtomicU64::new(index.failures()),
            epochs: Epochs::default(),
            finds: Batcher::new(FINDS, move |digests| {
                let index = finding.clone();
                Box::pin(async move { index.find(&digests, lease).await })
            }),
            smalls: Batcher::lingering(SMALLS, company, move |digests| {
                let index = reading.clone();
                Box::pin(async move { index.small(&digests).await })
            }),
            puts: Batcher::lingering(PUTS, company, move |blobs: Vec<(Digest, Bytes)>| {
                let index = putting.clone();
                Box::pin(async move {
                    index.put_small(&blobs, lease).await.map(|()| vec![(); blobs.len()])
                })
            }),
            places: Batcher::new(PLACES, place(index.clone())),
            late_places: Batcher::lingering(
                LATE_PLACES,
                move || Box::pin(linger(hurry.clone())),
                place(index.clone()),
            ),
            behind,
            recent: Mutex::new(Recent::new(RECENT)),
            uses: AtomicU64::new(0),
            foreign: Foreign::default(),
            heals: Heals::default(),
            space: Space::new(options.max_size),
            counters: Counters::default(),
            owner: format!("{:016x}", fastrand::u64(..)),
            runtime: Handle::current(),
            index,
            objects,
            options,
            stop,
        }
    }

    pub fn asked_lease(&self) -> Duration {
        self.options.asked_lease()
    }

    pub fn is_small(&self, digest: &Digest) -> bool {
        digest.size <= self.options.small
    }

    /// Whether the blob is known to be promised by an index that has not failed since, and to be
    /// in the object store: bytes that the index alone holds are lost with it.
    pub fn promised(&self, digest: &Digest) -> bool {
        let failures = self.index.failures();
        if self.failures.swap(failures, Ordering::AcqRel) != failures {
            self.known.forget_all();
        }
        self.known.promised(digest, self.options.lease)
    }

    /// Asks the index, and remembers what it says.
    pub async fn find(&self, digests: Vec<Digest>) -> Result<Vec<Option<Entry>>, StoreError> {
        self.announce().await?;
        let asked = self.known.asking();
        self.uses.fetch_add(1, Ordering::Relaxed);
        let entries = self.finds.call(digests.clone(), digests.len()).await?;
        let mut foreign = Vec::new();
        for (digest, entry) in digests.iter().zip(&entries) {
            match entry {
                Some(entry) => {
                    self.known.remember(digest, entry.place, entry.lease, asked);
                    if entry.place == Place::Index && self.behind.get(digest).is_none() {
                        foreign.push(*digest);
                    }
                }
                None => self.known.forget(digest),
            }
        }
        self.note_foreign(foreign).await?;
        Ok(entries)
    }

    /// The bytes of a small blob, if the index has them.
    pub async fn small(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        let data = self.smalls.one(*digest, digest.size as usize + ITEM).await?;
        match data {
            Some(data) if data.len() as u64 != digest.size => Err(StoreError::Corrupt(format!(
                "the index holds {} bytes of blob {digest}",
                data.len()
            ))),
            data => Ok(data),
        }
    }

    /// Makes a small blob visible.
    pub async fn put_small(&self, digest: &Digest, data: Bytes) -> Result<(), StoreError> {
        let asked = self.known.asking();
        let weight = data.len() + ITEM;
        self.uses.fetch_add(1, Ordering::Relaxed);
        self.puts.one((*digest, data), weight).await?;
        // Where it is, if it was there before, the next look-up tells.
        if self.known.place(digest).is_none() {
            self.known.remember(digest, Place::Index, self.asked_lease(), asked);
        }
        Ok(())
    }

    /// Gives the index a small blob again that it knows and had no bytes of, for the next
    /// reader. Only bytes that are the blob's: they may be all that is left of it one day.
    pub async fn give_back(&self, digest: &Digest, data: &Bytes) {
        if digest.function.digest(data) == *digest
            && let Err(error) = self.put_small(digest, data.clone()).await
        {
            tracing::debug!(%digest, %error, "a small blob was not given back to the index");
        }
    }

    /// Writes a small blob to the object store.
    pub async fn settle(
        &self,
        digest: &Digest,
        generation: Generation,
        data: Bytes,
    ) -> Result<(), StoreError> {
        self.objects.put(digest, generation, data).await?;
        self.publish_by(&self.late_places, digest, generation).await.map(drop)
    }

    fn recent(&self) -> MutexGuard<'_, Recent<Digest, Bytes>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A small blob that was written here a short while ago.
    pub fn written(&self, digest: &Digest) -> Option<Bytes> {
        self.recent().get(digest)
    }

    pub fn note_written(&self, digest: &Digest, data: Bytes) {
        let size = data.len() + ITEM;
        self.recent().insert(*digest, data, size);
    }

    /// Makes an object that is whole the place of its blob, or deletes it where the blob has
    /// a place already. Returns the generation that counts.
    pub async fn publish(
        &self,
        digest: &Digest,
        generation: Generation,
    ) -> Result<Generation, StoreError> {
        self.publish_by(&self.places, digest, generation).await
    }

    async fn publish_by(
        &self,
        places: &Batcher<(Digest, Generation), Generation>,
        digest: &Digest,
        generation: Generation,
    ) -> Result<Generation, StoreError> {
        let asked = self.known.asking();
        self.uses.fetch_add(1, Ordering::Relaxed);
        let winner = places.one((*digest, generation), 1).await?;
        self.known.remember(digest, Place::Object(winner), self.asked_lease(), asked);
        if winner != generation
            && let Err(error) = self.objects.delete(&[(*digest, generation)]).await
        {
            tracing::debug!(%digest, %error, "an object nobody needs is left to the collector");
        }
        Ok(winner)
    }

    pub fn stats(&self) -> IndexedStats {
        let counters = &self.counters;
        let total = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (pending_blobs, pending_bytes) = self.behind.pending();
        IndexedStats {
            pending_blobs,
            pending_bytes,
            used_bytes: self.space.used(),
            max_bytes: self.options.max_size,
            evicted_blobs_total: total(&counters.evicted_blobs),
            evicted_bytes_total: total(&counters.evicted_bytes),
            cut_short_blobs_total: total(&counters.cut_short_blobs),
            cut_short_bytes_total: total(&counters.cut_short_bytes),
            orphans_total: total(&counters.orphans),
            healed_blobs_total: total(&counters.healed),
            adopted_blobs_total: total(&counters.adopted),
            refused_writes_total: self.space.refused(),
            index_incomplete: counters.incomplete.load(Ordering::Relaxed),
        }
    }
}
