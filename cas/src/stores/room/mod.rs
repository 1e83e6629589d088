//! Keeping a store within its size: reservations, watermarks and eviction.

mod evict;
mod space;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use tokio::sync::Mutex;

pub use self::evict::Evictable;
use self::evict::{Freed, reclaim};
pub use self::space::Reservation;
use self::space::Space;
use super::clock::Clock;
use super::group::blocking;
use crate::error::StoreError;

/// Seconds for which a count of promised bytes is shown.
const PROMISED_COUNT_AGE: u32 = 60;

/// The room that the contents of one store may take.
pub struct Room {
    space: Space,
    clock: Clock,
    one_at_a_time: Mutex<()>,
    closed: AtomicBool,
    in_background: AtomicBool,
    /// When a pass last found nothing more to free: leases are in seconds, so within this
    /// second it would find nothing again.
    fruitless_at: AtomicU32,
    evicted: AtomicU64,
    evicted_bytes: AtomicU64,
    refused: AtomicU64,
    promised_bytes: AtomicU64,
    promised_counted_at: AtomicU32,
}

impl Room {
    /// At most `max` bytes, of which `headroom` is left to compaction.
    pub fn new(max: u64, headroom: u64, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            space: Space::new(max, headroom),
            clock,
            one_at_a_time: Mutex::default(),
            closed: AtomicBool::new(false),
            in_background: AtomicBool::new(false),
            fruitless_at: AtomicU32::new(0),
            evicted: AtomicU64::new(0),
            evicted_bytes: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            promised_bytes: AtomicU64::new(0),
            promised_counted_at: AtomicU32::new(0),
        })
    }

    pub fn max(&self) -> u64 {
        self.space.max
    }

    pub fn reserved(&self) -> u64 {
        self.space.reserved()
    }

    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    pub fn evicted_bytes(&self) -> u64 {
        self.evicted_bytes.load(Ordering::Relaxed)
    }

    /// Writes that found no room.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Sets `bytes` aside, making room first if need be.
    /// Errors: `Full` when too little is unpromised; `TooLarge` when it could never fit.
    pub async fn reserve<E: Evictable>(
        self: &Arc<Self>,
        contents: &Arc<E>,
        bytes: u64,
    ) -> Result<Reservation, StoreError> {
        if let Some(reservation) = self.space.try_reserve(bytes, || contents.used()) {
            if contents.used() > self.space.high() {
                self.reclaim_in_background(contents, self.space.low());
            }
            return Ok(reservation);
        }
        if bytes > self.space.limit {
            return Err(StoreError::TooLarge { size: bytes, limit: self.space.limit });
        }
        let _turn = self.one_at_a_time.lock().await;
        if let Some(reservation) = self.space.try_reserve(bytes, || contents.used()) {
            return Ok(reservation);
        }
        if self.fruitless_at.load(Ordering::Relaxed) != self.clock.now() {
            let target = self.space.limit.saturating_sub(bytes + self.space.reserved());
            self.reclaim(contents, target.min(self.space.low())).await?;
        }
        self.space.try_reserve(bytes, || contents.used()).ok_or_else(|| {
            self.refused.fetch_add(1, Ordering::Relaxed);
            let used = contents.used() + self.space.reserved();
            StoreError::Full { used, limit: self.space.max }
        })
    }

    /// Returns when no pass runs, and none will any more.
    pub async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let _turn = self.one_at_a_time.lock().await;
    }

    /// The disk is full below the limit: frees a tenth in the background, so that later writes
    /// find room.
    pub fn relieve<E: Evictable>(self: &Arc<Self>, contents: &Arc<E>) {
        self.reclaim_in_background(contents, contents.used() / 10 * 9);
    }

    fn reclaim_in_background<E: Evictable>(self: &Arc<Self>, contents: &Arc<E>, target: u64) {
        if self.fruitless_at.load(Ordering::Relaxed) == self.clock.now()
            || self.in_background.swap(true, Ordering::AcqRel)
        {
            return;
        }
        let (room, contents) = (self.clone(), contents.clone());
        tokio::spawn(async move {
            if let Err(error) = room.free(&contents, target).await {
                tracing::warn!(%error, "could not free space");
            }
            room.in_background.store(false, Ordering::Release);
        });
    }

    /// Frees what is beyond `target` bytes, after whoever does so now.
    pub async fn free<E: Evictable>(
        &self,
        contents: &Arc<E>,
        target: u64,
    ) -> Result<(), StoreError> {
        let _turn = self.one_at_a_time.lock().await;
        self.reclaim(contents, target).await
    }

    /// The caller has the turn: two passes at once would see each other's work half done.
    async fn reclaim<E: Evictable>(
        &self,
        contents: &Arc<E>,
        target: u64,
    ) -> Result<(), StoreError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreError::Unavailable("it is closed".to_owned()));
        }
        let (contents, now) = (contents.clone(), self.clock.now());
        let Freed { count, bytes, reached } =
            blocking(move || reclaim(&*contents, target, now)).await?;
        self.evicted.fetch_add(count, Ordering::Relaxed);
        self.evicted_bytes.fetch_add(bytes, Ordering::Relaxed);
        if !reached {
            self.fruitless_at.store(now, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Bytes under lease, counted at most once in [`PROMISED_COUNT_AGE`] seconds.
    pub fn promised_bytes(&self, contents: &impl Evictable) -> u64 {
        let now = self.clock.now();
        let counted_at = self.promised_counted_at.load(Ordering::Relaxed);
        if counted_at != 0 && now.saturating_sub(counted_at) < PROMISED_COUNT_AGE {
            return self.promised_bytes.load(Ordering::Relaxed);
        }
        let mut promised = 0;
        contents.survey(&mut |size, times| {
            promised += if times.leased_until > now { size } else { 0 };
        });
        self.promised_bytes.store(promised, Ordering::Relaxed);
        self.promised_counted_at.store(now, Ordering::Relaxed);
        promised
    }
}
