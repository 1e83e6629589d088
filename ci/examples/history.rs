//! How large a history is and how long it takes to ask it, on a disk:
//! `cargo run --release -p kiln-ci --example history -- ATTEMPTS [CASES_PER_ATTEMPT]`.
//!
//! Half a year of builds, each of which runs some tests of a suite of 5,000: most with inputs that were never run
//! before, some with retries. Every attempt has an action, an identity and a worker; attempts and cases both count.

use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use fastrand::Rng;
use kiln_ci::attempts::{Attempt, BlobName, CaseRun, Failure, Known, Slot};
use kiln_ci::flakes::Identity;
use kiln_ci::history::{GridQuery, History, Policy};
use kiln_ci::model::{CaseName, Outcome, TestKey, Time};
use kiln_ci::storage::memory::Memory;
use kiln_ci::storage::{Segments, StorageError};

const TESTS: u64 = 5_000;
const TESTS_PER_BUILD: u64 = 400;
const DAYS: u64 = 180;
const DAY: u64 = 24 * 3600 * 1000;

/// Segments as files, which are read from the page cache or the disk, as a store of blobs would.
struct Files {
    dir: PathBuf,
    next: AtomicU64,
    bytes: AtomicU64,
    reads: AtomicU64,
}

fn failed(error: std::io::Error) -> StorageError {
    StorageError::Unavailable(error.to_string())
}

#[async_trait]
impl Segments for Files {
    async fn put(&self, bytes: Bytes) -> Result<String, StorageError> {
        let name = format!("{:08}", self.next.fetch_add(1, Ordering::Relaxed));
        std::fs::write(self.dir.join(&name), &bytes).map_err(failed)?;
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(name)
    }

    async fn read(&self, name: &str, range: Range<u64>) -> Result<Bytes, StorageError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let mut file = std::fs::File::open(self.dir.join(name)).map_err(failed)?;
        file.seek(SeekFrom::Start(range.start)).map_err(failed)?;
        let mut bytes = Vec::new();
        file.take(range.end - range.start).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes.into())
    }

    async fn remove(&self, name: &str) -> Result<(), StorageError> {
        let path = self.dir.join(name);
        let length = std::fs::metadata(&path).map_or(0, |it| it.len());
        self.bytes.fetch_sub(length, Ordering::Relaxed);
        std::fs::remove_file(path).map_err(failed)
    }

    async fn list(&self, _: Option<&str>, _: usize) -> Result<Vec<(String, Time)>, StorageError> {
        Ok(Vec::new())
    }
}

fn test_key(number: u64) -> TestKey {
    TestKey {
        instance: "main".into(),
        label: format!(
            "//services/team{}/component{}:unit{number}_test",
            number % 37,
            number % 411
        ),
        configuration: "2136e65c67d9ba6b2652accfbf6533486c16692a484f4dc7ea7756de0edc13a6".into(),
    }
}

fn hash(rng: &mut Rng) -> String {
    (0..4).map(|_| format!("{:016x}", rng.u64(..))).collect()
}

fn uuid(rng: &mut Rng) -> String {
    let hash = hash(rng);
    format!("{}-{}-{}-{}-{}", &hash[..8], &hash[8..12], &hash[12..16], &hash[16..20], &hash[20..32])
}

/// Durations of a test differ by some tenths, those of tests by orders of magnitude.
fn duration(rng: &mut Rng, test: u64) -> Duration {
    let usual = 50 + (test * test) % 60_000;
    Duration::from_millis(usual + rng.u64(..=usual / 3))
}

fn build(rng: &mut Rng, at: u64, cases: usize) -> Vec<Attempt> {
    let (invocation, commit) = (uuid(rng), hash(rng)[..40].to_owned());
    let first = rng.u64(..TESTS);
    let mut attempts = Vec::new();
    for number in first..first + TESTS_PER_BUILD {
        let test = number % TESTS;
        let (action, identity) = (hash(rng), rng.u128(..).to_le_bytes());
        // One test in thirty fails now and then, and is tried again.
        let flaky = test.is_multiple_of(30) && rng.u8(..20) == 0;
        let outcomes: &[Outcome] =
            if flaky { &[Outcome::Failed, Outcome::Passed] } else { &[Outcome::Passed] };
        for (attempt, outcome) in (1..).zip(outcomes) {
            let slot = Slot { run: 1, shard: 1, attempt };
            let case = |number: usize| CaseRun {
                case: CaseName {
                    class: format!("suite.Class{test}"),
                    name: format!("case_{number}"),
                },
                attempt: 1,
                outcome: Outcome::Passed,
                duration: Some(duration(rng, test) / 100),
                failure: None,
            };
            let failed = *outcome == Outcome::Failed;
            attempts.push(Attempt {
                cases: (0..cases).map(case).collect(),
                outcome: *outcome,
                shards: 1,
                execution: rng.u64(1..),
                started: Time(at + rng.u64(..600_000)),
                duration: Some(duration(rng, test)),
                set_up: Some(Duration::from_millis(rng.u64(5..80))),
                worker: format!("worker-{:02}", rng.u8(..64)),
                strategy: "remote".into(),
                action: Some(BlobName { hash: action.clone(), size: rng.u64(140..180) }),
                identity: Some(Identity::from_bytes(identity)),
                log: failed.then(|| BlobName { hash: hash(rng), size: rng.u64(100..10_000) }),
                failure: Failure::of("AssertionError: connection refused").filter(|_| failed),
                commit: Some(commit.clone()),
                branch: Some(if rng.bool() {
                    "main".into()
                } else {
                    format!("change-{}", rng.u16(..))
                }),
                ..Attempt::new(test_key(test), &invocation, slot, Known::EXECUTED | Known::REPORTED)
            });
        }
    }
    attempts
}

async fn timed<T>(what: &str, times: u32, files: &Files, ask: impl AsyncFn(u64) -> T) {
    let reads = files.reads.load(Ordering::Relaxed);
    let mut taken = Vec::new();
    for time in 0..times {
        let start = Instant::now();
        ask(u64::from(time) * 611 % TESTS).await;
        taken.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    taken.sort_by(f64::total_cmp);
    let reads = (files.reads.load(Ordering::Relaxed) - reads) as f64 / f64::from(times);
    let (median, worst) = (taken[taken.len() / 2], taken[taken.len() - 1]);
    println!("{what}: median {median:.1} ms, worst {worst:.1} ms, {reads:.0} reads");
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let wanted: u64 = arguments.next().ok_or("usage: history ATTEMPTS [CASES]")?.parse()?;
    let cases: usize = arguments.next().map_or(Ok(0), |it| it.parse())?;
    let dir = tempfile::tempdir()?;
    let zero = || AtomicU64::new(0);
    let files =
        Arc::new(Files { dir: dir.path().into(), next: zero(), bytes: zero(), reads: zero() });
    let records = Memory::default();
    let policy = Policy { max_bytes: u64::MAX, grace: Duration::ZERO, ..Policy::default() };
    let history = History::new(files.clone(), Arc::new(records.clone()), policy);

    let mut rng = Rng::with_seed(1);
    let per_build = TESTS_PER_BUILD * (1 + cases as u64);
    let builds = wanted.div_ceil(per_build);
    let (mut runs, mut all) = (0, 0);
    let (mut committing, mut maintaining) = (Duration::ZERO, Duration::ZERO);
    for number in 0..builds {
        let now = 20_000 * DAY + DAYS * DAY * number / builds;
        let attempts = build(&mut rng, now, cases);
        runs += attempts.len();
        all += attempts.iter().map(|it| 1 + it.cases.len()).sum::<usize>();
        let start = Instant::now();
        history.commit(Time(now), &attempts).await?;
        committing += start.elapsed();
        let start = Instant::now();
        while history.maintain(Time(now)).await? {}
        maintaining += start.elapsed();
    }
    let bytes = files.bytes.load(Ordering::Relaxed);
    let segments = std::fs::read_dir(dir.path())?.count();
    println!("{runs} runs of tests, {all} attempts with their cases, {builds} builds");
    println!(
        "{:.1} MB in {segments} segments: {:.1} bytes an attempt; {} records",
        bytes as f64 / 1e6,
        bytes as f64 / all as f64,
        records.records()
    );
    let micros = |it: Duration| it.as_secs_f64() * 1e6 / all as f64;
    println!(
        "an attempt: {:.2} us to commit, {:.2} us to settle",
        micros(committing),
        micros(maintaining)
    );
    let history = &history;
    timed("newest 100 of a test", 40, &files, async |test| {
        history.newest(&test_key(test), 100, false).await.map(|it| assert_eq!(it.len(), 100))
    })
    .await;
    timed("newest 100 of a test with cases", 40, &files, async |test| {
        history.newest(&test_key(test), 100, true).await.map(|it| assert_eq!(it.len(), 100))
    })
    .await;
    timed("days of a test", 40, &files, async |test| {
        history.days(&test_key(test)).await.map(|it| assert!(it.len() > 30))
    })
    .await;
    for days in [14, DAYS] {
        let from = 20_000 + DAYS - days;
        timed(&format!("flakiest of {days} days"), 5, &files, async |_| {
            history.flakiest("main", from, u64::MAX, 50).await.map(|it| assert!(!it.is_empty()))
        })
        .await;
        timed(&format!("all tests of {days} days"), 5, &files, async |_| {
            history.tested(from..=u64::MAX).await.map(|it| assert!(it.len() > 1000))
        })
        .await;
    }
    let query = GridQuery { columns: 200, ..GridQuery::default() };
    for look in ["first", "second"] {
        timed(&format!("grid of 100 tests, 200 commits, {look} look"), 20, &files, async |test| {
            let mut tests: Vec<_> = (test..test + 100).map(|it| test_key(it % TESTS)).collect();
            tests.sort();
            history.grid(&query, &tests).await.map(|it| assert_eq!(it.columns.len(), 200))
        })
        .await;
    }
    Ok(())
}
