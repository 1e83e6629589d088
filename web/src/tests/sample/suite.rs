//! The history of a suite with tests that are flaky, slow and broken.

use std::time::Duration;

use kiln_ci::attempts::{Attempt, BlobName, CaseRun, Failure, Known, Slot};
use kiln_ci::history::History;
use kiln_ci::model::{CaseName, Outcome, TestKey, Time};

use super::{Dice, invocation};
use crate::format::now;

const HOUR: u64 = 3_600_000;
pub const NAMES: [&str; 8] =
    ["parser", "lexer", "index", "server", "client", "codec", "session", "storage"];

pub fn key(label: &str) -> TestKey {
    TestKey { instance: String::new(), label: label.to_owned(), configuration: String::new() }
}

/// `builds` of a suite of `tests` tests, one an hour up to now, each at a commit of its own.
pub async fn fill(history: &History, tests: u64, builds: u64) {
    let mut dice = Dice(11);
    let end = u64::try_from(now() / 1_000_000).unwrap_or(0);
    for build in 0..builds {
        let began = end - (builds - build) * HOUR;
        let attempts = suite(&mut dice, tests, build, builds, began);
        history.commit(Time(began + HOUR / 2), &attempts).await.expect("it has room");
        while history.maintain(Time(began + HOUR / 2)).await.expect("it is in memory") {}
    }
}

fn suite(dice: &mut Dice, tests: u64, build: u64, builds: u64, began: u64) -> Vec<Attempt> {
    let id = invocation(dice);
    let commit: String = (0..40).map(|_| format!("{:x}", dice.roll(16))).collect();
    let mut all = Vec::new();
    for test in 0..tests {
        // Some builds run a part of the suite.
        if build % 3 == 1 && test % 4 == build % 4 {
            continue;
        }
        let is_flaky = test % 13 == 5 && dice.roll(4) == 0;
        let is_broken = test % 17 == 3 && build + 6 > builds;
        let is_slow = test % 29 == 7 && dice.roll(9) == 0;
        let outcomes: &[Outcome] = match () {
            () if is_broken => &[Outcome::Failed, Outcome::Failed],
            () if is_flaky => &[Outcome::Failed, Outcome::Passed],
            () if is_slow => &[Outcome::TimedOut],
            () if test % 31 == 30 => &[Outcome::Skipped],
            () if dice.roll(400) == 0 => &[Outcome::Infrastructure],
            () => &[Outcome::Passed],
        };
        for (number, outcome) in (1..).zip(outcomes) {
            let mut it = attempt(dice, test, &id, number, *outcome);
            it.started = Time(began + test * 700 + u64::from(number) * 4000);
            it.commit = Some(commit.clone());
            it.branch = Some(if build % 5 == 2 { "feature/quic" } else { "main" }.to_owned());
            all.push(it);
        }
    }
    all
}

fn attempt(dice: &mut Dice, test: u64, invocation: &str, number: u32, outcome: Outcome) -> Attempt {
    let name = NAMES[(test % 8) as usize];
    let label =
        format!("//{}/{name}:{name}_{}_test", ["app", "net", "db"][(test % 3) as usize], test / 8);
    let slot = Slot { run: 1, shard: 1, attempt: number };
    let usual = 300 + (test * test * 37) % 20_000;
    let is_bad = matches!(outcome, Outcome::Failed | Outcome::TimedOut);
    let message = format!(
        "AssertionError: \u{1b}[31mexpected 200, got 503\u{1b}[0m after {} ms at {name}_test.cc:{}",
        dice.roll(900),
        40 + test
    );
    let case = CaseRun {
        case: CaseName { class: format!("{name}.Suite"), name: "handles_load".to_owned() },
        attempt: 1,
        outcome: Outcome::Failed,
        duration: Some(Duration::from_millis(usual / 3)),
        failure: Failure::of(&message),
    };
    Attempt {
        outcome,
        duration: Some(Duration::from_millis(usual + dice.roll(usual / 3))),
        worker: format!("kiln-worker-{}", 1 + dice.roll(2)),
        strategy: "remote".to_owned(),
        action: Some(BlobName { hash: "ab".repeat(32), size: 142 }),
        log: is_bad.then(|| BlobName { hash: "cd".repeat(32), size: 900 }),
        failure: Failure::of(&message).filter(|_| is_bad),
        cases: if is_bad && outcome == Outcome::Failed { vec![case] } else { Vec::new() },
        ..Attempt::new(key(&label), invocation, slot, Known::EXECUTED | Known::REPORTED)
    }
}
