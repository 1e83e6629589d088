//! Tests that were judged: by what really judges them, from attempts that were committed to the history.

use std::time::Duration;

use async_trait::async_trait;
use kiln_ci::attempts::{Attempt, BlobName, Failure, Known, Slot};
use kiln_ci::flakes::{Identity, Run};
use kiln_ci::model::{Outcome, Subject, TestKey, Time};
use kiln_ci::quarantine::Request;
use kiln_ci::verdicts::{RerunError, Reruns, Room, VerdictOptions, Wanted};

use super::suite::NAMES;
use super::tests::judging;
use crate::WebState;
use crate::format::now;

const HOUR: u64 = 3_600_000;
/// How long it may take until all is judged.
const PATIENCE: Duration = Duration::from_secs(30);

/// Workers that have no room.
pub struct Busy;

#[async_trait]
impl Reruns for Busy {
    async fn room(&self) -> Result<Room, RerunError> {
        Ok(Room::default())
    }

    async fn run(&self, _: &Wanted) -> Result<Attempt, RerunError> {
        Err(RerunError::Gone("nothing is run again here".to_owned()))
    }
}

/// Returns options by which the server judges a failure at once.
pub fn at_once() -> VerdictOptions {
    VerdictOptions { window: Duration::ZERO, ..VerdictOptions::default() }
}

pub fn key(test: u64, instance: &str, configuration: &str) -> TestKey {
    let (package, name) = (["app", "net", "db"][(test % 3) as usize], NAMES[(test % 8) as usize]);
    TestKey {
        instance: instance.to_owned(),
        label: format!("//{package}/{name}:{name}_{test}_test"),
        configuration: configuration.to_owned(),
    }
}

/// A server on which some tests failed and passed with equal inputs, one is broken, and people have put two into
/// quarantine; all of it has been judged.
pub async fn judged() -> WebState {
    let mut state = super::empty().await;
    (state.tests, state.verdicts) = judging();
    let end = u64::try_from(now() / 1_000_000).unwrap_or(0);
    for build in 0..6_u64 {
        // In its own commit, so that each is evidence by itself.
        let began = end - (6 - build) * 3 * HOUR;
        for test in 0..9 {
            let attempts = attempts(test, build, began + test * 30_000);
            state.tests.history.commit(Time(began + HOUR), &attempts).await.expect("it has room");
            until_judged(&state).await;
        }
    }
    for (test, owner) in [(4, Some("@net-team")), (7, None)] {
        let subject = Subject { test: key(test, "main", ""), case: None };
        let request = Request {
            who: "ada@example.com".to_owned(),
            reason: "fails at midnight <b>since the</b> summer".to_owned(),
            owner: owner.map(str::to_owned),
            stay: None,
        };
        state.verdicts.book.enter(&subject, &request, Time(end)).await.expect("it is put there");
    }
    state
}

/// Test 4 is flaky, 7 failed once and then passed, 8 is broken since the fourth build.
fn attempts(test: u64, build: u64, began: u64) -> Vec<Attempt> {
    let outcomes: &[Outcome] = match (test, build) {
        (4, 1 | 3 | 4) | (7, 2) => &[Outcome::Failed, Outcome::Passed],
        (8, 4..) => &[Outcome::Failed],
        _ => &[Outcome::Passed],
    };
    let attempt = |(number, outcome): (u32, &Outcome)| {
        let argv = [test.to_string(), build.to_string()];
        let slot = Slot { run: 1, shard: 1, attempt: number };
        let is_bad = *outcome == Outcome::Failed;
        Attempt {
            outcome: *outcome,
            execution: build * 100 + test * 10 + u64::from(number) + 1,
            started: Time(began + u64::from(number) * 4_000),
            duration: Some(Duration::from_millis(900)),
            worker: format!("kiln-worker-{}", 1 + test % 2),
            action: Some(BlobName { hash: "ab".repeat(32), size: 142 }),
            failure: is_bad.then(|| Failure::of("expected 200, got 503")).flatten(),
            commit: Some(format!("{:040x}", 0xfeed_0000 + build)),
            identity: Some(Identity::of(&Run {
                argv: &argv,
                environment: &[],
                working_directory: "",
                input_root: "",
                platform: &[],
            })),
            ..Attempt::new(key(test, "main", ""), &format!("build-{build}"), slot, Known::EXECUTED)
        }
    };
    (1..).zip(outcomes).map(attempt).collect()
}

/// Waits until what was committed has become evidence.
async fn until_judged(state: &WebState) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while state.verdicts.survey.waiting().await.expect("it is in memory") {
        assert!(tokio::time::Instant::now() < deadline, "nothing is judged");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
