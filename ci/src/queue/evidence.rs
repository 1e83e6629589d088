//! Failures that nobody has explained yet, and what they say of each change.

use serde::{Deserialize, Serialize};

use super::change::ChangeId;
use super::names::Commit;

/// Most characters that are kept of the name of a target.
pub const MAX_NAME: usize = 200;

/// A run that failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Who may be at fault: members that affect what failed and have not passed since.
    pub suspects: Vec<ChangeId>,
    pub base: Commit,
    pub targets: Vec<String>,
    /// Whether it is certain that the failure was no flake.
    pub proven: bool,
}

/// The probability that a change is good in spite of failures that it alone is left to explain. Others count for
/// nothing here: whoever else may be at fault for one may be at fault for all of them.
///
/// `bad`: that it is bad, before; `flaky`: that a check of a good tree fails.
pub fn innocent<'a>(
    failures: impl Iterator<Item = &'a Failure>,
    of: ChangeId,
    flaky: f64,
    bad: f64,
) -> f64 {
    let bad = bad.clamp(1e-6, 1.0 - 1e-6);
    let own = failures.filter(|it| it.suspects == [of]);
    let by_chance = own.map(|it| if it.proven { 0.0 } else { flaky }).product::<f64>();
    let odds = (1.0 - bad) / bad * by_chance;
    odds / (1.0 + odds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(suspects: &[u64], proven: bool) -> Failure {
        let base = Commit::new(&"0".repeat(40)).unwrap();
        let suspects = suspects.iter().map(|it| ChangeId(*it)).collect();
        Failure { suspects, base, targets: Vec::new(), proven }
    }

    fn judge(failures: &[Failure]) -> f64 {
        innocent(failures.iter(), ChangeId(1), 0.01, 0.05)
    }

    #[test]
    fn one_noisy_failure_decides_little_and_several_much() {
        let once = judge(&[failure(&[1], false)]);
        assert!((once - 0.19 / 1.19).abs() < 1e-9, "{once}");
        let again = vec![failure(&[1], false); 3];
        assert!(judge(&again) < 2e-5, "{}", judge(&again));
        assert!(judge(&[failure(&[1], true)]) < 1e-12, "a proven one alone decides");
        let shared = vec![failure(&[1, 2], true); 50];
        assert!((judge(&shared) - 0.95).abs() < 1e-9, "it may always have been the other");
    }
}
