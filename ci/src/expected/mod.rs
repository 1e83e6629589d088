//! How long shards of tests are expected to run, for whoever cannot wait for the history to be read: answered from memory,
//! which is refreshed beside.

mod times;

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kiln_net::causes::chain;
use kiln_net::panics::caught;
use lru::LruCache;
use tokio::sync::mpsc;
use tokio::time::Instant;

pub use times::ShardTimes;

use crate::history::{History, HistoryError};
use crate::model::TestKey;

/// Tests of which something is kept: 20 MB where they are as large as can be. The others' last one goes first.
const MAX_TESTS: usize = 512;
/// Tests that wait to be read; of what comes beyond nothing is known until it is asked for again.
const MAX_WAITING: usize = 256;
/// How old an answer may be, and one that does not know each shard.
const FRESH_FOR: Duration = Duration::from_secs(60);
const UNKNOWN_FOR: Duration = Duration::from_secs(2);
/// Attempts that are read at first, and shards of which the cases are read as well.
const MAX_ATTEMPTS: usize = 256;
const MAX_WITH_CASES: u32 = 64;

/// What is known of a test.
#[derive(Debug, Default)]
struct Known {
    times: ShardTimes,
    /// When the times were read from the history; `None`: never.
    read: Option<Instant>,
    is_wanted: bool,
}

type Tests = Mutex<LruCache<TestKey, Known>>;

/// What shards of tests took before. Clones share it.
#[derive(Clone, Debug)]
pub struct ExpectedShards {
    tests: Arc<Tests>,
    wanted: mpsc::Sender<TestKey>,
}

impl ExpectedShards {
    /// Must be called within a Tokio runtime. What reads the history ends with the last clone.
    pub fn start(history: Arc<History>) -> Self {
        let most = NonZeroUsize::new(MAX_TESTS).unwrap_or(NonZeroUsize::MIN);
        let tests = Arc::new(Mutex::new(LruCache::new(most)));
        let (wanted, asked) = mpsc::channel(MAX_WAITING);
        tokio::spawn(refresh(history, tests.clone(), asked));
        Self { tests, wanted }
    }

    /// What a shard of this test takes, counted from 0, as far as it is known now. Who asks for what is not known, or was
    /// looked up long ago, has it looked up for whoever asks next.
    pub fn expected(&self, test: &TestKey, index: u32, count: u32) -> Option<Duration> {
        let mut tests = locked(&self.tests);
        let known = tests.get_or_insert_mut(test.clone(), Known::default);
        let stays = if known.times.is_complete() { FRESH_FOR } else { UNKNOWN_FOR };
        let is_due = known.read.is_none_or(|at| at.elapsed() >= stays);
        if is_due && !known.is_wanted {
            known.is_wanted = self.wanted.try_send(test.clone()).is_ok();
        }
        known.times.expected(index, count)
    }
}

fn locked(tests: &Tests) -> MutexGuard<'_, LruCache<TestKey, Known>> {
    tests.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn refresh(history: Arc<History>, tests: Arc<Tests>, mut asked: mpsc::Receiver<TestKey>) {
    while let Some(test) = asked.recv().await {
        let found = caught(read(&history, &test)).await;
        let times = found.unwrap_or_else(|panicked| {
            tracing::error!(%panicked, label = test.label, "what shards take was not looked up");
            None
        });
        // Whether it panicked or not: it may be asked for again.
        if let Some(known) = locked(&tests).peek_mut(&test) {
            known.is_wanted = false;
            known.read = Some(Instant::now());
            known.times = times.unwrap_or_else(|| std::mem::take(&mut known.times));
        }
    }
}

/// `None`: the history cannot be read for now.
async fn read(history: &History, test: &TestKey) -> Option<ShardTimes> {
    let read = look_up(history, test).await;
    let told = |error: &HistoryError| {
        let error = chain(error);
        tracing::debug!(error, label = test.label, "it is not known what shards of a test take");
    };
    read.inspect_err(told).ok()
}

async fn look_up(history: &History, test: &TestKey) -> Result<ShardTimes, HistoryError> {
    let mut times = ShardTimes::of(&history.newest(test, MAX_ATTEMPTS, false).await?);
    // Each of them once, with some that failed or ran twice.
    let most = 2 * usize::try_from(times.count()).unwrap_or(MAX_ATTEMPTS);
    if most > MAX_ATTEMPTS && !times.is_complete() {
        times = ShardTimes::of(&history.newest(test, most, false).await?);
    }
    if !(1..=MAX_WITH_CASES).contains(&times.count()) {
        return Ok(times);
    }
    let with_cases = ShardTimes::of(&history.newest(test, most, true).await?);
    Ok(times.with_cases_of(with_cases))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempts::samples::executed;
    use crate::attempts::{Attempt, CaseRun};
    use crate::history::Policy;
    use crate::model::{CaseName, Outcome, Time};
    use crate::storage::memory::Memory;

    fn ran(shard: u32, shards: u32, seconds: u64) -> Attempt {
        let number = u64::from(shard);
        let mut it = executed("//a:t", number, number, Outcome::Passed);
        (it.slot.shard, it.shards) = (shard, shards);
        it.duration = Some(Duration::from_secs(seconds));
        it.cases = vec![CaseRun {
            case: CaseName { class: "c".to_owned(), name: shard.to_string() },
            attempt: 1,
            outcome: Outcome::Passed,
            duration: Some(Duration::from_millis(seconds * 900)),
            failure: None,
        }];
        it
    }

    fn history(memory: &Memory) -> Arc<History> {
        let (segments, records) = (Arc::new(memory.clone()), Arc::new(memory.clone()));
        Arc::new(History::new(segments, records, Policy::default()))
    }

    /// Asks for the expected time of a shard until it is `seconds`.
    async fn becomes(shards: &ExpectedShards, test: &TestKey, of: (u32, u32), seconds: f64) {
        let is_known = async {
            while shards.expected(test, of.0, of.1) != Some(Duration::from_secs_f64(seconds)) {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(600), is_known).await.expect("it becomes known");
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_is_answered_at_once_and_what_is_known_is_refreshed_beside() {
        let memory = Memory::default();
        let history = history(&memory);
        let runs = [ran(1, 2, 4), ran(2, 2, 8)];
        history.commit(Time(1), &runs).await.unwrap();
        let shards = ExpectedShards::start(history.clone());
        let test = &runs[0].test;
        assert_eq!(shards.expected(test, 1, 2), None, "nobody waits for the history");
        becomes(&shards, test, (1, 2), 8.0).await;
        becomes(&shards, test, (0, 2), 4.0).await;
        // Of the three shards one has no case to run.
        becomes(&shards, test, (1, 3), 7.2).await;
        let read = memory.calls();
        for _ in 0..100 {
            assert!(shards.expected(test, 0, 2).is_some());
            tokio::task::yield_now().await;
        }
        assert_eq!(memory.calls(), read, "what is known is not read again");
        let unknown = TestKey { label: "//a:u".to_owned(), ..test.clone() };
        assert_eq!(shards.expected(&unknown, 0, 2), None);
        tokio::time::sleep(FRESH_FOR / 2).await;
        let mut first = ran(2, 2, 3);
        first.test.clone_from(&unknown);
        history.commit(Time(2), &[first]).await.unwrap();
        let asked = Instant::now();
        becomes(&shards, &unknown, (1, 2), 3.0).await;
        assert!(asked.elapsed() < FRESH_FOR / 2, "what was not known is asked for again soon");
        let later = Attempt { started: Time(100), execution: 9, ..ran(1, 1, 6) };
        history.commit(Time(2), &[later]).await.unwrap();
        becomes(&shards, test, (0, 1), 6.0).await;
    }

    #[tokio::test(start_paused = true)]
    async fn of_more_shards_than_are_read_at_first_each_is_known() {
        const SHARDS: u32 = 300;
        let history = history(&Memory::default());
        let runs: Vec<_> = (1..=SHARDS).map(|it| ran(it, SHARDS, u64::from(it))).collect();
        history.commit(Time(1), &runs).await.unwrap();
        let shards = ExpectedShards::start(history);
        becomes(&shards, &runs[0].test, (0, SHARDS), 1.0).await;
        becomes(&shards, &runs[0].test, (SHARDS - 1, SHARDS), 300.0).await;
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_history_cannot_be_read_what_was_known_stays() {
        let memory = Memory::default();
        let history = history(&memory);
        let runs = [ran(1, 2, 4), ran(2, 2, 8)];
        history.commit(Time(1), &runs).await.unwrap();
        let shards = ExpectedShards::start(history);
        becomes(&shards, &runs[0].test, (1, 2), 8.0).await;
        memory.fail_after(0, false);
        let before = memory.calls();
        while memory.calls() == before {
            assert!(shards.expected(&runs[0].test, 1, 2).is_some());
            tokio::time::sleep(FRESH_FOR).await;
        }
        tokio::time::sleep(FRESH_FOR).await;
        assert!(shards.expected(&runs[0].test, 1, 2).is_some());
    }

    #[tokio::test]
    async fn no_more_tests_are_kept_than_there_is_room_for() {
        let shards = ExpectedShards::start(history(&Memory::default()));
        for number in 0..2 * MAX_TESTS {
            let label = format!("//a:{number}");
            let test = TestKey { label, ..executed("", 1, 1, Outcome::Passed).test };
            assert_eq!(shards.expected(&test, 0, 2), None);
        }
        assert_eq!(locked(&shards.tests).len(), MAX_TESTS);
    }
}
