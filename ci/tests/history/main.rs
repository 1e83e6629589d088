//! The history under crashes: whatever is acknowledged is found, and nothing counts twice.
//! `KILN_SEED=N` repeats a run.

#![allow(clippy::unwrap_used)]

mod model;

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use kiln_ci::history::{History, Policy};
use kiln_ci::model::Time;
use kiln_ci::storage::memory::Memory;
use model::{Model, batch, test_key};
use tokio::runtime::Builder;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

struct Rig {
    segments: Memory,
    records: Memory,
    history: History,
    now: u64,
    model: Model,
}

impl Rig {
    fn new() -> Self {
        let (segments, records) = (Memory::default(), Memory::default());
        let history = open(&segments, &records);
        Self { segments, records, history, now: 100 * 24 * HOUR, model: Model::default() }
    }

    /// The process ends, and another one begins.
    fn restart(&mut self) {
        self.segments.recover();
        self.records.recover();
        self.history = open(&self.segments, &self.records);
    }

    fn advance(&mut self, millis: u64) {
        self.now += millis;
        self.segments.set_time(Time(self.now));
        self.records.set_time(Time(self.now));
    }

    /// Asserts that everything acknowledged is there exactly once, and that the days are the sums of the
    /// attempts.
    async fn check(&self) {
        for test in self.model.tests() {
            let mut expected = self.model.attempts(&test);
            let all = self.history.newest_with_parts(&test, 1000).await.unwrap();
            assert_eq!(model::sorted(&all), model::sorted(&expected), "{test:?}");
            expected.retain(|it| !it.is_part());
            let found = self.history.newest(&test, 1000, true).await.unwrap();
            assert_eq!(model::sorted(&found), model::sorted(&expected), "{test:?}");
            let few = self.history.newest(&test, 3, true).await.unwrap();
            assert_eq!(few, found[..found.len().min(3)], "{test:?}");
            let whole = all.iter().enumerate().filter(|(_, it)| !it.is_part());
            let end = whole.map(|(at, _)| at + 1).nth(2).unwrap_or(all.len());
            let few = self.history.newest_with_parts(&test, 3).await.unwrap();
            assert_eq!(few, all[..end], "{test:?}, parts beside those that count");
            let days = self.history.days(&test).await.unwrap();
            assert_eq!(days, kiln_ci::history::days(&expected), "{test:?}");
        }
    }

    async fn settle(&mut self) {
        self.advance(20 * MINUTE);
        while self.history.maintain(Time(self.now)).await.unwrap() {}
        self.advance(20 * MINUTE);
        while self.history.maintain(Time(self.now)).await.unwrap() {}
    }
}

fn open(segments: &Memory, records: &Memory) -> History {
    let policy = Policy { settle_count: 4, fan: 3, ..Policy::default() };
    History::new(Arc::new(segments.clone()), Arc::new(records.clone()), policy)
}

fn seed() -> Option<u64> {
    std::env::var("KILN_SEED").ok().map(|it| it.parse().expect("KILN_SEED is a number"))
}

/// A process ends anywhere: in the middle of commits and of maintenance. Its client commits again what was not
/// acknowledged, perhaps in other batches.
async fn play(seed: u64) {
    println!("KILN_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let mut rig = Rig::new();
    let mut crashes = 0;
    for step in 0..60 {
        rig.advance(rng.u64(..10) * MINUTE);
        if rng.u8(..3) == 0 {
            rig.segments.fail_after(rng.u64(..12), rng.bool());
        }
        if rng.u8(..3) == 0 {
            rig.records.fail_after(rng.u64(..12), rng.bool());
        }
        let mut open = batch(&mut rng, step, rig.now);
        // Some of what is said later is about invocations that were told of before.
        open.extend(rig.model.again(&mut rng));
        loop {
            let done = rig.history.commit(Time(rig.now), &open).await;
            let maintained = match done {
                Ok(()) => {
                    rig.model.commit(&open);
                    rig.history.maintain(Time(rig.now)).await.map(|_| ())
                }
                Err(error) => Err(error),
            };
            match maintained {
                Ok(()) => break,
                Err(_) => {
                    crashes += 1;
                    rig.restart();
                }
            }
        }
        if rng.u8(..8) == 0 {
            rig.restart();
            rig.check().await;
        }
    }
    rig.restart();
    rig.check().await;
    rig.settle().await;
    rig.check().await;
    assert!(crashes > 3, "{crashes} crashes");
    for now in [0, 3 * HOUR] {
        rig.history.sweep(Duration::from_millis(now)).await.unwrap();
    }
    rig.check().await;
    // Nothing is left of what crashed: the catalogue names all blobs.
    let names = rig.records.records();
    assert!(rig.segments.blobs() <= names + 20, "{} blobs", rig.segments.blobs());
}

#[test]
fn crashes_anywhere_lose_nothing_and_count_nothing_twice() {
    let runtime = Builder::new_current_thread().build().unwrap();
    for seed in seed().map_or(1..=12, |it| it..=it) {
        runtime.block_on(play(seed));
    }
}

/// One commit and what maintenance makes of it, cut off at each call.
#[test]
fn each_step_may_be_the_last() {
    let runtime = Builder::new_current_thread().build().unwrap();
    for calls in 0..60 {
        for is_done in [false, true] {
            runtime.block_on(async {
                let mut rng = Rng::with_seed(7);
                let mut rig = Rig::new();
                for step in 0..9 {
                    let attempts = batch(&mut rng, step, rig.now);
                    rig.history.commit(Time(rig.now), &attempts).await.unwrap();
                    rig.model.commit(&attempts);
                }
                let more = batch(&mut rng, 10, rig.now);
                rig.segments.fail_after(calls, is_done);
                rig.records.fail_after(calls, is_done);
                rig.advance(HOUR);
                let acknowledged = rig.history.commit(Time(rig.now), &more).await.is_ok();
                for _ in 0..4 {
                    let _ = rig.history.maintain(Time(rig.now)).await;
                    rig.advance(30 * MINUTE);
                }
                rig.restart();
                if !acknowledged {
                    rig.history.commit(Time(rig.now), &more).await.unwrap();
                }
                rig.model.commit(&more);
                rig.check().await;
                rig.settle().await;
                rig.check().await;
            });
        }
    }
}

/// Several processes commit and maintain one history, and others read it.
#[test]
fn several_processes_share_one_history() {
    let runtime = Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let (segments, records) = (Memory::default(), Memory::default());
    let now = Time(100 * 24 * HOUR);
    let model = runtime.block_on(async {
        let mut tasks = Vec::new();
        for process in 0..4_u64 {
            let history = open(&segments, &records);
            tasks.push(tokio::spawn(async move {
                let mut all = Vec::new();
                for step in 0..25 {
                    // Two of them tell the same.
                    let build = step + 100 * (process / 2);
                    let attempts = batch(&mut Rng::with_seed(build), build, now.0);
                    history.commit(now, &attempts).await.unwrap();
                    all.extend(attempts);
                    let _ = history.maintain(now).await;
                    history.newest(&test_key(0), 10, false).await.unwrap();
                    history.days(&test_key(1)).await.unwrap();
                    history.flakiest("main", 0, u64::MAX, 10).await.unwrap();
                }
                all
            }));
        }
        let mut model = Model::default();
        for task in tasks {
            model.commit(&task.await.unwrap());
        }
        model
    });
    let mut rig = Rig::new();
    rig.history = open(&segments, &records);
    rig.model = model;
    rig.now = now.0;
    runtime.block_on(async {
        rig.check().await;
        rig.settle().await;
        rig.check().await;
    });
}

#[test]
fn old_attempts_leave_their_days_behind() {
    let runtime = Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut rng = Rng::with_seed(3);
        let mut rig = Rig::new();
        for step in 0..8 {
            let attempts = batch(&mut rng, step, rig.now);
            rig.history.commit(Time(rig.now), &attempts).await.unwrap();
            rig.model.commit(&attempts);
        }
        rig.settle().await;
        let before = rig.segments.bytes();
        rig.advance(200 * 24 * HOUR);
        rig.settle().await;
        for test in rig.model.tests() {
            assert_eq!(rig.history.newest(&test, 10, true).await.unwrap(), []);
            let expected = kiln_ci::history::days(&rig.model.attempts(&test));
            assert_eq!(rig.history.days(&test).await.unwrap(), expected);
        }
        assert!(rig.segments.bytes() < before);
        rig.advance(700 * 24 * HOUR);
        rig.settle().await;
        assert!(rig.history.days(&test_key(0)).await.unwrap().is_empty());
        assert_eq!(rig.segments.blobs(), 0);
    });
}

#[test]
fn the_flakiest_tests_are_found() {
    let runtime = Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut rng = Rng::with_seed(5);
        let mut rig = Rig::new();
        for step in 0..20 {
            let attempts = batch(&mut rng, step, rig.now);
            rig.history.commit(Time(rig.now), &attempts).await.unwrap();
            rig.model.commit(&attempts);
        }
        let expected = rig.model.flaky("main");
        assert!(expected.len() > 2);
        for _ in 0..2 {
            let found = rig.history.flakiest("main", 0, u64::MAX, 100).await.unwrap();
            let found: Vec<_> = found.into_iter().map(|it| (it.sum.flaky, it.test.label)).collect();
            assert_eq!(found, expected);
            rig.settle().await;
        }
        assert_eq!(rig.history.flakiest("main", 0, u64::MAX, 1).await.unwrap().len(), 1);
        assert!(rig.history.flakiest("main", 0, 5, 10).await.unwrap().is_empty());
        assert!(rig.history.flakiest("other", 0, u64::MAX, 10).await.unwrap().is_empty());
    });
}
