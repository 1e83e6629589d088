//! Several frontends and people at once, with a clock that jumps and processes that are killed, by chance. A seed says all of it:
//! `KILN_PROMOTION_SEED=N` tries that one again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use kiln_cas::records::{Record, Records, RecordsError, Version, Write};
use kiln_cas::stores::MemoryRecords;
use kiln_cas::stores::audit::{AuditEvent, AuditLog};
use serde_json::Value;

use super::super::{How, Keeper};
use super::{Ask, World, ask, person, robot, say};
use crate::releases::ReleaseName;

const SEEDS: u64 = 100;
const FRONTENDS: usize = 3;
const STEPS: usize = 30;
const RELEASES: usize = 5;
const ENVIRONMENTS: [&str; 3] = ["dev", "staging", "prod"];
const POLICY: &str = "[environments.dev]\n\
                      [environments.staging]\nafter = [\"dev\"]\nsoak = \"5m\"\n\
                      [environments.prod]\nafter = [\"staging\"]\nautomatic = true\n";

type Random = Arc<Mutex<fastrand::Rng>>;

/// Lets others go first now and then, and fails now and then, before or after it did what was asked.
struct Unsteady {
    inner: Arc<MemoryRecords>,
    random: Random,
}

impl Unsteady {
    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, RecordsError>> + Send,
    ) -> Result<T, RecordsError> {
        let (turns, fate) = {
            let mut random = self.random.lock().unwrap();
            (random.usize(0..4), random.u32(0..200))
        };
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        let lost = || RecordsError::Unavailable("lost".into());
        match fate {
            0 => Err(lost()),
            1 => call.await.and_then(|_| Err(lost())),
            _ => call.await,
        }
    }
}

#[async_trait]
impl Records for Unsteady {
    async fn get(&self, key: &str) -> Result<Option<Record>, RecordsError> {
        self.call(self.inner.get(key)).await
    }

    async fn write(&self, writes: Vec<Write>) -> Result<Vec<Version>, RecordsError> {
        self.call(self.inner.write(writes)).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<Record>, RecordsError> {
        self.call(self.inner.list(prefix, after, reverse, limit)).await
    }
}

async fn act(world: &Arc<World>, keeper: &Keeper, releases: &[ReleaseName], random: &Random) {
    let (what, environment, release, jump, who) = {
        let mut it = random.lock().unwrap();
        let environment = ENVIRONMENTS[it.usize(0..ENVIRONMENTS.len())];
        let release = releases[it.usize(0..RELEASES)].clone();
        (it.u32(0..100), environment, release, it.i64(-300..900), it.bool())
    };
    let by = if who { person("ana") } else { robot() };
    let what = match what {
        0..=44 => keeper.promote(&ask(environment, &release, by)).await.map(drop),
        45..=49 => {
            keeper.promote(&Ask { again: true, ..ask(environment, &release, by) }).await.map(drop)
        }
        50..=57 => {
            let ask = Ask { wait: Some(900), ..ask(environment, &release, by) };
            keeper.promote(&ask).await.map(drop)
        }
        58..=69 => {
            let say = super::Say { by, ..say(environment, "", "bad") };
            keeper.roll_back(&say, None).await.map(drop)
        }
        70..=74 => keeper.roll_back(&say(environment, "bo", "bad"), Some(&release)).await.map(drop),
        75 => keeper.reject(&release, &person("bo"), "bad").await.map(drop),
        76..=78 => keeper.hold(&say(environment, "bo", "wait"), Some(300)).await.map(drop),
        79..=80 => keeper.approve(&say(environment, "bo", ""), &release).await.map(drop),
        81..=90 => {
            world.go_on(jump);
            Ok(())
        }
        _ => keeper.sweep().await,
    };
    // A step may be refused or lost. Only what the audit log notes counts.
    drop(what);
}

/// What the audit log says of the past, which is held against what must never happen.
#[derive(Default)]
struct Judge {
    rejected: BTreeSet<String>,
    /// Releases that were rolled back, by environment.
    rolled_back: BTreeMap<String, BTreeSet<String>>,
    stood: BTreeMap<String, BTreeSet<String>>,
    current: BTreeMap<String, (String, u64)>,
}

impl Judge {
    fn follow(&mut self, event: &AuditEvent, seed: u64) {
        let details: Value = serde_json::from_str(&event.details).unwrap();
        let digest = details["digest"].as_str().unwrap_or_default().to_owned();
        let environment = details["environment"].as_str().unwrap_or_default().to_owned();
        let told = format!("seed {seed}: {event:?}");
        match event.action.as_str() {
            "environment.reject" => {
                self.rejected.insert(digest);
            }
            "release.promote" => {
                assert!(!self.rejected.contains(&digest), "it was rejected: {told}");
                let bad = self.rolled_back.entry(environment.clone()).or_default();
                let by_robot = details["automation"].as_bool().unwrap();
                assert!(!(by_robot && bad.contains(&digest)), "it was rolled back: {told}");
                bad.remove(&digest);
                let before = match environment.as_str() {
                    "staging" => Some("dev"),
                    "prod" => Some("staging"),
                    _ => None,
                };
                if let Some(before) = before {
                    let stood = self.stood.get(before).is_some_and(|it| it.contains(&digest));
                    assert!(stood, "it was never in {before}: {told}");
                    let bad = self.rolled_back.get(before);
                    assert!(!bad.is_some_and(|it| it.contains(&digest)), "bad in {before}: {told}");
                }
                self.moved(&environment, digest, &details, &told);
            }
            "release.rollback" => {
                assert!(!self.rejected.contains(&digest), "it was rejected: {told}");
                let stood = self.stood.get(&environment).is_some_and(|it| it.contains(&digest));
                assert!(stood, "it never stood there: {told}");
                let bad = self.rolled_back.entry(environment.clone()).or_default();
                bad.remove(&digest);
                bad.extend(self.current.get(&environment).map(|it| it.0.clone()));
                self.moved(&environment, digest, &details, &told);
            }
            _ => {}
        }
    }

    /// Asserts that each move starts from what the one before it left, and that its generation is the next
    /// one.
    fn moved(&mut self, environment: &str, digest: String, details: &Value, told: &str) {
        let (before, generation) = self.current.get(environment).cloned().unwrap_or_default();
        let said = details["before"].as_str().unwrap_or_default();
        assert!(said.contains(&before), "it goes from something else: {told}");
        let after = details["after"].as_str().unwrap();
        assert!(after.ends_with(&format!("generation {})", generation + 1)), "{told}");
        self.stood.entry(environment.to_owned()).or_default().insert(digest.clone());
        self.current.insert(environment.to_owned(), (digest, generation + 1));
    }
}

async fn tried(seed: u64) -> usize {
    let world = World::new();
    let releases: Vec<_> =
        (0..RELEASES).map(|it| world.release(&format!("team/app:{it}"))).collect();
    let random = Arc::new(Mutex::new(fastrand::Rng::with_seed(seed)));
    let frontends = (0..FRONTENDS).map(|_| {
        let records = Unsteady { inner: world.memory.clone(), random: random.clone() };
        let keeper = world.keeper_over(Arc::new(records), POLICY);
        let (world, releases, random) = (world.clone(), releases.clone(), random.clone());
        tokio::spawn(async move {
            for _ in 0..STEPS {
                act(&world, &keeper, &releases, &random).await;
            }
        })
    });
    for frontend in frontends.collect::<Vec<_>>() {
        frontend.await.unwrap();
    }
    let log = AuditLog::new(world.memory.clone());
    assert_eq!(log.verify(1, u64::MAX).await.unwrap(), None, "seed {seed}");
    let mut judge = Judge::default();
    for entry in log.list(0, 1_000).await.unwrap() {
        judge.follow(&entry.event, seed);
    }
    let keeper = world.keeper_over(world.memory.clone(), POLICY);
    let now = keeper.world().await.unwrap();
    let mut moves = 0;
    for environment in ENVIRONMENTS {
        let place = now.place(environment);
        let current = place.current.as_ref().map(|it| (it.digest.to_string(), it.generation));
        assert_eq!(current, judge.current.get(environment).cloned(), "seed {seed}");
        let done = keeper.past(environment, None, 500).await.unwrap();
        let generations: Vec<_> = done.iter().rev().map(|it| it.placed.generation).collect();
        assert_eq!(generations, (1..=place.generation).collect::<Vec<_>>(), "seed {seed}");
        for pair in done.windows(2) {
            assert_eq!(pair[0].before.as_ref(), Some(&pair[1].placed), "seed {seed}");
        }
        for one in done.iter().filter(|it| it.placed.how == How::Promoted) {
            let generation = one.placed.generation;
            let summary = keeper.summary(environment, generation).await.unwrap();
            assert!(summary.is_some(), "seed {seed}");
        }
        moves += done.len();
    }
    moves
}

#[tokio::test]
async fn no_two_promotions_interleave_and_nothing_bad_comes_back() {
    let chosen = std::env::var("KILN_PROMOTION_SEED").ok().and_then(|it| it.parse().ok());
    let seeds: Vec<u64> = chosen.map_or((0..SEEDS).collect(), |it| vec![it]);
    let many = seeds.len() > 1;
    let mut moves = 0;
    for seed in seeds {
        moves += tried(seed).await;
    }
    assert!(moves > 500 || !many, "only {moves} moves were tried");
}
