//! Making room: unpromised entries go, those not used for longest first. Where that is not
//! enough and promises may be cut short, those go whose promise is oldest.

use crate::error::StoreError;
use crate::promises::{Ruling, Shortfall, Times};

/// A segment is compacted when a third of it is dead...
const USUAL_DEAD_SHARE: u64 = 3;
/// ...or, when nothing else can be freed, a sixteenth.
const LEAST_DEAD_SHARE: u64 = 16;

/// Contents of a store, as far as making room needs to know them. Everything blocks.
pub trait Evictable: Send + Sync + 'static {
    /// Bytes of all files.
    fn used(&self) -> u64;

    /// Visits bytes and times of every entry.
    fn survey(&self, visit: &mut dyn FnMut(u64, Times));

    /// Evicts the entries without a promise that stands that `choose` picks; returns how many.
    fn evict(&self, ruling: &Ruling, choose: &mut dyn FnMut(u64, Times) -> bool) -> u64;

    /// Gets back the space of evicted entries where at least `1/divisor` of a file is
    /// theirs. `false`: there was none.
    fn compact_worst(&self, divisor: u64) -> Result<bool, StoreError>;

    /// Has others who keep files under the same limit delete about so many bytes that they can
    /// spare. `false`: there are none.
    fn give_way(&self, _bytes: u64) -> bool {
        false
    }
}

#[derive(Debug, Default)]
pub struct Freed {
    pub count: u64,
    pub bytes: u64,
    /// Whether no more than the target is used now.
    pub reached: bool,
}

/// Evicts and compacts until at most `target` bytes are used, or nothing more can go. A
/// compaction that fails, as on a full disk, does not keep the rest from going. Promises that
/// are cut short are noted in `shortfall`.
pub fn reclaim(
    contents: &(impl Evictable + ?Sized),
    target: u64,
    ruling: &Ruling,
    shortfall: &mut Shortfall,
) -> Result<Freed, StoreError> {
    let mut freed = Freed::default();
    loop {
        let compacted = compact(contents, target, USUAL_DEAD_SHARE);
        let used = contents.used();
        if used <= target {
            freed.reached = true;
            return Ok(freed);
        }
        let gone = evict_oldest(contents, used - target, ruling, &mut freed, shortfall);
        if let Err(error) = compacted {
            // What is wholly dead by now needs no copies, and so no space for them.
            if gone > 0 && compact(contents, target, USUAL_DEAD_SHARE).is_ok() {
                continue;
            }
            // Not another round: what went from a log frees nothing without compaction.
            freed.reached = contents.used() <= target;
            return if freed.reached { Ok(freed) } else { Err(error) };
        }
        if gone == 0
            && !contents.compact_worst(LEAST_DEAD_SHARE)?
            && !contents.give_way(used - target)
        {
            return Ok(freed);
        }
    }
}

fn compact(
    contents: &(impl Evictable + ?Sized),
    target: u64,
    divisor: u64,
) -> Result<(), StoreError> {
    while contents.used() > target && contents.compact_worst(divisor)? {}
    Ok(())
}

/// Evicts `bytes` bytes, or all that are unpromised. Returns how many entries went.
fn evict_oldest(
    contents: &(impl Evictable + ?Sized),
    bytes: u64,
    ruling: &Ruling,
    freed: &mut Freed,
    shortfall: &mut Shortfall,
) -> u64 {
    let Some(cutoff) = cutoff(contents, bytes, ruling) else { return 0 };
    let (mut count, mut sum) = (0, 0);
    // Everything older than the cutoff, then of those as old as it is until it suffices.
    for exactly in [false, true] {
        count += contents.evict(ruling, &mut |size, times| {
            let chosen = match exactly {
                false => age(ruling, times) < cutoff,
                true => age(ruling, times) == cutoff && sum < bytes,
            };
            if chosen {
                sum += size;
                if times.leased_until > ruling.now {
                    shortfall.add(times.leased_until, size);
                }
            }
            chosen
        });
    }
    freed.count += count;
    freed.bytes += sum;
    count
}

/// The second by which entries are ordered for eviction, the smallest first: that of the last use or, where
/// promises are cut short, that in which the lease ends.
fn age(ruling: &Ruling, times: Times) -> u32 {
    if ruling.cut.is_some() { times.leased_until } else { times.accessed }
}

/// The age up to which entries that may go add up to `bytes`.
fn cutoff(contents: &(impl Evictable + ?Sized), bytes: u64, ruling: &Ruling) -> Option<u32> {
    let mut candidates = Vec::new();
    contents.survey(&mut |size, times| {
        if !ruling.stands(times) {
            candidates.push((age(ruling, times), size));
        }
    });
    candidates.sort_unstable_by_key(|(age, _)| *age);
    let mut sum = 0;
    let enough = candidates.iter().find(|(_, size)| {
        sum += size;
        sum >= bytes
    });
    enough.or(candidates.last()).map(|(age, _)| *age)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Ten entries of ten bytes, and a disk that is too full for compaction.
    struct Crowded(AtomicU64);

    impl Evictable for Crowded {
        fn used(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
        fn survey(&self, visit: &mut dyn FnMut(u64, Times)) {
            for _ in 0..self.used() / 10 {
                visit(10, Times { accessed: 1, leased_until: 0, holders: 0 });
            }
        }
        fn evict(&self, _: &Ruling, choose: &mut dyn FnMut(u64, Times) -> bool) -> u64 {
            let times = Times { accessed: 1, leased_until: 0, holders: 0 };
            let gone = (0..self.used() / 10).filter(|_| choose(10, times)).count() as u64;
            self.0.fetch_sub(gone * 10, Ordering::Relaxed);
            gone
        }
        fn compact_worst(&self, _: u64) -> Result<bool, StoreError> {
            Err(StoreError::unavailable("no space for copies"))
        }
    }

    /// A log of entries and, among them, dead ones, on a disk without space for copies.
    struct Log {
        alive: AtomicU64,
        dead: AtomicU64,
    }

    impl Evictable for Log {
        fn used(&self) -> u64 {
            self.alive.load(Ordering::Relaxed) + self.dead.load(Ordering::Relaxed)
        }
        fn survey(&self, visit: &mut dyn FnMut(u64, Times)) {
            for _ in 0..self.alive.load(Ordering::Relaxed) {
                visit(1, Times { accessed: 1, leased_until: 0, holders: 0 });
            }
        }
        fn evict(&self, _: &Ruling, choose: &mut dyn FnMut(u64, Times) -> bool) -> u64 {
            let times = Times { accessed: 1, leased_until: 0, holders: 0 };
            let alive = self.alive.load(Ordering::Relaxed);
            let gone = (0..alive).filter(|_| choose(1, times)).count() as u64;
            self.alive.fetch_sub(gone, Ordering::Relaxed);
            self.dead.fetch_add(gone, Ordering::Relaxed);
            gone
        }
        fn compact_worst(&self, divisor: u64) -> Result<bool, StoreError> {
            let dead = self.dead.load(Ordering::Relaxed);
            if dead == 0 || dead * divisor < self.used() {
                return Ok(false);
            }
            if self.alive.load(Ordering::Relaxed) > 0 {
                return Err(StoreError::DiskFull { path: "log".to_owned() });
            }
            self.dead.store(0, Ordering::Relaxed);
            Ok(true)
        }
    }

    #[test]
    fn what_is_wholly_dead_goes_although_it_could_not_be_copied_before() {
        let log = Log { alive: 60.into(), dead: 40.into() };
        let freed = reclaim(&log, 0, &Ruling::strict(5), &mut Shortfall::default())
            .expect("nothing is left to copy");
        assert!(freed.reached);
        assert_eq!((freed.count, log.used()), (60, 0));
    }

    #[test]
    fn what_needs_no_compaction_goes_although_compaction_fails() {
        let contents = Crowded(AtomicU64::new(100));
        let freed = reclaim(&contents, 40, &Ruling::strict(5), &mut Shortfall::default())
            .expect("something could go");
        assert!(freed.reached);
        assert_eq!((freed.count, contents.used()), (6, 40));
        // Nothing more can be evicted, so the failure is reported now.
        let leased = Crowded(AtomicU64::new(9));
        assert!(reclaim(&leased, 0, &Ruling::strict(5), &mut Shortfall::default()).is_err());
    }
}
