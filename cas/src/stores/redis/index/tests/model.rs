//! Any sequence of calls against a model of a few lines.

use std::collections::HashMap;

use kiln_test_servers::redis::RedisServer;
use proptest::prelude::*;

use super::*;
use crate::redis::tests::connect;

/// Blobs that the calls are about: few, so that calls meet.
const BLOBS: usize = 6;

#[derive(Debug, Clone)]
enum Step {
    Find { blobs: Vec<usize>, long: bool },
    Small { blobs: Vec<usize> },
    PutSmall { blobs: Vec<usize>, long: bool },
    Place { blob: usize, generation: u64, long: bool },
    Forget { blob: usize, generation: Option<u64> },
    Evict { blobs: Vec<(usize, u64)> },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let blobs = || proptest::collection::vec(0..BLOBS, 0..5);
    let generation = || 1..4u64;
    let step =
        prop_oneof![
            (blobs(), any::<bool>()).prop_map(|(blobs, long)| Step::Find { blobs, long }),
            blobs().prop_map(|blobs| Step::Small { blobs }),
            (blobs(), any::<bool>()).prop_map(|(blobs, long)| Step::PutSmall { blobs, long }),
            (0..BLOBS, generation(), any::<bool>())
                .prop_map(|(blob, generation, long)| Step::Place { blob, generation, long }),
            (0..BLOBS, proptest::option::of(generation()))
                .prop_map(|(blob, generation)| Step::Forget { blob, generation }),
            proptest::collection::vec((0..BLOBS, generation()), 0..5)
                .prop_map(|blobs| Step::Evict { blobs }),
        ];
    proptest::collection::vec(step, 1..60)
}

#[derive(Debug, Clone, Default)]
struct Known {
    /// The generation of the blob's object, or `None` while the blob is pending.
    generation: Option<u64>,
    /// Whether the blob is promised for an hour. Otherwise the index may evict it at any time.
    promised: bool,
    /// Whether the blob's bytes are in the index.
    kept: bool,
}

#[derive(Default)]
struct Model {
    blobs: HashMap<usize, Known>,
}

impl Model {
    fn promise(&mut self, blob: usize, long: bool) {
        if let Some(known) = self.blobs.get_mut(&blob) {
            known.promised |= long;
        }
    }

    fn put_small(&mut self, blob: usize, long: bool) {
        self.blobs.entry(blob).or_default().kept = true;
        self.promise(blob, long);
    }

    fn place(&mut self, blob: usize, generation: u64, long: bool) -> u64 {
        let known = self.blobs.entry(blob).or_default();
        let counts = *known.generation.get_or_insert(generation);
        self.promise(blob, long);
        counts
    }

    fn forget(&mut self, blob: usize, generation: Option<u64>) -> bool {
        let there = self.blobs.get(&blob).is_some_and(|known| known.generation == generation);
        if there {
            self.blobs.remove(&blob);
        }
        there
    }

    /// Whether the index evicted it is for the index to say, where it may at all.
    fn evict(&mut self, blob: usize, generation: u64, evicted: bool) {
        if evicted {
            let known = self.blobs.remove(&blob).expect("an unknown blob was evicted");
            assert_eq!(known.generation, Some(generation));
            assert!(!known.promised, "a promised blob was evicted");
        }
    }

    fn usage(&self) -> IndexUsage {
        let pending = self.blobs.values().filter(|known| known.generation.is_none()).count();
        IndexUsage {
            blobs: self.blobs.len() as u64,
            bytes: self.blobs.keys().map(|&number| content(number).1.len() as u64).sum(),
            pending: pending as u64,
        }
    }
}

/// Returns the blob of this number. All of them fall into two buckets.
fn content(number: usize) -> (Digest, Bytes) {
    let (mut digest, bytes) = blob(number as u64, number * 10 + 1);
    digest.hash[0] = number as u8 % 2;
    (digest, bytes)
}

fn lease(long: bool) -> Duration {
    if long { HOUR } else { Duration::ZERO }
}

async fn step(index: &RedisBlobIndex, model: &mut Model, step: Step) {
    let digests =
        |blobs: &[usize]| -> Vec<_> { blobs.iter().map(|&blob| content(blob).0).collect() };
    match step {
        Step::Find { blobs, long } => {
            let found = index.find(&digests(&blobs), lease(long)).await.unwrap();
            for (blob, entry) in blobs.into_iter().zip(found) {
                let known = model.blobs.get(&blob);
                let expected = known.map(|known| match known.generation {
                    Some(generation) => Place::Object(Generation(generation)),
                    None => Place::Index,
                });
                assert_eq!(entry.map(|entry| entry.place), expected);
                model.promise(blob, long);
            }
        }
        Step::Small { blobs } => {
            let small = index.small(&digests(&blobs)).await.unwrap();
            for (blob, bytes) in blobs.into_iter().zip(small) {
                let kept = model.blobs.get(&blob).is_some_and(|known| known.kept);
                assert_eq!(bytes, kept.then(|| content(blob).1));
            }
        }
        Step::PutSmall { blobs, long } => {
            let contents: Vec<_> = blobs.iter().map(|&blob| content(blob)).collect();
            index.put_small(&contents, lease(long)).await.unwrap();
            blobs.into_iter().for_each(|blob| model.put_small(blob, long));
        }
        Step::Place { blob, generation, long } => {
            let digest = content(blob).0;
            let counts = index.place(&digest, Generation(generation), lease(long)).await.unwrap();
            assert_eq!(counts.0, model.place(blob, generation, long));
        }
        Step::Forget { blob, generation } => {
            let place = generation.map_or(Place::Index, |number| Place::Object(Generation(number)));
            let forgotten = index.forget(&content(blob).0, place).await.unwrap();
            assert_eq!(forgotten, model.forget(blob, generation));
        }
        Step::Evict { blobs } => {
            let asked = blobs.iter().map(|&(blob, number)| (content(blob).0, Generation(number)));
            let evicted = index.evict(&asked.collect::<Vec<_>>()).await.unwrap();
            for ((blob, generation), evicted) in blobs.into_iter().zip(evicted) {
                model.evict(blob, generation, evicted);
            }
        }
    }
    assert_eq!(index.usage().await.unwrap(), model.usage());
}

/// The leases that ended are set back, so that they may be evicted.
async fn end_short_leases(redis: &Redis, index: &RedisBlobIndex, model: &Model) {
    for (&blob, known) in model.blobs.iter().filter(|(_, known)| !known.promised) {
        let digest = content(blob).0;
        let generation = known.generation.map(u64::to_be_bytes);
        let entry = [&[0; 4][..], generation.as_ref().map_or(&[], |number| &number[..])].concat();
        let set = Call::command("HSET", &index.bucket(&digest).entries);
        redis.run(set.arg(&field(&digest)[..]).arg(entry)).await.unwrap();
    }
}

#[test]
fn any_calls_agree_with_the_model() {
    let Some(server) = RedisServer::start() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let redis = runtime.block_on(connect(&server.url()));
    let index = index(&redis);
    let config = ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() };
    proptest!(config, |(steps in steps())| {
        assert_eq!(server.command(&["FLUSHALL"]), "OK");
        runtime.block_on(async {
            let mut model = Model::default();
            for next in steps {
                end_short_leases(&redis, &index, &model).await;
                step(&index, &mut model, next).await;
            }
            let scanned = scan_all(&index).await;
            let placed = model.blobs.values().filter(|known| known.generation.is_some());
            assert_eq!(scanned.len(), placed.count());
        });
    });
}
