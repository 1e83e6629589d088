//! The presence cache: what this process remembers of the index. It knows where blobs were last
//! and until when they are promised, and saves the round trip for what was asked a short while
//! ago.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::index::Place;
use crate::clock::Clock;
use crate::digest::Digest;

const SHARDS: usize = 16;
/// Blobs that are remembered; about 100 bytes each.
const CAPACITY: usize = 1 << 18;
/// Each shard forgets in halves: a young one fills, and then replaces the old one.
const HALF: usize = CAPACITY / SHARDS / 2;

pub struct PresenceCache {
    shards: [Mutex<Shard>; SHARDS],
    /// Counts how often everything was forgotten.
    era: AtomicU64,
    clock: Clock,
}

#[derive(Default)]
struct Shard {
    young: HashMap<Digest, Seen>,
    old: HashMap<Digest, Seen>,
}

#[derive(Clone, Copy)]
struct Seen {
    place: Place,
    /// Second of the clock at which the lease ends.
    until: u32,
}

/// When a question was put to the index: answers count from then on, and only for the index
/// that was asked.
#[derive(Clone, Copy)]
pub struct Asked {
    era: u64,
    at: u32,
}

impl PresenceCache {
    /// `clock` tells how much of a promise is left.
    pub fn new(clock: Clock) -> Self {
        Self { shards: Default::default(), era: AtomicU64::new(0), clock }
    }

    fn shard(&self, digest: &Digest) -> MutexGuard<'_, Shard> {
        let shard = &self.shards[usize::from(digest.hash[0]) % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Call it before the index is asked, and hand it to [`PresenceCache::remember`] with the answer.
    pub fn asking(&self) -> Asked {
        Asked { era: self.era.load(Ordering::Acquire), at: self.clock.now() }
    }

    /// Whether the blob is known to be in the object store and promised for at least `lease` from
    /// now on.
    pub fn promised(&self, digest: &Digest, lease: Duration) -> bool {
        // Both ends are cut to whole seconds.
        let needed = self.clock.now().saturating_add(seconds(lease)).saturating_add(2);
        let stays = |seen: Seen| matches!(seen.place, Place::Object(_)) && seen.until >= needed;
        self.shard(digest).get(digest).is_some_and(stays)
    }

    /// Where the blob was last; a hint, whatever became of its lease.
    pub fn place(&self, digest: &Digest) -> Option<Place> {
        self.shard(digest).get(digest).map(|seen| seen.place)
    }

    /// Remembers that the blob is there and was promised for `lease` when the index was asked.
    pub fn remember(&self, digest: &Digest, place: Place, lease: Duration, asked: Asked) {
        let seen = Seen { place, until: asked.at.saturating_add(seconds(lease)) };
        let mut shard = self.shard(digest);
        // Under the lock, so that nothing is remembered after everything was forgotten.
        if asked.era == self.era.load(Ordering::Acquire) {
            shard.insert(*digest, seen);
        }
    }

    /// Forgets one blob: the index does not know it, or not there.
    pub fn forget(&self, digest: &Digest) {
        let mut shard = self.shard(digest);
        shard.young.remove(digest);
        shard.old.remove(digest);
    }

    /// Forgets everything, also what was asked before this call and is answered after it.
    pub fn forget_all(&self) {
        self.era.fetch_add(1, Ordering::AcqRel);
        for shard in &self.shards {
            *shard.lock().unwrap_or_else(PoisonError::into_inner) = Shard::default();
        }
    }
}

impl Shard {
    fn get(&self, digest: &Digest) -> Option<Seen> {
        self.young.get(digest).or_else(|| self.old.get(digest)).copied()
    }

    fn insert(&mut self, digest: Digest, mut seen: Seen) {
        if let Some(before) = self.get(&digest)
            && before.place == seen.place
        {
            seen.until = seen.until.max(before.until);
        }
        if self.young.len() >= HALF {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(digest, seen);
    }
}

fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::DigestFunction;
    use crate::stores::indexed::Generation;

    const LEASE: Duration = Duration::from_secs(100);
    const PLACE: Place = Place::Object(Generation(1));

    fn digest(number: usize) -> Digest {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&number.to_le_bytes());
        Digest { hash, size: 1, function: DigestFunction::Blake3 }
    }

    #[test]
    fn a_promise_is_only_answered_while_enough_of_it_is_left() {
        let clock = Clock::manual(1000);
        let cache = PresenceCache::new(clock.clone());
        let asked = cache.asking();
        clock.advance(10);
        cache.remember(&digest(1), PLACE, LEASE * 3 / 2, asked);
        assert!(cache.promised(&digest(1), LEASE));
        clock.advance(38);
        assert!(cache.promised(&digest(1), LEASE), "102 seconds are left");
        clock.advance(1);
        assert!(!cache.promised(&digest(1), LEASE));
        assert_eq!(cache.place(&digest(1)), Some(PLACE));
        cache.forget(&digest(1));
        assert_eq!(cache.place(&digest(1)), None);
    }

    #[test]
    fn answers_of_an_index_that_is_gone_are_not_remembered() {
        let cache = PresenceCache::new(Clock::manual(1000));
        let asked = cache.asking();
        cache.remember(&digest(1), PLACE, LEASE, asked);
        cache.forget_all();
        cache.remember(&digest(2), PLACE, LEASE, asked);
        assert_eq!((cache.place(&digest(1)), cache.place(&digest(2))), (None, None));
    }

    #[test]
    fn the_oldest_are_forgotten_and_there_is_a_bound() {
        let cache = PresenceCache::new(Clock::manual(1000));
        let asked = cache.asking();
        for number in 0..2 * CAPACITY {
            cache.remember(&digest(number), PLACE, LEASE, asked);
        }
        let kept = |number: &usize| cache.place(&digest(*number)).is_some();
        assert_eq!((0..CAPACITY / 2).filter(kept).count(), 0);
        let fresh = 2 * CAPACITY - CAPACITY / 3..2 * CAPACITY;
        assert_eq!(fresh.clone().filter(kept).count(), fresh.len());
        assert!((0..2 * CAPACITY).filter(kept).count() <= CAPACITY);
    }
}
