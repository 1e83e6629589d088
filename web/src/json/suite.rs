//! Tests, what became of them, and each by itself.

use std::borrow::Cow;
use std::time::Duration;

use kiln_ci::attempts::{Attempt, BlobName, CaseRun, Known};
use kiln_ci::history::{Column, Day, Tested};
use kiln_ci::model::{Outcome, TestKey, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::digest::Digest;
use crate::format::date;

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Tests {
    pub tests: Vec<Test>,
    /// How many tests there are on all pages.
    pub total: usize,
    /// How many days, today included, the counts cover.
    pub days: u64,
    pub instances: Vec<String>,
    /// `page=` of the next page; null at the end.
    pub next_page: Option<usize>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct TestName {
    pub id: String,
    pub instance_name: String,
    /// A target's label; of an import, the suite's name.
    pub label: String,
    /// The configuration as the client calls it; empty where the client does not say.
    pub configuration: String,
    /// Address of the page that shows it.
    pub page: String,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Test {
    #[serde(flatten)]
    pub name: TestName,
    #[serde(flatten)]
    pub counts: TestCounts,
    /// The oldest first; days without an attempt are left out.
    pub by_day: Vec<TestDay>,
}

/// Attempts, of all shards and runs.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct TestCounts {
    pub passed: u64,
    pub failed: u64,
    pub timed_out: u64,
    pub skipped: u64,
    pub infrastructure: u64,
    /// First attempts of a run and shard, retries left out.
    pub first_attempts: u64,
    /// First attempts that failed although equal inputs passed in the same invocation.
    pub flaky: u64,
    /// Milliseconds that attempts which passed took on average; null where none passed.
    pub mean_ms: Option<u64>,
    pub longest_ms: u64,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct TestDay {
    /// The day in UTC: `2026-11-23`.
    pub date: String,
    #[serde(flatten)]
    pub counts: TestCounts,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct TestShown {
    #[serde(flatten)]
    pub test: Test,
    /// Tests of the same label in other configurations and instances.
    pub others: Vec<TestName>,
    /// Attempts of the test, newest first.
    pub attempts: Vec<TestAttempt>,
    /// The parts in which the server ran some of these attempts over several workers, newest first: which `shard` of how
    /// many `shards`. They are in no figures, since each attempt has the cases of its parts.
    #[serde(default)]
    pub parts: Vec<TestAttempt>,
    /// Failures of the newest attempts: those that look alike are one entry, the most frequent first.
    pub failures: Vec<TestFailure>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct TestFailure {
    /// What failures that look alike share; null where there was no text to go by.
    pub signature: Option<String>,
    pub excerpt: String,
    pub attempts: u64,
    /// Names of some of the cases that failed like this.
    pub cases: Vec<String>,
    #[serde(with = "super::time")]
    #[schemars(with = "Option<String>")]
    pub first_at: i64,
    #[serde(with = "super::time")]
    #[schemars(with = "Option<String>")]
    pub last_at: i64,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct TestAttempt {
    pub invocation_id: String,
    pub commit: Option<String>,
    pub branch: Option<String>,
    /// The number of the run, counted from 1, as are shard and attempt.
    pub run: u32,
    pub shard: u32,
    /// How many shards the run has; 0: not known.
    pub shards: u32,
    /// The number of the attempt within its run and shard; 0: not known.
    pub attempt: u32,
    /// How the attempt ended: `passed`, `failed`, `timed_out`, `skipped` or `infrastructure`.
    pub outcome: Cow<'static, str>,
    #[serde(with = "super::time")]
    #[schemars(with = "Option<String>")]
    pub started_at: i64,
    pub duration_ms: Option<u64>,
    pub set_up_ms: Option<u64>,
    pub worker: String,
    pub strategy: String,
    /// `executed` here, `reported` by build events, `imported` from a report; joined by `+`.
    pub source: String,
    pub action: Option<Digest>,
    /// The log of an attempt that failed.
    pub log: Option<Digest>,
    pub signature: Option<String>,
    pub excerpt: Option<String>,
    pub cases: Vec<TestCase>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct TestCase {
    pub class: String,
    pub name: String,
    pub attempt: u32,
    pub outcome: Cow<'static, str>,
    pub duration_ms: Option<u64>,
    pub excerpt: Option<String>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Grid {
    /// What a column is: `commits` or `invocations`.
    pub across: Cow<'static, str>,
    /// Columns of the grid, newest first.
    pub columns: Vec<GridColumn>,
    pub rows: Vec<GridRow>,
    /// How many rows there are on all pages.
    pub total_rows: usize,
    pub next_page: Option<usize>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct GridColumn {
    /// A commit, or the id of an invocation.
    pub name: String,
    pub commit: Option<String>,
    pub branch: Option<String>,
    /// The invocation that began last.
    pub invocation_id: String,
    #[serde(with = "super::time")]
    #[schemars(with = "Option<String>")]
    pub first_at: i64,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct GridRow {
    #[serde(flatten)]
    pub test: TestName,
    /// The test's outcome in each column; null: it did not run there.
    pub cells: Vec<Option<GridCell>>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct GridCell {
    /// `passed`, `failed`, `timed_out`, `failed_and_passed`, `infrastructure_failed`, `skipped`; of
    /// several shards and runs the worst.
    pub state: Cow<'static, str>,
    /// Milliseconds that the longest attempt took; null: that is not known.
    pub duration_ms: Option<u64>,
    pub attempts: u32,
}

/// What tests cost, and how far they can be trusted.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct TestFigures {
    pub tests: u64,
    pub days: u64,
    /// The share of first attempts that failed although equal inputs passed; null where there were none.
    pub flake_rate: Option<f64>,
    #[serde(flatten)]
    pub counts: TestCounts,
    pub by_day: Vec<TestDay>,
    /// The newest ones, at most 100: what follows is of them.
    pub invocations: u64,
    /// How many of these invocations had no test that failed in all its attempts.
    pub well_invocations: u64,
    /// The share of the well ones that would have been red without retries.
    pub false_red_observed: Option<f64>,
    /// The share of the well ones that would be red without retries, by the flake rates of the tests that ran in them.
    pub false_red_predicted: Option<f64>,
    pub sharded_runs: u64,
    /// What a shard took on average, as a share of what the longest of its test took.
    pub shard_balance: Option<f64>,
    /// Invocations in which tests alone failed that are known to be flaky.
    #[serde(default)]
    pub red_by_flaky_tests: u64,
    /// What people waited for retries of tests that passed in the end, and what those invocations took that have to be
    /// made again.
    #[serde(default)]
    pub lost_to_retries_ms: u64,
    #[serde(default)]
    pub lost_to_rebuilds_ms: u64,
    /// The share of test actions of the newest 100 builds that the cache answered; null where there were none.
    #[serde(default)]
    pub cached: Option<f64>,
    /// Milliseconds that test actions which ran waited for a worker, on average; null where none ran.
    #[serde(default)]
    pub waited_ms: Option<u64>,
    /// Owners of tests: first those with the most flaky first attempts and failures; at most 100.
    pub by_owner: Vec<TestOwner>,
}

/// The tests that somebody looks after, by `tests.codeowners`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct TestOwner {
    /// The owner's name; `null`: the tests that nobody looks after.
    pub owner: Option<String>,
    pub tests: u64,
    /// Tests with a flaky first attempt.
    pub flaky_tests: u64,
    pub flake_rate: Option<f64>,
    #[serde(flatten)]
    pub counts: TestCounts,
}

/// Nanoseconds since the Unix epoch, as times are in memory.
pub fn nanos(time: Time) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX).saturating_mul(1_000_000)
}

pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl TestName {
    pub fn new(id: &str, test: &TestKey) -> Self {
        Self {
            id: id.to_owned(),
            instance_name: test.instance.clone(),
            label: test.label.clone(),
            configuration: test.configuration.clone(),
            page: format!("/tests/{id}"),
        }
    }
}

impl Test {
    pub fn new(id: &str, tested: &Tested, sum: &Day) -> Self {
        let day = |(number, day): (&u64, &Day)| TestDay { date: date(*number), counts: day.into() };
        Self {
            name: TestName::new(id, &tested.test),
            counts: sum.into(),
            by_day: tested.days.iter().map(day).collect(),
        }
    }
}

impl From<&Day> for TestCounts {
    fn from(day: &Day) -> Self {
        Self {
            passed: day.passed,
            failed: day.failed,
            timed_out: day.timed_out,
            skipped: day.skipped,
            infrastructure: day.infrastructure,
            first_attempts: day.first,
            flaky: day.flaky,
            mean_ms: day.mean().map(millis),
            longest_ms: day.longest,
        }
    }
}

impl From<&Column> for GridColumn {
    fn from(column: &Column) -> Self {
        Self {
            name: column.name.clone(),
            commit: column.commit.clone(),
            branch: column.branch.clone(),
            invocation_id: column.invocation.clone(),
            first_at: nanos(column.began),
        }
    }
}

impl From<&Attempt> for TestAttempt {
    fn from(it: &Attempt) -> Self {
        Self {
            invocation_id: it.invocation.clone(),
            commit: it.commit.clone(),
            branch: it.branch.clone(),
            run: it.slot.run,
            shard: it.slot.shard,
            shards: it.shards,
            attempt: it.slot.attempt,
            outcome: outcome(it.outcome).into(),
            started_at: nanos(it.started),
            duration_ms: it.duration.map(millis),
            set_up_ms: it.set_up.map(millis),
            worker: it.worker.clone(),
            strategy: it.strategy.clone(),
            source: source(it.known),
            action: it.action.as_ref().map(Digest::from),
            log: it.log.as_ref().map(Digest::from),
            signature: it.failure.as_ref().and_then(|it| it.signature).map(|it| it.to_string()),
            excerpt: it.failure.as_ref().map(|it| it.excerpt.clone()),
            cases: it.cases.iter().map(TestCase::from).collect(),
        }
    }
}

impl From<&CaseRun> for TestCase {
    fn from(it: &CaseRun) -> Self {
        Self {
            class: it.case.class.clone(),
            name: it.case.name.clone(),
            attempt: it.attempt,
            outcome: outcome(it.outcome).into(),
            duration_ms: it.duration.map(millis),
            excerpt: it.failure.as_ref().map(|it| it.excerpt.clone()),
        }
    }
}

impl From<&BlobName> for Digest {
    fn from(name: &BlobName) -> Self {
        let size_bytes = i64::try_from(name.size).unwrap_or(i64::MAX);
        Self { hash: name.hash.clone(), size_bytes }
    }
}

pub fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "passed",
        Outcome::Failed => "failed",
        Outcome::TimedOut => "timed_out",
        Outcome::Skipped => "skipped",
        Outcome::Infrastructure => "infrastructure",
    }
}

fn source(known: Known) -> String {
    let ways = [
        (Known::EXECUTED, "executed"),
        (Known::REPORTED, "reported"),
        (Known::IMPORTED, "imported"),
    ];
    let ways: Vec<_> = ways.iter().filter(|(way, _)| known.has(*way)).map(|it| it.1).collect();
    ways.join("+")
}
