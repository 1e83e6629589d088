//! Where each key's record is, in memory. Look-ups take a shard's lock shared; access times and
//! leases are atomics, so that a promise never waits for another.

use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::record::{Key, KeyMap, space};
use crate::promises::{Ruling, Times};

const SHARDS: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    pub segment: u32,
    pub offset: u32,
    /// Bytes of the payload.
    pub length: u32,
}

impl Location {
    /// Bytes in the segment.
    pub fn space(&self) -> u64 {
        space(u64::from(self.length))
    }
}

struct Slot {
    at: Location,
    accessed: AtomicU32,
    leased_until: AtomicU32,
    holders: AtomicU32,
}

impl Slot {
    fn new(at: Location, times: Times) -> Self {
        let (accessed, leased_until) = (times.accessed.into(), times.leased_until.into());
        Self { at, accessed, leased_until, holders: times.holders.into() }
    }

    fn times(&self) -> Times {
        Times {
            accessed: self.accessed.load(Ordering::Relaxed),
            leased_until: self.leased_until.load(Ordering::Relaxed),
            holders: self.holders.load(Ordering::Relaxed),
        }
    }

    fn touch(&self, times: Times) {
        // Stores only on change, so that the memory of a hot entry stays shared between cores.
        if self.accessed.load(Ordering::Relaxed) != times.accessed {
            self.accessed.store(times.accessed, Ordering::Relaxed);
        }
        if self.leased_until.load(Ordering::Relaxed) < times.leased_until {
            self.leased_until.store(times.leased_until, Ordering::Relaxed);
        }
        if self.holders.load(Ordering::Relaxed) & times.holders != times.holders {
            self.holders.fetch_or(times.holders, Ordering::Relaxed);
        }
    }
}

type Shard = KeyMap<Slot>;

pub struct Index {
    shards: Vec<RwLock<Shard>>,
    count: AtomicU64,
}

impl Index {
    pub fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| RwLock::default()).collect(), count: AtomicU64::new(0) }
    }

    fn read(&self, shard: usize) -> RwLockReadGuard<'_, Shard> {
        self.shards[shard].read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, key: &Key) -> RwLockWriteGuard<'_, Shard> {
        self.shards[key.shard(SHARDS)].write().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    pub fn locate(&self, key: &Key) -> Option<Location> {
        self.read(key.shard(SHARDS)).get(key).map(|slot| slot.at)
    }

    /// The times of `key`, if it points at `at`.
    pub fn times_at(&self, key: &Key, at: Location) -> Option<Times> {
        let shard = self.read(key.shard(SHARDS));
        shard.get(key).filter(|slot| slot.at == at).map(Slot::times)
    }

    /// Finds the record as [`Index::locate`] does, and raises its access time and lease.
    pub fn touch(&self, key: &Key, times: Times) -> Option<Location> {
        let shard = self.read(key.shard(SHARDS));
        let slot = shard.get(key)?;
        slot.touch(times);
        Some(slot.at)
    }

    /// Lets the lease of `key` end at `until` if it ends later.
    pub fn shorten(&self, key: &Key, until: u32) {
        if let Some(slot) = self.read(key.shard(SHARDS)).get(key) {
            slot.leased_until.fetch_min(until, Ordering::Relaxed);
        }
    }

    /// Touches every key; calls `absent` with the positions of those that are not here.
    pub fn touch_all(&self, keys: &[Key], times: Times, mut absent: impl FnMut(usize)) {
        if let [key] = keys {
            if self.touch(key, times).is_none() {
                absent(0);
            }
            return;
        }
        // One lock a shard, and look-ups without a barrier between them: the processor
        // overlaps their cache misses.
        let (order, starts) = by_shard(keys);
        for shard in 0..SHARDS {
            let positions = &order[starts[shard] as usize..starts[shard + 1] as usize];
            if positions.is_empty() {
                continue;
            }
            let shard = self.read(shard);
            for &position in positions {
                match shard.get(&keys[position as usize]) {
                    Some(slot) => slot.touch(times),
                    None => absent(position as usize),
                }
            }
        }
    }

    /// Points `key` at `at`; returns where it pointed before.
    pub fn set(&self, key: &Key, at: Location, times: Times) -> Option<Location> {
        let old = self.write(key).insert(*key, Slot::new(at, times)).map(|slot| slot.at);
        if old.is_none() {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        old
    }

    /// Follows a record that was copied. `false`: the key no longer points at `from`.
    pub fn relocate(&self, key: &Key, from: Location, to: Location) -> bool {
        match self.write(key).get_mut(key) {
            Some(slot) if slot.at == from => {
                slot.at = to;
                true
            }
            _ => false,
        }
    }

    pub fn remove_if_at(&self, key: &Key, at: Location) -> bool {
        if let Entry::Occupied(entry) = self.write(key).entry(*key)
            && entry.get().at == at
        {
            entry.remove();
            self.count.fetch_sub(1, Ordering::Relaxed);
            return true;
        }
        false
    }

    /// Visits a moment's view of each shard in turn.
    pub fn for_each(&self, mut visit: impl FnMut(&Key, Location, Times)) {
        for shard in 0..SHARDS {
            for (key, slot) in self.read(shard).iter() {
                visit(key, slot.at, slot.times());
            }
        }
    }

    /// Removes the entries without a promise that stands that `choose` picks, and reports where
    /// they were.
    pub fn evict(
        &self,
        ruling: &Ruling,
        mut choose: impl FnMut(Location, Times) -> bool,
        mut gone: impl FnMut(Location),
    ) {
        for shard in &self.shards {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            shard.retain(|_, slot| {
                let times = slot.times();
                let keep = ruling.stands(times) || !choose(slot.at, times);
                if !keep {
                    self.count.fetch_sub(1, Ordering::Relaxed);
                    gone(slot.at);
                }
                keep
            });
        }
    }
}

/// Positions of `keys` grouped by shard, and where each shard's group starts.
fn by_shard(keys: &[Key]) -> (Vec<u32>, [u32; SHARDS + 1]) {
    let mut starts = [0u32; SHARDS + 1];
    for key in keys {
        starts[key.shard(SHARDS) + 1] += 1;
    }
    for shard in 0..SHARDS {
        starts[shard + 1] += starts[shard];
    }
    let mut next = starts;
    let mut order = vec![0; keys.len()];
    for (position, key) in keys.iter().enumerate() {
        let slot = &mut next[key.shard(SHARDS)];
        order[*slot as usize] = position as u32;
        *slot += 1;
    }
    (order, starts)
}
