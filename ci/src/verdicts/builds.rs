//! What failed in one invocation, for its gate.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::evidence::Observed;
use super::heard::Heard;
use crate::flakes::{Identity, Signature, Tries};
use crate::model::{Outcome, Subject, Time};

/// Failures that are kept of one invocation. With more it is no matter of single tests.
const MAX_FAILURES: usize = 1_000;
/// Attempts that are kept of one invocation.
const MAX_RUNS: usize = 10_000;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BuildRecord {
    pub instance: String,
    pub invocation: String,
    pub failures: Vec<Failed>,
    /// Label, run and shard of each attempt that failed.
    pub runs: BTreeSet<(String, u32, u32)>,
    /// Failures that are not in the list.
    pub left_out: u32,
    pub last: Time,
}

/// A subject that failed, and what its attempts in this invocation did since.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failed {
    pub subject: Subject,
    pub identity: Identity,
    pub at: Time,
    pub outcome: Outcome,
    pub signature: Option<Signature>,
    /// Failures that looked like this were flaky before.
    pub known: bool,
    pub tries: Tries,
}

impl BuildRecord {
    pub fn new(instance: &str, invocation: &str) -> Self {
        Self { instance: instance.into(), invocation: invocation.into(), ..Self::default() }
    }

    pub fn add(&mut self, it: &Heard, observed: &[Observed]) {
        self.last = self.last.max(it.at);
        if it.is_failure() && self.runs.len() < MAX_RUNS {
            self.runs.insert((plain(&it.test.label).to_owned(), it.run, it.shard));
        }
        for shown in observed {
            let found = self
                .failures
                .iter_mut()
                .find(|own| own.identity == it.identity && own.subject == shown.subject);
            match (shown.outcome, found) {
                (Outcome::Passed, Some(failed)) => failed.tries.passed(),
                (Outcome::Failed, Some(failed)) => failed.tries.failed(),
                (Outcome::Failed | Outcome::TimedOut, None) => self.open(it, shown),
                _ => {}
            }
        }
    }

    /// Whether a failure of this test is known in a run and shard; 0: in any.
    pub fn knows(&self, label: &str, run: u32, shard: u32) -> bool {
        let label = plain(label);
        let is = |own: u32, asked: u32| asked == 0 || own == asked;
        self.runs.iter().any(|it| it.0 == label && is(it.1, run) && is(it.2, shard))
    }

    fn open(&mut self, it: &Heard, shown: &Observed) {
        if self.failures.len() >= MAX_FAILURES {
            self.left_out = self.left_out.saturating_add(1);
            return;
        }
        let straight = u32::from(shown.outcome == Outcome::Failed);
        self.failures.push(Failed {
            subject: shown.subject.clone(),
            identity: it.identity,
            at: it.at,
            outcome: shown.outcome,
            signature: shown.signature,
            known: shown.known,
            tries: Tries { straight, passes: 0 },
        });
    }
}

/// Bazel writes labels of the main repository with and without `@` or `@@`.
pub fn plain(label: &str) -> &str {
    label.trim_start_matches('@')
}

#[cfg(test)]
mod tests {
    use super::super::evidence::TestEvidence;
    use super::super::samples::heard;
    use super::*;
    use crate::flakes::Piece;

    fn build(attempts: &[(u64, Outcome)]) -> BuildRecord {
        let mut build = BuildRecord::new("", "build");
        let mut evidence = TestEvidence::new(heard("//a:t", 1, Outcome::Passed).test);
        for (number, outcome) in attempts {
            let it = heard("//a:t", *number, *outcome);
            let observed = evidence.observe(&it, Piece::Own);
            build.add(&it, &observed);
        }
        build
    }

    #[test]
    fn a_retry_that_passes_is_remembered() {
        let it = build(&[(1, Outcome::Failed), (2, Outcome::Failed), (3, Outcome::Passed)]);
        assert_eq!(it.failures.len(), 1);
        assert_eq!(it.failures[0].tries, Tries { straight: 0, passes: 1 });
        assert!(it.knows("@@//a:t", 1, 1) && it.knows("//a:t", 0, 0));
        assert!(!it.knows("//a:t", 1, 2) && !it.knows("//a:u", 0, 0));
        assert_eq!(build(&[(1, Outcome::Passed)]).failures, []);
        let late = build(&[(1, Outcome::TimedOut)]);
        assert_eq!(late.failures[0].tries, Tries::default());
        assert_eq!(build(&[(1, Outcome::Infrastructure)]).failures, []);
    }
}
