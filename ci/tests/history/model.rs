//! What a history should know: a list.

use std::time::Duration;

use fastrand::Rng;
use kiln_ci::attempts::{Attempt, BlobName, CaseRun, Failure, Known, Slot, join};
use kiln_ci::model::{CaseName, Outcome, TestKey, Time};

#[derive(Default)]
pub struct Model {
    /// Attempts as they were told, each account once.
    told: Vec<Attempt>,
}

pub fn test_key(number: u64) -> TestKey {
    TestKey {
        instance: "main".into(),
        label: format!("//pkg:test{number}"),
        configuration: "cfg".into(),
    }
}

/// What one build tells: from its executions, from its events, or both; with retries.
pub fn batch(rng: &mut Rng, build: u64, now: u64) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    for number in 0..rng.u64(1..6) {
        let test = test_key(number);
        let outcomes = match rng.u8(..4) {
            0 => vec![Outcome::Failed, Outcome::Passed],
            1 => vec![Outcome::Failed, Outcome::TimedOut],
            _ => vec![Outcome::Passed],
        };
        let (executed, told) = (rng.bool(), rng.bool());
        for (attempt, outcome) in (1..).zip(outcomes) {
            let started = now + number * 10 + u64::from(attempt);
            if executed || !told {
                attempts.push(run(&test, build, attempt, started, outcome));
                let parts = if rng.u8(..3) == 0 { 2 } else { 0 };
                let own = |number| part(&test, build, (attempt, number), started);
                attempts.extend((1..=parts).map(own));
            }
            if told {
                attempts.push(report(&test, build, attempt, started, outcome));
            }
        }
    }
    rng.shuffle(&mut attempts);
    attempts
}

fn run(test: &TestKey, build: u64, attempt: u32, started: u64, outcome: Outcome) -> Attempt {
    let slot = Slot { run: 1, shard: 1, attempt: 0 };
    let execution = blake3::hash(format!("{test:?} {build} {attempt}").as_bytes());
    let case = CaseRun {
        case: CaseName { class: "C".into(), name: format!("case{}", attempt % 2) },
        attempt: 1,
        outcome,
        duration: Some(Duration::from_millis(started % 100)),
        failure: Failure::of("boom").filter(|_| outcome == Outcome::Failed),
    };
    Attempt {
        execution: u64::from(execution.as_bytes()[0]) + 1 + 256 * u64::from(attempt),
        outcome,
        started: Time(started),
        duration: Some(Duration::from_millis(500)),
        worker: "w1".into(),
        action: Some(BlobName { hash: execution.to_hex().to_string(), size: 7 }),
        cases: vec![case],
        ..Attempt::new(test.clone(), &format!("build-{build}"), slot, Known::EXECUTED)
    }
}

/// One of two parts in which the server ran an attempt. The first one begins with the whole.
fn part(test: &TestKey, build: u64, (attempt, number): (u32, u32), started: u64) -> Attempt {
    let started = started + u64::from(number) - 1;
    let whole = run(test, build, attempt, started, Outcome::Failed);
    Attempt {
        slot: Slot { shard: number, ..whole.slot },
        shards: 2,
        known: Known::EXECUTED | Known::PART,
        execution: whole.execution + 1_000_000 * u64::from(number),
        worker: format!("w{number}"),
        ..whole
    }
}

fn report(test: &TestKey, build: u64, attempt: u32, started: u64, outcome: Outcome) -> Attempt {
    let slot = Slot { run: 1, shard: 1, attempt };
    Attempt {
        outcome,
        // The client's clock is a bit late.
        started: Time(started + 5),
        duration: Some(Duration::from_millis(700)),
        strategy: "remote".into(),
        commit: Some(commit_of(&format!("build-{build}"))),
        ..Attempt::new(test.clone(), &format!("build-{build}"), slot, Known::REPORTED)
    }
}

fn commit_of(invocation: &str) -> String {
    let build: u64 = invocation.strip_prefix("build-").unwrap().parse().unwrap();
    format!("{build:040x}")
}

impl Model {
    pub fn commit(&mut self, attempts: &[Attempt]) {
        for it in attempts {
            if !self.told.contains(it) {
                self.told.push(it.clone());
            }
        }
    }

    /// Some of the attempts that were told before, told again.
    pub fn again(&self, rng: &mut Rng) -> Vec<Attempt> {
        (0..rng.usize(..4)).filter_map(|_| rng.choice(&self.told).cloned()).collect()
    }

    pub fn tests(&self) -> Vec<TestKey> {
        let mut tests: Vec<_> = self.told.iter().map(|it| it.test.clone()).collect();
        tests.sort();
        tests.dedup();
        tests
    }

    pub fn attempts(&self, test: &TestKey) -> Vec<Attempt> {
        let own = self.told.iter().filter(|it| it.test == *test).cloned();
        join(own.collect())
    }

    pub fn flaky(&self, instance: &str) -> Vec<(u64, String)> {
        let mut all = Vec::new();
        for test in self.tests().into_iter().filter(|it| it.instance == instance) {
            let days = kiln_ci::history::days(&self.attempts(&test));
            let sum = |of: fn(&kiln_ci::history::Day) -> u64| days.values().map(of).sum::<u64>();
            all.push((sum(|it| it.flaky), sum(|it| it.failed), test.label));
        }
        all.retain(|it| it.0 > 0);
        all.sort_by(|a, b| (b.0, b.1).cmp(&(a.0, a.1)).then_with(|| a.2.cmp(&b.2)));
        all.into_iter().map(|(flaky, _, label)| (flaky, label)).collect()
    }
}

/// Executions have the commit of their invocation from when they settle with somebody who told it.
pub fn sorted(attempts: &[Attempt]) -> Vec<String> {
    let without = |it: &Attempt| {
        let is_told = it.known.has(Known::REPORTED);
        assert!(it.commit.as_ref().is_none_or(|commit| *commit == commit_of(&it.invocation)));
        Attempt { commit: it.commit.clone().filter(|_| is_told), ..it.clone() }
    };
    let mut all: Vec<_> = attempts.iter().map(|it| format!("{:?}", without(it))).collect();
    all.sort();
    all
}
