//! Which promises give way, against a model that remembers every promise.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::promises::Times;
use crate::promises::{Presence, Ruling};

const LEASE: u32 = 1000;
const MIN_LEASE: u32 = 100;
const SIZE: u64 = 10;

/// Blobs of equal size by number.
#[derive(Default)]
struct Blobs(Mutex<BTreeMap<u16, Times>>);

impl Evictable for Blobs {
    fn used(&self) -> u64 {
        self.0.lock().unwrap().len() as u64 * SIZE
    }
    fn survey(&self, visit: &mut dyn FnMut(u64, Times)) {
        self.0.lock().unwrap().values().for_each(|times| visit(SIZE, *times));
    }
    fn evict(&self, ruling: &Ruling, choose: &mut dyn FnMut(u64, Times) -> bool) -> u64 {
        let mut blobs = self.0.lock().unwrap();
        let before = blobs.len();
        blobs.retain(|_, times| ruling.stands(*times) || !choose(SIZE, *times));
        (before - blobs.len()) as u64
    }
    fn compact_worst(&self, _: u64) -> Result<bool, StoreError> {
        Ok(false)
    }
}

#[derive(Debug, Clone)]
enum Step {
    Wait(u32),
    /// A request of an invocation, which promises the invocation these blobs.
    Ask(u8, Vec<u16>),
    /// The same, but the request stays under way until the invocation's next request.
    Stay(u8, Vec<u16>),
    /// A request that names no invocation.
    Anonymous(Vec<u16>),
    /// Room for so many more blobs.
    Write(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let blobs = || prop::collection::vec(0..60u16, 1..8);
    let step = prop_oneof![
        (1..60u32).prop_map(Step::Wait),
        (0..50u8, blobs()).prop_map(|(who, blobs)| Step::Ask(who, blobs)),
        (0..50u8, blobs()).prop_map(|(who, blobs)| Step::Stay(who, blobs)),
        blobs().prop_map(Step::Anonymous),
        (1..10u64).prop_map(Step::Write),
    ];
    prop::collection::vec(step, 1..120)
}

struct World {
    clock: Clock,
    invocations: Invocations,
    blobs: Arc<Blobs>,
    /// When each blob was last promised, and to whom since when the invocation runs.
    promised: BTreeMap<u16, BTreeMap<Option<u8>, u32>>,
    seen: BTreeMap<u8, u32>,
    open: BTreeMap<u8, Presence>,
}

impl World {
    fn promise(&mut self, who: Option<u8>, holders: u32, blobs: &[u16]) {
        let now = self.clock.now();
        for blob in blobs {
            let mut stored = self.blobs.0.lock().unwrap();
            let fresh = Times { accessed: now, leased_until: 0, holders: 0 };
            let times = stored.entry(*blob).or_insert_with(|| {
                self.promised.remove(blob);
                fresh
            });
            times.leased_until = now + LEASE;
            times.holders |= holders;
            self.promised.entry(*blob).or_default().insert(who, now);
        }
    }

    fn runs(&self, who: u8) -> bool {
        self.open.contains_key(&who)
            || self.seen.get(&who).is_some_and(|seen| seen + MIN_LEASE > self.clock.now())
    }

    /// An invocation that was over begins anew: what it was promised before does not count.
    fn request(&mut self, who: u8, blobs: &[u16]) -> Presence {
        if !self.runs(who) {
            self.promised.values_mut().for_each(|promises| {
                promises.remove(&Some(who));
            });
        }
        let present = self.invocations.begin(&[who]).unwrap();
        self.promise(Some(who), present.holders(), blobs);
        self.seen.insert(who, self.clock.now());
        present
    }

    /// Whether a promise of this blob has to be kept.
    fn must_stay(&self, blob: u16) -> bool {
        let now = self.clock.now();
        self.promised.get(&blob).into_iter().flatten().any(|(who, at)| {
            now < at + MIN_LEASE || (now < at + LEASE && who.is_some_and(|who| self.runs(who)))
        })
    }

    fn write(&self, blobs: u64) -> Result<(), TestCaseError> {
        let before = self.blobs.0.lock().unwrap().clone();
        let target = self.blobs.used().saturating_sub(blobs * SIZE);
        let now = self.clock.now();
        let ruling = Ruling { now, cut: Some(self.invocations.cut(LEASE)) };
        let mut shortfall = Shortfall::default();
        let freed = reclaim(&*self.blobs, target, &ruling, &mut shortfall).unwrap();
        let after = self.blobs.0.lock().unwrap().clone();
        let gone: Vec<_> = before.iter().filter(|(blob, _)| !after.contains_key(blob)).collect();
        for (blob, _) in &gone {
            prop_assert!(!self.must_stay(**blob), "blob {blob} went at {now}");
        }
        // The oldest promises first, and no more of them than was needed.
        let youngest = gone.iter().map(|(_, times)| times.leased_until).max();
        let left = after.values().filter(|times| !ruling.stands(**times));
        let oldest = left.map(|times| times.leased_until).min();
        prop_assert!(youngest.is_none() || oldest.is_none() || youngest <= oldest);
        prop_assert!(gone.len() as u64 <= blobs);
        prop_assert!(freed.reached || oldest.is_none(), "nothing is left that could go");
        let cut = gone.iter().filter(|(_, times)| times.leased_until > now).count();
        prop_assert_eq!(shortfall.total().count, cut as u64);
        Ok(())
    }
}

proptest! {
    #[test]
    fn what_a_running_invocation_was_promised_never_goes(steps in steps()) {
        let clock = Clock::manual(1000);
        let min_lease = Duration::from_secs(MIN_LEASE.into());
        let invocations = Invocations::new(clock.clone(), min_lease);
        clock.advance(MIN_LEASE);
        let mut world = World {
            clock: clock.clone(),
            invocations,
            blobs: Arc::default(),
            promised: BTreeMap::new(),
            seen: BTreeMap::new(),
            open: BTreeMap::new(),
        };
        for step in steps {
            match step {
                Step::Wait(time) => clock.advance(time),
                Step::Ask(who, blobs) => {
                    drop(world.request(who, &blobs));
                    world.open.remove(&who);
                }
                Step::Stay(who, blobs) => {
                    let present = world.request(who, &blobs);
                    world.open.insert(who, present);
                }
                Step::Anonymous(blobs) => world.promise(None, 0, &blobs),
                Step::Write(blobs) => world.write(blobs)?,
            }
            // The store has seen an invocation last when its request ends.
            for who in world.open.keys() {
                world.seen.insert(*who, clock.now());
            }
        }
        // The store may evict everything once all invocations are over.
        world.open.clear();
        clock.advance(MIN_LEASE + 1);
        world.write(1000)?;
        prop_assert_eq!(world.blobs.used(), 0);
    }
}

#[tokio::test]
async fn a_store_that_is_too_small_goes_on_and_says_which_size_would_do() {
    let clock = Clock::manual(100_000);
    let invocations = Invocations::new(clock.clone(), Duration::from_secs(MIN_LEASE.into()));
    clock.advance(MIN_LEASE);
    let terms =
        Terms { lease: LEASE, invocations: Some(invocations.clone()), clock: clock.clone() };
    let capacity = Capacity::new(20 * SIZE, 0, terms);
    let blobs = Arc::new(Blobs::default());
    let build = |name: &[u8], numbers: std::ops::Range<u16>| {
        let present = invocations.begin(name).unwrap();
        let (holders, capacity, blobs, clock) =
            (present.holders(), capacity.clone(), blobs.clone(), clock.clone());
        async move {
            for number in numbers {
                let _reserved = capacity.reserve(&blobs, SIZE).await?;
                let now = clock.now();
                let times = Times { accessed: now, leased_until: now + LEASE, holders };
                blobs.0.lock().unwrap().insert(number, times);
            }
            Ok::<_, StoreError>(present)
        }
    };
    drop(build(b"first", 0..16).await.unwrap());
    assert_eq!((capacity.cut(), capacity.wanted()), (CutShort::default(), 20 * SIZE));
    let refused = build(b"second", 100..116).await.err().unwrap();
    assert!(matches!(refused, StoreError::Full { .. }), "{refused}");
    assert!(refused.to_string().contains("raise storage.max_size"), "{refused}");
    clock.advance(MIN_LEASE);
    let second = build(b"second", 100..116).await.unwrap();
    let there = |number: &u16| blobs.0.lock().unwrap().contains_key(number);
    assert_eq!((100..116).filter(there).count(), 16);
    let cut = capacity.cut();
    assert_eq!((cut.count, cut.bytes), (12, 12 * SIZE));
    assert_eq!(capacity.wanted(), 32 * SIZE, "both builds at once");
    // While it runs, however long, nobody takes its room; a third one is refused.
    clock.advance(MIN_LEASE * 5);
    assert!(build(b"third", 200..216).await.is_err());
    assert_eq!((100..116).filter(there).count(), 16);
    drop(second);
    clock.advance(MIN_LEASE);
    build(b"third", 200..216).await.unwrap();
}
