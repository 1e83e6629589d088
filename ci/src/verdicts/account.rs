//! What a client says of its invocation, for the gate: whether it completed, and which tests failed.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::attempts::Attempt;
use crate::events::{Facts, FailedRuns, TargetOutcome};
use crate::model::{Outcome, TestKey, Time};

/// What Bazel calls the exit codes of a build in which everything was built: all tests passed, or some did not.
const PASSED: i32 = 0;
const TESTS_FAILED: i32 = 3;

/// Failures that are kept at most; with more the invocation is no matter of single tests.
const MAX_FAILED: usize = 10_000;

/// An invocation as its client knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Why the invocation did not complete; `None`: it did.
    #[serde(default)]
    pub incomplete: Option<String>,
    /// What failed in the end, timed out or left no result.
    #[serde(default)]
    pub failed: Vec<FailedRun>,
}

/// A run that was brought in as a report is over, and says itself what failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ImportRecord {
    pub account: Account,
    /// When the report was brought in.
    pub last: Time,
}

impl ImportRecord {
    pub fn of(attempt: &Attempt, now: Time) -> Self {
        let (run, shard) = (attempt.slot.run, attempt.slot.shard);
        let failed = matches!(attempt.outcome, Outcome::Failed | Outcome::TimedOut)
            .then(|| FailedRun { label: attempt.test.label.clone(), run, shard });
        let account = Account { incomplete: None, failed: failed.into_iter().collect() };
        Self { account, last: now }
    }
}

/// A test of which the last attempt failed, in one of its runs and shards. Both are counted from 1; 0: any.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailedRun {
    pub label: String,
    #[serde(default)]
    pub run: u32,
    #[serde(default)]
    pub shard: u32,
}

impl Account {
    /// `runs`: what failed of all that the invocation told of.
    pub fn of(facts: &Facts, runs: &FailedRuns) -> Self {
        let run = |(test, (run, shard)): (&TestKey, (u32, u32))| FailedRun {
            label: test.label.clone(),
            run,
            shard,
        };
        let mut failed: BTreeSet<FailedRun> = runs.iter().map(run).collect();
        let known: BTreeSet<&str> = runs.iter().map(|(test, _)| test.label.as_str()).collect();
        for (key, target) in &facts.targets {
            let fails = target.test.as_ref().is_some_and(|test| is_failure(&test.status));
            if fails && !known.contains(key.label.as_str()) {
                failed.insert(FailedRun { label: key.label.clone(), run: 0, shard: 0 });
            }
        }
        let many = failed.len() > MAX_FAILED || runs.left_out > 0;
        let too_many = || many.then(|| "too many tests failed".to_owned());
        let incomplete = incomplete(facts).or_else(too_many);
        Self { incomplete, failed: failed.into_iter().take(MAX_FAILED).collect() }
    }

    /// Bytes that it takes in memory, about.
    pub fn bytes(&self) -> usize {
        let labels: usize = self.failed.iter().map(|it| it.label.len()).sum();
        labels + self.failed.len() * size_of::<FailedRun>()
    }
}

fn is_failure(status: &str) -> bool {
    !matches!(status, "passed" | "flaky" | "no_status")
}

fn incomplete(facts: &Facts) -> Option<String> {
    match &facts.exit_code {
        _ if !facts.is_complete => return Some("its build events have not ended".to_owned()),
        None => return Some("its build events have no exit code".to_owned()),
        Some((PASSED | TESTS_FAILED, _)) => {}
        Some((code, name)) => return Some(format!("it ended with {name} ({code})")),
    }
    if facts.left_out.events > 0 {
        return Some("it has more build events than are kept (tests.max_stream)".to_owned());
    }
    let left_out = facts.left_out.targets + facts.left_out.attempts;
    if left_out > 0 {
        return Some("it has more targets than are kept".to_owned());
    }
    let broken = facts.targets.iter().find(|(_, it)| {
        // A test that failed is a target that was built.
        let is_test = it.test.as_ref().is_some_and(|test| test.status != "no_status");
        matches!(it.outcome, TargetOutcome::Failed | TargetOutcome::Aborted) && !is_test
    });
    if let Some((key, _)) = broken {
        return Some(format!("{} was not built", key.label));
    }
    let without = facts
        .targets
        .iter()
        .find(|(_, it)| it.test.as_ref().is_some_and(|test| test.status == "no_status"));
    without.map(|(key, _)| format!("{} was not run", key.label))
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;
    use crate::events::{Target, TargetKey, TestTotals};

    fn facts(code: i32, tests: &[(&str, &str)]) -> Facts {
        let target = |(label, status): &(&str, &str)| {
            let key = TargetKey {
                label: (*label).to_owned(),
                configuration: String::new(),
                aspect: String::new(),
            };
            let totals = TestTotals { status: (*status).to_owned(), ..TestTotals::default() };
            let outcome = TargetOutcome::Built;
            (key, Target { outcome, test: Some(totals), ..Target::default() })
        };
        Facts {
            is_complete: true,
            exit_code: Some((code, "NAME".to_owned())),
            targets: tests.iter().map(target).collect(),
            ..Facts::default()
        }
    }

    #[test]
    fn failures_are_named_and_retries_that_passed_are_none() {
        let attempt = |label: &str, shard, attempt, outcome| {
            let mut it = samples::attempt(label, 1, outcome);
            (it.slot.shard, it.slot.attempt) = (shard, attempt);
            it
        };
        let attempts = [
            attempt("//b", 1, 1, Outcome::Passed),
            attempt("//b", 2, 1, Outcome::Failed),
            attempt("//c", 1, 2, Outcome::Passed),
            attempt("//c", 1, 1, Outcome::Failed),
        ];
        let it =
            facts(3, &[("//a", "passed"), ("//b", "failed"), ("//c", "flaky"), ("//d", "failed")]);
        let account = Account::of(&it, &attempts.iter().collect());
        assert_eq!(account.incomplete, None);
        let failed = |label: &str, run, shard| FailedRun { label: label.to_owned(), run, shard };
        assert_eq!(account.failed, [failed("//b", 1, 2), failed("//d", 0, 0)]);
    }

    #[test]
    fn what_did_not_complete_says_why() {
        let why = |facts: &Facts| {
            Account::of(facts, &FailedRuns::default()).incomplete.unwrap_or_default()
        };
        assert_eq!(why(&facts(0, &[("//a", "passed")])), "");
        assert_eq!(why(&facts(1, &[])), "it ended with NAME (1)");
        assert_eq!(why(&facts(3, &[("//a", "no_status")])), "//a was not run");
        let open = Facts { is_complete: false, ..facts(0, &[]) };
        assert_eq!(why(&open), "its build events have not ended");
        let none = Facts { exit_code: None, ..facts(0, &[]) };
        assert_eq!(why(&none), "its build events have no exit code");
        let mut broken = facts(3, &[("//a", "passed")]);
        broken.targets[0].1.test = None;
        broken.targets[0].1.outcome = TargetOutcome::Failed;
        assert_eq!(why(&broken), "//a was not built");
        let mut many = facts(3, &[]);
        many.left_out.targets = 1;
        assert!(why(&many).contains("more targets"));
    }
}
