//! Keeping a store within its size: reservations, watermarks, eviction, and promises that give
//! way.

mod evict;
mod space;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};

use kiln_net::causes::chain;
use tokio::sync::Mutex;

pub use self::evict::Evictable;
use self::evict::{Freed, reclaim};
pub use self::space::Reservation;
use self::space::Space;
use super::group::blocking;
use crate::clock::Clock;
use crate::error::StoreError;
use crate::promises::{CutShort, Invocations, Ruling, Shortfall};

/// The key of the limit.
const SETTING: &str = "storage.max_size";
/// Seconds for which a count of promised bytes is shown.
const PROMISED_COUNT_AGE: u32 = 60;
/// Seconds between two warnings that promises were cut short.
const WARNING_EVERY: u32 = 60;
/// When promises are cut short, so much more room than is needed is made, as a share of the
/// limit: each pass looks at every entry.
const CUT_STEP: u64 = 64;

/// How the promises of a store are kept.
#[derive(Clone)]
pub struct Terms {
    /// What promises are made for, in seconds.
    pub lease: u32,
    /// Knows which promises may be cut short; `None`: none may.
    pub invocations: Option<Invocations>,
    pub clock: Clock,
}

impl Terms {
    /// Nothing is promised to anybody.
    pub fn of(clock: Clock) -> Self {
        Self { lease: 0, invocations: None, clock }
    }
}

/// How many bytes the contents of one store may take, and what goes when there are too many.
pub struct Capacity {
    space: Space,
    terms: Terms,
    one_at_a_time: Mutex<()>,
    closed: AtomicBool,
    in_background: AtomicBool,
    /// When a pass last found nothing more to free: leases are in seconds, so within this
    /// second it would find nothing again.
    fruitless_at: AtomicU32,
    /// When a pass that cut promises short last found nothing more to free.
    uncut_at: AtomicU32,
    shortfall: Arc<std::sync::Mutex<Shortfall>>,
    warned_at: AtomicU32,
    evicted: AtomicU64,
    evicted_bytes: AtomicU64,
    refused: AtomicU64,
    promised_bytes: AtomicU64,
    promised_counted_at: AtomicU32,
    give_up: OnceLock<Box<dyn Fn() -> bool + Send + Sync>>,
}

impl Capacity {
    /// `max`: most bytes of all files, of which `headroom` is left to compaction.
    pub fn new(max: u64, headroom: u64, terms: Terms) -> Arc<Self> {
        Arc::new(Self {
            space: Space::new(max, headroom),
            terms,
            one_at_a_time: Mutex::default(),
            closed: AtomicBool::new(false),
            in_background: AtomicBool::new(false),
            fruitless_at: AtomicU32::new(0),
            uncut_at: AtomicU32::new(0),
            shortfall: Arc::default(),
            warned_at: AtomicU32::new(0),
            evicted: AtomicU64::new(0),
            evicted_bytes: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            promised_bytes: AtomicU64::new(0),
            promised_counted_at: AtomicU32::new(0),
            give_up: OnceLock::new(),
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

    /// Promises that were cut short since the start.
    pub fn cut(&self) -> CutShort {
        self.shortfall().total()
    }

    /// The limit with which every promise since the start would have been kept, in bytes.
    pub fn wanted(&self) -> u64 {
        self.space.max + self.shortfall().peak()
    }

    fn shortfall(&self) -> std::sync::MutexGuard<'_, Shortfall> {
        self.shortfall.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u32 {
        self.terms.clock.now()
    }

    /// A reservation for a blob of `size` bytes, of which none has come yet: what it claims to be
    /// evicts nothing. Errors: `TooLarge` when it could never fit.
    pub fn begin(&self, size: u64) -> Result<Reservation, StoreError> {
        match size > self.space.limit {
            true => Err(StoreError::TooLarge { size, limit: self.space.limit }),
            false => Ok(self.space.nothing()),
        }
    }

    /// `give_up` frees what unfinished writes hold that nobody may come back for. It is asked before a
    /// promise is cut short or a write refused; `false`: there was nothing. The first one stays.
    pub fn on_full(&self, give_up: impl Fn() -> bool + Send + Sync + 'static) {
        // An error means that there is one already.
        let _ = self.give_up.set(Box::new(give_up));
    }

    /// Sets `bytes` aside, making room first if need be.
    /// Errors: `Full` when too much is promised; `TooLarge` when it could never fit.
    pub async fn reserve<E: Evictable>(
        self: &Arc<Self>,
        contents: &Arc<E>,
        bytes: u64,
    ) -> Result<Reservation, StoreError> {
        if let Some(reservation) = self.space.try_reserve(bytes, || contents.used()) {
            if contents.used() > self.space.high() {
                self.reclaim_in_background(contents, self.space.low(), false);
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
        let target = self.space.limit.saturating_sub(bytes + self.space.reserved());
        self.reclaim(contents, target.min(self.space.low())).await?;
        if let Some(reservation) = self.space.try_reserve(bytes, || contents.used()) {
            return Ok(reservation);
        }
        // Before a promise is cut short: nobody may ever come back for these.
        if self.give_up.get().is_some_and(|give_up| give_up())
            && let Some(reservation) = self.space.try_reserve(bytes, || contents.used())
        {
            return Ok(reservation);
        }
        self.cut_short(contents, target).await?;
        self.space.try_reserve(bytes, || contents.used()).ok_or_else(|| {
            self.refused.fetch_add(1, Ordering::Relaxed);
            let used = contents.used() + self.space.reserved();
            StoreError::Full { used, limit: self.space.max, setting: SETTING }
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
        self.reclaim_in_background(contents, contents.used() / 10 * 9, true);
    }

    /// `cut`: promises may be cut short.
    fn reclaim_in_background<E: Evictable>(
        self: &Arc<Self>,
        contents: &Arc<E>,
        target: u64,
        cut: bool,
    ) {
        let done = if cut { &self.uncut_at } else { &self.fruitless_at };
        if done.load(Ordering::Relaxed) == self.now()
            || self.in_background.swap(true, Ordering::AcqRel)
        {
            return;
        }
        let (capacity, contents) = (self.clone(), contents.clone());
        tokio::spawn(async move {
            let freed = async {
                let _turn = capacity.one_at_a_time.lock().await;
                capacity.reclaim(&contents, target).await?;
                if cut { capacity.cut_short(&contents, target).await } else { Ok(()) }
            };
            if let Err(error) = freed.await {
                tracing::warn!(error = %chain(&error), "could not free space");
            }
            capacity.in_background.store(false, Ordering::Release);
        });
    }

    /// Frees what is beyond `target` bytes, after whoever does so now.
    #[cfg(test)]
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
        let now = self.now();
        if self.fruitless_at.load(Ordering::Relaxed) == now {
            return Ok(());
        }
        if !self.pass(contents, target, Ruling::strict(now)).await? {
            self.fruitless_at.store(now, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Frees what is beyond `target` bytes by cutting promises short that were made to nobody who still
    /// runs.
    async fn cut_short<E: Evictable>(
        &self,
        contents: &Arc<E>,
        target: u64,
    ) -> Result<(), StoreError> {
        let (now, lease) = (self.now(), self.terms.lease);
        let Some(invocations) = &self.terms.invocations else { return Ok(()) };
        if contents.used() <= target || self.uncut_at.load(Ordering::Relaxed) == now {
            return Ok(());
        }
        let before = self.cut();
        let cut = Some(invocations.cut(lease));
        let target = target.saturating_sub(self.space.limit / CUT_STEP);
        if !self.pass(contents, target, Ruling { now, cut }).await? {
            self.uncut_at.store(now, Ordering::Relaxed);
        }
        self.warn(before, now);
        Ok(())
    }

    fn warn(&self, before: CutShort, now: u32) {
        let cut = self.cut();
        let due = self.warned_at.load(Ordering::Relaxed).saturating_add(WARNING_EVERY) <= now;
        if cut == before || !due {
            return;
        }
        self.warned_at.store(now, Ordering::Relaxed);
        tracing::warn!(
            blobs = cut.count,
            bytes = cut.bytes,
            max_size = self.space.max,
            wanted = self.wanted(),
            "the store is too small for what it promised: promises to builds that are over were \
             cut short; storage.max_size of {} bytes would have kept them all",
            self.wanted()
        );
    }

    /// Whether the target was reached.
    async fn pass<E: Evictable>(
        &self,
        contents: &Arc<E>,
        target: u64,
        ruling: Ruling,
    ) -> Result<bool, StoreError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreError::unavailable("it is closed"));
        }
        let (contents, shortfall) = (contents.clone(), self.shortfall.clone());
        let work = move || {
            let mut cut = Shortfall::default();
            let freed = reclaim(&*contents, target, &ruling, &mut cut);
            // Not held during the pass, for those who look at the figures meanwhile.
            shortfall.lock().unwrap_or_else(PoisonError::into_inner).absorb(cut, ruling.now);
            freed
        };
        let Freed { count, bytes, reached } = blocking(work).await?;
        self.evicted.fetch_add(count, Ordering::Relaxed);
        self.evicted_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(reached)
    }

    /// Bytes under lease that are not pinned, counted at most once in [`PROMISED_COUNT_AGE`] seconds.
    pub fn promised_bytes(&self, contents: &impl Evictable) -> u64 {
        let now = self.now();
        let counted_at = self.promised_counted_at.load(Ordering::Relaxed);
        if counted_at != 0 && now.saturating_sub(counted_at) < PROMISED_COUNT_AGE {
            return self.promised_bytes.load(Ordering::Relaxed);
        }
        // Nothing but a pin lasts longer than a lease.
        let pinned = now.saturating_add(self.terms.lease);
        let mut promised = 0;
        contents.survey(&mut |size, times| {
            let is_promised = times.leased_until > now && times.leased_until <= pinned;
            promised += if is_promised { size } else { 0 };
        });
        self.promised_bytes.store(promised, Ordering::Relaxed);
        self.promised_counted_at.store(now, Ordering::Relaxed);
        promised
    }
}
