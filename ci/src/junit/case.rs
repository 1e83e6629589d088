//! What the elements within a `<testcase>` say of its attempts.

use std::time::Duration;

use crate::model::{CaseName, CaseResult, Outcome};

/// Elements that say how an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Failed,
    Skipped,
    /// An earlier attempt that failed, of a case that passed in the end (`flakyFailure`) or never did
    /// (`rerunFailure`).
    Repeated,
}

impl Kind {
    pub fn of(element: &str) -> Option<Self> {
        match element {
            "failure" | "error" => Some(Self::Failed),
            "skipped" | "ignored" | "disabled" => Some(Self::Skipped),
            "flakyFailure" | "flakyError" | "rerunFailure" | "rerunError" => Some(Self::Repeated),
            _ => None,
        }
    }
}

/// An element of a case that says how an attempt at it ended: `<failure>`, `<skipped>` and the like.
#[derive(Debug)]
pub struct Ending {
    pub kind: Kind,
    pub is_timeout: bool,
    pub message: String,
    pub duration: Option<Duration>,
}

/// A `<testcase>`, or a suite that failed by itself.
#[derive(Debug)]
pub struct Case {
    /// Whether this is the suite itself, which has no case of its own.
    pub is_suite: bool,
    pub name: CaseName,
    pub duration: Option<Duration>,
    /// What the case says of itself beside its elements.
    pub status: Status,
    pub endings: Vec<Ending>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Status {
    #[default]
    Ran,
    Failed,
    Skipped,
}

impl Status {
    /// The status that the attributes `status` and `result` stand for, in the words of googletest, CTest and others.
    pub fn of(text: &str) -> Self {
        match text.to_ascii_lowercase().as_str() {
            "notrun" | "disabled" | "skipped" | "suppressed" | "ignored" => Self::Skipped,
            "fail" | "failed" | "error" => Self::Failed,
            _ => Self::Ran,
        }
    }
}

/// Whether a runner says so of a failure; a timeout within the code under test is a failure as any other.
pub fn is_timeout(kind: &str, message: &str) -> bool {
    // cargo-nextest; JUnit 4 and its successors; pytest-timeout.
    kind == "test timeout"
        || kind.ends_with("TestTimedOutException")
        || message.starts_with("Failed: Timeout")
}

impl Case {
    /// pytest opens a second `<testcase>` for a tear-down that fails after the case did: that is no
    /// second attempt.
    pub fn is_tear_down(&self) -> bool {
        const MARK: &str = "failed on teardown with";
        let is_mark =
            |ending: &Ending| ending.kind == Kind::Failed && ending.message.starts_with(MARK);
        !self.is_suite && !self.endings.is_empty() && self.endings.iter().all(is_mark)
    }

    /// The attempts, first one first. Messages are cut to `limit` bytes.
    pub fn attempts(self, limit: usize) -> Vec<CaseResult> {
        let name = self.name;
        if self.endings.is_empty() {
            let (outcome, duration) = (outcome(self.status, &[]), self.duration);
            return vec![CaseResult { case: name, outcome, duration, message: None }];
        }
        let (repeated, own): (Vec<_>, Vec<_>) =
            self.endings.into_iter().partition(|ending| ending.kind == Kind::Repeated);
        let repeated = repeated.into_iter().map(|ending| CaseResult {
            case: name.clone(),
            outcome: if ending.is_timeout { Outcome::TimedOut } else { Outcome::Failed },
            duration: ending.duration,
            message: some(ending.message),
        });
        let outcome = outcome(self.status, &own);
        let message =
            own.into_iter().fold(String::new(), |all, ending| joined(all, ending.message, limit));
        let own = CaseResult {
            case: name.clone(),
            outcome,
            duration: self.duration,
            message: some(message),
        };
        // A case that failed by itself was repeated afterwards; one that passed, before.
        match matches!(outcome, Outcome::Failed | Outcome::TimedOut) {
            true => std::iter::once(own).chain(repeated).collect(),
            false => repeated.chain([own]).collect(),
        }
    }
}

/// The worst of several: runners write one element a failed check.
fn outcome(status: Status, endings: &[Ending]) -> Outcome {
    let mut failures = endings.iter().filter(|ending| ending.kind == Kind::Failed).peekable();
    if failures.peek().is_some() {
        let timed_out = failures.all(|failure| failure.is_timeout);
        return if timed_out { Outcome::TimedOut } else { Outcome::Failed };
    }
    match (status, endings.is_empty()) {
        (Status::Failed, _) => Outcome::Failed,
        (Status::Ran, true) => Outcome::Passed,
        _ => Outcome::Skipped,
    }
}

fn some(message: String) -> Option<String> {
    (!message.is_empty()).then_some(message)
}

/// Two messages on lines of their own, cut to `limit` bytes where a character ends.
pub fn joined(mut all: String, next: String, limit: usize) -> String {
    if all.is_empty() {
        all = next;
    } else if !next.is_empty() {
        all.push('\n');
        all.push_str(&next);
    }
    cut(&mut all, limit);
    all
}

/// Keeps at most `limit` bytes, up to where a character ends.
pub fn cut(text: &mut String, limit: usize) {
    text.truncate(text.floor_char_boundary(limit));
}
