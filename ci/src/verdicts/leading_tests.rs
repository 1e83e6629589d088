use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;

use super::super::inbox::Inbox;
use super::super::ledger::{Ledger, Note, Owners};
use super::super::reruns::{RerunError, Reruns, Room, Wanted};
use super::super::samples::attempt;
use super::super::service::Judging;
use super::super::shadow::Runs;
use super::*;
use crate::attempts::Attempt;
use crate::events::{EventLog, Facts, Origin, StreamKey, Summary};
use crate::flakes::Verdict;
use crate::history::{History, Policy as HistoryPolicy};
use crate::model::Outcome::{Failed, Passed};
use crate::services::Clock;
use crate::storage::memory::Memory;
use crate::storage::{Expect, LeaseRecord, Records, StorageError};

struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Time {
        Time(1_000_000)
    }
}

impl Owners for Fixed {
    fn owner(&self, label: &str) -> Option<String> {
        Some(format!("@{label}"))
    }
}

/// Notes nothing but that there was something to note.
struct Noting(Memory);

#[async_trait]
impl Ledger for Noting {
    async fn write(&self, notes: Vec<Note>, mut writes: Vec<Write>) -> Result<(), StorageError> {
        for note in notes {
            let value = Some(note.action.into_bytes().into());
            let key = format!("noted/{}", note.details);
            writes.push(Write { key, expect: crate::storage::Expect::Absent, value });
        }
        self.0.write(writes).await
    }
}

/// Everything passes when it is run again, and the first thing that is asked panics.
struct Passing {
    idle: usize,
    panics: Panics,
    asked: AtomicBool,
}

/// What panics at first.
#[derive(Clone, Copy, PartialEq)]
enum Panics {
    Nothing,
    Room,
    Run,
}

impl Passing {
    fn ask(&self, what: Panics) {
        let is_first = what == self.panics && !self.asked.swap(true, Ordering::Relaxed);
        assert!(!is_first, "it panics once");
    }
}

#[async_trait]
impl Reruns for Passing {
    async fn room(&self) -> Result<Room, RerunError> {
        self.ask(Panics::Room);
        Ok(Room { idle: self.idle, all_idle: false, waiting: 0 })
    }

    async fn run(&self, wanted: &Wanted) -> Result<Attempt, RerunError> {
        self.ask(Panics::Run);
        Ok(attempt(&wanted.target, 1_000, Passed))
    }
}

struct Server {
    memory: Memory,
    history: Arc<History>,
    inbox: Inbox,
    name: String,
    idle: usize,
    panics: Panics,
}

impl Server {
    fn new(memory: &Memory, name: &str) -> Self {
        let (segments, records) = (Arc::new(memory.clone()), Arc::new(memory.clone()));
        let history = History::new(segments, records, HistoryPolicy::default());
        let inbox = Inbox::default();
        let history = Arc::new(history.tapped(Some(Arc::new(inbox.clone()))));
        Self {
            memory: memory.clone(),
            history,
            inbox,
            name: name.to_owned(),
            idle: 0,
            panics: Panics::Nothing,
        }
    }

    fn streams(&self) -> Arc<EventLog> {
        Arc::new(EventLog::new(Arc::new(self.memory.clone()), Arc::new(self.memory.clone())))
    }

    fn parts(&self) -> VerdictParts {
        VerdictParts {
            records: Arc::new(self.memory.clone()),
            ledger: Arc::new(Noting(self.memory.clone())),
            history: self.history.clone(),
            streams: self.streams(),
            reruns: Arc::new(Passing {
                idle: self.idle,
                panics: self.panics,
                asked: AtomicBool::new(false),
            }),
            owners: Arc::new(Fixed),
            teller: None,
            clock: Arc::new(Fixed),
            name: self.name.clone(),
        }
    }

    async fn lead(&self) -> Result<Leading, VerdictError> {
        let records: Arc<dyn Records> = Arc::new(self.memory.clone());
        // Whoever decided before was silent for long.
        let (key, value) = (keys::LEADER.to_owned(), Some(Bytes::new()));
        records.write(vec![Write { key, expect: Expect::Anything, value }]).await?;
        let turn = LeaseRecord::new(records.clone(), keys::LEADER).turn(self.name.clone(), TERM);
        let fence = turn.fence().await?.expect("nobody else asks");
        let store = Store::new(records, fence);
        let options = VerdictOptions { window: Duration::ZERO, ..VerdictOptions::default() };
        let parts = self.parts();
        let policy = options.policy.clone();
        let book = Book::new(parts.records.clone(), parts.ledger.clone(), policy, true);
        Leading::begin(parts, options, book, self.inbox.clone(), store).await
    }

    async fn once(&self) -> Result<(), VerdictError> {
        self.lead().await?.step().await.map(drop)
    }
}

/// Two failures in two commits, each with a pass.
fn attempts() -> Vec<Attempt> {
    let it = |number, outcome| attempt("//a:t", number, outcome);
    vec![it(1, Failed), it(2, Passed), it(3, Failed), it(4, Passed), it(5, Failed)]
}

/// What was counted of the test, and what is left to count.
async fn counted(memory: &Memory) -> (u32, u32, usize, usize) {
    let test = attempts()[0].test.clone();
    let record = memory.get(&keys::test(&test)).await.unwrap().unwrap();
    let evidence: super::super::evidence::TestEvidence = keys::decode(&record.value).unwrap();
    let (_, history) = evidence.subjects().next().unwrap();
    let day = history.counts(Time(1_000_000), 14);
    let inbox = memory.list(keys::INBOX, None, false, 10).await.unwrap().len();
    (day.passes, day.failures, history.flips().count(), inbox)
}

#[tokio::test]
async fn whatever_crashes_where_each_attempt_counts_once() {
    let mut crashes = 0;
    for last_is_done in [false, true] {
        for calls in 0..60 {
            let memory = Memory::default();
            let server = Server::new(&memory, "a");
            memory.fail_after(calls, last_is_done);
            let crashed = async {
                server.history.commit(Time(1), &attempts()).await?;
                server.once().await
            };
            crashes += u32::from(crashed.await.is_err());
            memory.recover();
            // Whoever was not told that it is durable commits again.
            let server = Server::new(&memory, "b");
            server.history.commit(Time(2), &attempts()).await.unwrap();
            server.once().await.unwrap();
            server.once().await.unwrap();
            assert_eq!(counted(&memory).await, (2, 2, 2, 0), "{calls} {last_is_done}");
        }
    }
    assert!(crashes > 20, "{crashes} crashes");
}

#[tokio::test]
async fn who_was_paused_while_another_one_took_over_writes_nothing() {
    let memory = Memory::default();
    let (one, two) = (Server::new(&memory, "a"), Server::new(&memory, "b"));
    one.history.commit(Time(1), &attempts()).await.unwrap();
    let mut paused = one.lead().await.unwrap();
    two.once().await.unwrap();
    one.history.commit(Time(2), &[attempt("//a:t", 9, Passed)]).await.unwrap();
    assert!(matches!(paused.step().await, Err(VerdictError::Storage(StorageError::Conflict(_)))));
    assert_eq!(counted(&memory).await, (2, 2, 2, 1));
    two.once().await.unwrap();
    assert_eq!(counted(&memory).await, (3, 3, 3, 0));
}

#[tokio::test]
async fn to_go_on_deciding_is_one_write_and_whoever_ends_leaves_it_to_another() {
    let memory = Memory::default();
    let mut leading = Server::new(&memory, "a").lead().await.unwrap();
    for _ in 0..3 {
        let before = memory.calls();
        leading.write(Vec::new()).await.unwrap();
        assert_eq!(memory.calls() - before, 1);
    }
    let other =
        |name: &str| LeaseRecord::new(Arc::new(memory.clone()), keys::LEADER).turn(name, TERM);
    assert!(!other("b").is_mine().await.unwrap());
    memory.write(vec![leading.store.resignation()]).await.unwrap();
    assert!(other("c").is_mine().await.unwrap());
    let late = leading.write(Vec::new()).await;
    assert!(matches!(late, Err(VerdictError::Storage(StorageError::Conflict(_)))));
}

#[tokio::test]
async fn a_shadow_run_is_committed_as_what_it_was_and_decides() {
    let memory = Memory::default();
    let server = Server { idle: 4, ..Server::new(&memory, "a") };
    server.history.commit(Time(1), &[attempt("//a:t", 1, Failed)]).await.unwrap();
    let mut leading = server.lead().await.unwrap();
    assert!(leading.step().await.unwrap());
    let mut runs = Runs::default();
    leading.shadow(&mut runs).await.unwrap();
    let ended = runs.ended().await.unwrap();
    leading.ended(ended).await.unwrap();
    leading.step().await.unwrap();
    let cases = memory.list(keys::CASES, None, false, 10).await.unwrap();
    let case: super::super::mind::CaseRecord = keys::decode(&cases[0].value).unwrap();
    assert_eq!((case.judgement.verdict, case.runs, case.settled), (Verdict::Flaky, 1, true));
    assert_eq!(counted(&memory).await, (1, 1, 1, 0));
    // It is in the history, and in no figures.
    let test = attempts()[0].test.clone();
    let newest = server.history.newest(&test, 10, false).await.unwrap();
    let shadow: Vec<_> = newest.iter().map(|it| it.strategy.as_str()).collect();
    assert_eq!(shadow, ["shadow-decide", ""]);
    let days = server.history.days(&test).await.unwrap();
    assert_eq!(days.values().map(|it| (it.failed, it.passed)).collect::<Vec<_>>(), [(1, 0)]);
}

#[tokio::test]
async fn a_shadow_run_that_panics_gives_its_slot_back() {
    let memory = Memory::default();
    let server = Server { idle: 4, panics: Panics::Run, ..Server::new(&memory, "a") };
    server.history.commit(Time(1), &[attempt("//a:t", 1, Failed)]).await.unwrap();
    let mut leading = server.lead().await.unwrap();
    leading.step().await.unwrap();
    let mut runs = Runs::default();
    leading.shadow(&mut runs).await.unwrap();
    let ended = runs.ended().await.expect("it is told how each run ended");
    leading.ended(ended).await.unwrap();
    assert_eq!(leading.mind.preempt(usize::MAX), [], "nothing runs any more");
}

#[tokio::test(start_paused = true)]
async fn whoever_panics_while_it_decides_decides_again() {
    let memory = Memory::default();
    let server = Server { idle: 4, panics: Panics::Room, ..Server::new(&memory, "a") };
    server.history.commit(Time(1), &[attempt("//a:t", 1, Failed)]).await.unwrap();
    let (parts, options) = (server.parts(), VerdictOptions::default());
    let policy = options.policy.clone();
    let book = Book::new(parts.records.clone(), parts.ledger.clone(), policy, true);
    let judging = Judging::start(options, parts, Inbox::default(), book);
    let is_decided = async {
        loop {
            let cases = memory.list(keys::CASES, None, false, 10).await.unwrap();
            let cases = cases.iter().map(|it| keys::decode(&it.value).unwrap());
            let cases: Vec<super::super::mind::CaseRecord> = cases.collect();
            if cases.iter().any(|it| it.judgement.verdict == Verdict::Flaky) {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(3600), is_decided).await.expect("it is decided");
    judging.shutdown().await;
}

#[tokio::test]
async fn a_flaky_test_enters_quarantine_once_and_is_noted_with_its_owner() {
    let memory = Memory::default();
    let server = Server::new(&memory, "a");
    let mut flips = Vec::new();
    for number in 0..8 {
        flips.push(attempt("//a:t", 2 * number + 1, Failed));
        flips.push(attempt("//a:t", 2 * number + 2, Passed));
    }
    server.history.commit(Time(1), &flips).await.unwrap();
    server.once().await.unwrap();
    server.once().await.unwrap();
    let noted = memory.list("noted/", None, false, 10).await.unwrap();
    assert_eq!(noted.len(), 1);
    assert_eq!(noted[0].value, "tests.quarantine.enter");
    assert!(noted[0].key.contains("\"owner\":\"@//a:t\""), "{}", noted[0].key);
    assert_eq!(memory.list(keys::NOTICES, None, false, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_pass_that_comes_later_and_a_case_that_is_repeated_count_as_well() {
    let memory = Memory::default();
    let server = Server::new(&memory, "a");
    // Each in a window of its own.
    for number in 1..=8 {
        let outcome = if number % 2 == 1 { Failed } else { Passed };
        server.history.commit(Time(number), &[attempt("//a:t", number, outcome)]).await.unwrap();
        server.once().await.unwrap();
    }
    let noted = async || memory.list("noted/", None, false, 10).await.unwrap().len();
    assert_eq!(noted().await, 1);
    // A runner that repeats a case until it passes reports a test that passed.
    for number in 11..=18 {
        let run = |attempt, outcome| crate::attempts::CaseRun {
            case: super::super::samples::case("k"),
            attempt,
            outcome,
            duration: None,
            failure: crate::attempts::Failure::of("boom").filter(|_| outcome == Failed),
        };
        let cases = vec![run(1, Failed), run(2, Passed)];
        let it = Attempt { cases, ..attempt("//a:u", number, Passed) };
        server.history.commit(Time(number), &[it]).await.unwrap();
        server.once().await.unwrap();
    }
    assert_eq!(noted().await, 2);
}

#[tokio::test]
async fn a_failure_here_is_of_the_commit_that_build_events_told() {
    let memory = Memory::default();
    let server = Server::new(&memory, "a");
    let flip = |number: u64, build: &str| {
        let of = |number, outcome| Attempt {
            commit: None,
            invocation: build.to_owned(),
            ..attempt("//a:t", number, outcome)
        };
        [of(number, Failed), of(number + 1, Passed)]
    };
    let told = async |build: &str, instance: &str, commit: &str| {
        let stream = StreamKey {
            instance: instance.to_owned(),
            invocation: build.to_owned(),
            ..StreamKey::default()
        };
        let origin = Origin { commit: Some(commit.to_owned()), ..Origin::default() };
        let facts = Facts { command: "test".to_owned(), origin, ..Facts::default() };
        let summary = Summary::of(&stream, &facts).unwrap();
        server.streams().note(Time(1), &summary).await.unwrap();
    };
    told("one", "", "c1").await;
    // Another instance says nothing of this one's invocations.
    told("two", "elsewhere", "c2").await;
    let attempts: Vec<_> = flip(1, "one").into_iter().chain(flip(3, "two")).collect();
    server.history.commit(Time(1), &attempts).await.unwrap();
    server.once().await.unwrap();
    let record = memory.get(&keys::test(&attempts[0].test)).await.unwrap().unwrap();
    let evidence: super::super::evidence::TestEvidence = keys::decode(&record.value).unwrap();
    let (_, history) = evidence.subjects().next().unwrap();
    let commits: Vec<_> = history.flips().map(|it| it.commit.as_deref()).collect();
    assert_eq!(commits, [Some("c1"), None]);
}

#[tokio::test]
async fn what_passes_is_taken_in_without_a_look_at_its_test() {
    let memory = Memory::default();
    let server = Server::new(&memory, "a");
    let mut leading = server.lead().await.unwrap();
    let read_for = async |leading: &mut Leading, it: Attempt| {
        server.history.commit(Time(it.execution), &[it]).await.unwrap();
        let before = memory.calls();
        leading.take_in().await.unwrap();
        memory.calls() - before
    };
    let read = read_for(&mut leading, attempt("//a:t", 1, Passed)).await;
    assert_eq!(read, 1, "the inbox alone");
    let read = read_for(&mut leading, attempt("//a:t", 2, Failed)).await;
    assert_eq!(read, 2, "a failure is judged by what is known of its test");
    let read = read_for(&mut leading, attempt("//a:t", 3, Passed)).await;
    assert_eq!(read, 2, "a pass of what failed before is the other half of it");
}
