//! One bound on the memory of all requests under way, whoever sends them.
//!
//! What a request holds is charged before it is held: bytes of a message as they arrive, entries
//! before they are decoded, what comes out of compression, answers that nobody has read yet. A
//! charge that finds no room waits for others to end, and is refused after [`PATIENCE`].

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use http::Extensions;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a request waits for memory.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// The smallest budget: one request of every kind fits into one peer's share of it.
pub const MIN_BUDGET: u64 = 256 << 20;
/// What each request may hold uncounted, in bytes: nearly all hold less, and cost nothing here.
const FREE: u64 = 64 << 10;
/// Bytes of one permit.
const UNIT: u64 = 4 << 10;
/// Charges grow by this much at least, in units.
const STEP: u64 = 32;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BudgetError {
    #[error(
        "no memory came free within {PATIENCE:?}: requests under way hold what they may \
         (server.request_memory = {limit} bytes, half of it for one address); try again"
    )]
    Busy { limit: u64 },
    #[error(
        "the request needs {needed} bytes of memory, one address may have {share} \
         (half of server.request_memory)"
    )]
    Never { needed: u64, share: u64 },
}

/// The memory that requests under way may hold. Clones share it.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    limit: u64,
    all: Arc<Semaphore>,
    /// Shares of addresses that have connections.
    peers: Mutex<HashMap<IpAddr, Weak<Semaphore>>>,
    refused: AtomicU64,
}

/// Counters of one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BudgetSnapshot {
    pub limit_bytes: u64,
    pub used_bytes: u64,
    /// Requests that found no memory, since the start.
    pub refused_total: u64,
}

/// What the requests of one address may hold: half of all, so that nobody can hold everything.
/// Travels in the extensions of requests.
#[derive(Debug, Clone)]
pub struct Share {
    address: Option<IpAddr>,
    pool: Arc<Pool>,
    own: Arc<Semaphore>,
}

impl Budget {
    /// `bytes`: at least [`MIN_BUDGET`] counts.
    pub fn new(bytes: u64) -> Self {
        let limit = bytes.max(MIN_BUDGET);
        Self(Arc::new(Pool {
            limit,
            all: Arc::new(Semaphore::new(units(limit))),
            peers: Mutex::default(),
            refused: AtomicU64::new(0),
        }))
    }

    /// The share of whoever connects from `address`; of everybody whose address is not known.
    pub fn share(&self, address: Option<IpAddr>) -> Share {
        let of = address.unwrap_or(IpAddr::from([0, 0, 0, 0]));
        let pool = self.0.clone();
        let mut peers = pool.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = peers.get(&of).and_then(Weak::upgrade) {
            drop(peers);
            return Share { address, pool, own };
        }
        peers.retain(|_, own| own.strong_count() > 0);
        let own = Arc::new(Semaphore::new(units(pool.limit / 2)));
        peers.insert(of, Arc::downgrade(&own));
        drop(peers);
        Share { address, pool, own }
    }

    pub fn snapshot(&self) -> BudgetSnapshot {
        let Pool { limit, all, refused, .. } = &*self.0;
        BudgetSnapshot {
            limit_bytes: *limit,
            used_bytes: limit.saturating_sub(all.available_permits() as u64 * UNIT),
            refused_total: refused.load(Ordering::Relaxed),
        }
    }
}

fn units(bytes: u64) -> usize {
    usize::try_from(bytes / UNIT).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)
}

/// What one request holds; given back when it is dropped.
#[derive(Debug, Default)]
pub struct Charge {
    /// `None`: nothing is counted.
    share: Option<Share>,
    held: Option<Held>,
    bytes: u64,
}

#[derive(Debug)]
struct Held {
    own: OwnedSemaphorePermit,
    all: OwnedSemaphorePermit,
}

impl Charge {
    /// A charge of nothing yet, for the request with these extensions. Without a [`Share`] among
    /// them it counts nothing.
    pub fn of(caller: &Extensions) -> Self {
        Self { share: caller.get::<Share>().cloned(), ..Self::default() }
    }

    /// Another charge of nothing yet, for a part of the same request.
    pub fn another(&self) -> Self {
        Self { share: self.share.clone(), ..Self::default() }
    }

    /// Adds `bytes`. Errors: no memory came free in time, or there never is so much.
    pub async fn add(&mut self, bytes: u64) -> Result<(), BudgetError> {
        self.grow_to(self.bytes.saturating_add(bytes)).await
    }

    /// Sees to it that `bytes` are counted in all.
    pub async fn grow_to(&mut self, bytes: u64) -> Result<(), BudgetError> {
        let Some((share, units)) = self.wanted(bytes)? else { return Ok(()) };
        let found = match share.try_take(units) {
            Some(found) => found,
            None => {
                let took = tokio::time::timeout(PATIENCE, share.take(units)).await;
                took.ok().flatten().ok_or_else(|| share.busy())?
            }
        };
        self.keep(found);
        Ok(())
    }

    /// Sees to it that `bytes` are counted in all, without waiting.
    pub fn try_grow_to(&mut self, bytes: u64) -> Result<(), BudgetError> {
        let Some((share, units)) = self.wanted(bytes)? else { return Ok(()) };
        let found = share.try_take(units).ok_or_else(|| share.busy())?;
        self.keep(found);
        Ok(())
    }

    /// What has to be taken so that `bytes` are counted; `None`: nothing.
    fn wanted(&mut self, bytes: u64) -> Result<Option<(Share, u32)>, BudgetError> {
        self.bytes = self.bytes.max(bytes);
        let Some(share) = &self.share else { return Ok(None) };
        let held = self.held.as_ref().map_or(0, |held| held.all.num_permits() as u64);
        if bytes <= FREE || bytes <= held * UNIT {
            return Ok(None);
        }
        let own = share.pool.limit / 2;
        if bytes > own {
            share.pool.refused.fetch_add(1, Ordering::Relaxed);
            return Err(BudgetError::Never { needed: bytes, share: own });
        }
        let most = (own / UNIT) - held;
        let missing = (bytes.div_ceil(UNIT) - held).max(STEP).min(most);
        Ok(Some((share.clone(), u32::try_from(missing).unwrap_or(u32::MAX))))
    }

    fn keep(&mut self, found: Held) {
        match &mut self.held {
            Some(held) => {
                held.own.merge(found.own);
                held.all.merge(found.all);
            }
            None => self.held = Some(found),
        }
    }
}

impl Share {
    /// The address that the requests come from, if that is known.
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    fn try_take(&self, units: u32) -> Option<Held> {
        let own = self.own.clone().try_acquire_many_owned(units).ok()?;
        let all = self.pool.all.clone().try_acquire_many_owned(units).ok()?;
        Some(Held { own, all })
    }

    async fn take(&self, units: u32) -> Option<Held> {
        let own = self.own.clone().acquire_many_owned(units).await.ok()?;
        let all = self.pool.all.clone().acquire_many_owned(units).await.ok()?;
        Some(Held { own, all })
    }

    fn busy(&self) -> BudgetError {
        self.pool.refused.fetch_add(1, Ordering::Relaxed);
        BudgetError::Busy { limit: self.pool.limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn charge(share: &Share) -> Charge {
        let mut extensions = Extensions::new();
        extensions.insert(share.clone());
        Charge::of(&extensions)
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_cannot_hold_everything() {
        let budget = Budget::new(0);
        let [one, two] = [1, 2].map(|last| budget.share(Some(IpAddr::from([10, 0, 0, last]))));
        let mut first = charge(&one);
        first.add(100 * MIB).await.unwrap();
        let mut second = charge(&one);
        assert_eq!(second.add(100 * MIB).await, Err(BudgetError::Busy { limit: MIN_BUDGET }));
        let mut other = charge(&two);
        other.add(100 * MIB).await.unwrap();
        assert_eq!(budget.snapshot().used_bytes, 200 * MIB);
        assert_eq!(budget.snapshot().refused_total, 1);
        let never = charge(&two).add(200 * MIB).await;
        assert!(matches!(never, Err(BudgetError::Never { .. })), "{never:?}");
        drop((first, other));
        assert_eq!(budget.snapshot().used_bytes, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_what_others_give_back() {
        let budget = Budget::new(0);
        let share = budget.share(None);
        let mut first = charge(&share);
        first.add(128 * MIB).await.unwrap();
        let waiting = tokio::spawn({
            let mut second = charge(&share);
            async move { second.add(MIB).await }
        });
        tokio::time::sleep(PATIENCE / 2).await;
        drop(first);
        assert_eq!(waiting.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn charges_grow_in_place_and_small_ones_are_free() {
        let budget = Budget::new(0);
        let mut charge = charge(&budget.share(None));
        charge.add(FREE).await.unwrap();
        assert_eq!(budget.snapshot().used_bytes, 0);
        charge.add(1).await.unwrap();
        let used = budget.snapshot().used_bytes;
        assert!((FREE..FREE * 4).contains(&used), "{used}");
        charge.try_grow_to(MIB).unwrap();
        charge.grow_to(10).await.unwrap();
        assert_eq!(budget.snapshot().used_bytes, MIB);
        // A charge that belongs to no share counts nothing.
        Charge::default().add(u64::MAX).await.unwrap();
    }
}
