//! Whether a change may go on in spite of failures: green, red, or not known yet.
//!
//! A failure is masked only by proof: the same inputs have passed since. Being in quarantine never is one; it
//! says that the failure is expected and who looks after it. What the change itself edits is never masked, nor
//! is anything of a run that did not complete, nor anything while too much is in quarantine.

mod kpi;

use std::fmt;

use kiln_net::counts::times;
use serde::{Deserialize, Serialize};

use crate::flakes::{Judgement, Signature, Tries, Verdict};
use crate::model::{Subject, Time};
use crate::quarantine::{Quarantine, QuarantinedTest};

pub use kpi::{
    Attempt, Build, Counts, FalseRed, FlakeRate, Key, Lost, flake_rate, predicted_false_red,
};

/// What a run of tests came to.
#[derive(Clone, Debug)]
pub struct Run<'a> {
    /// The instance whose quarantine counts.
    pub instance: &'a str,
    /// Why the run did not complete (it was cancelled, a target did not build, results are missing); `None`: it did.
    pub incomplete: Option<&'a str>,
    pub failures: Vec<Failure>,
    /// How many tests the instance has, for the quarantine's cap.
    pub tests: usize,
}

/// A test, or where they are known a case, of which an attempt failed, also when a retry then passed.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    pub subject: Subject,
    /// When the test failed.
    pub at: Time,
    pub signature: Option<Signature>,
    /// Whether failures that looked like this were flaky before this run.
    pub known: bool,
    /// The change edits the test's own sources.
    pub edited: bool,
    /// What came of the failure; `None` when nobody has looked.
    pub judgement: Option<Judgement>,
    pub tries: Tries,
    /// Whether nothing more will be tried.
    pub settled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateAnswer {
    Green,
    Red,
    Undecided,
}

impl GateAnswer {
    /// The exit code of `kiln tests gate`.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Green => 0,
            Self::Red => 1,
            Self::Undecided => 6,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// The test is in quarantine, and the same inputs have passed.
    Quarantined,
    /// The test was not in quarantine when it failed, but the same inputs have passed.
    Proven,
    /// The test fails always.
    Broken,
    /// Passed in between, but has failed too often in a row for what it is known to do.
    Streak,
    /// The change edits the test's own sources.
    Edited,
    /// More tests are in quarantine than may be.
    OverCap,
    /// Nothing has decided yet whether the test is flaky.
    Open,
    /// Nothing has decided whether the test is flaky, and nothing more will be tried.
    Spent,
    /// The test is in quarantine and passed, but it never failed like this before: somebody has to look.
    NewSignature,
}

impl Finding {
    /// What a failure with this finding makes of the whole.
    pub fn answer(self) -> GateAnswer {
        match self {
            Self::Quarantined | Self::Proven => GateAnswer::Green,
            Self::Broken | Self::Streak | Self::Edited | Self::OverCap => GateAnswer::Red,
            Self::Open | Self::Spent | Self::NewSignature => GateAnswer::Undecided,
        }
    }
}

/// What became of one failure, and on what evidence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    pub subject: Subject,
    pub finding: Finding,
    pub signature: Option<Signature>,
    /// The probability that the test is broken; `None` when nobody has looked.
    pub broken: Option<f64>,
    pub tries: Tries,
    pub quarantine: Option<QuarantinedTest>,
}

impl Item {
    pub fn masked(&self) -> bool {
        self.finding.answer() == GateAnswer::Green
    }
}

/// `once`, `2 times in a row`.
fn in_a_row(number: u32) -> String {
    if number == 1 { times(number) } else { times(number) + " in a row" }
}

impl fmt::Display for Item {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tries { straight, passes } = self.tries;
        let (straight, passes) = (in_a_row(straight), times(passes));
        write!(out, "{}: ", self.subject)?;
        match self.finding {
            Finding::Quarantined => {
                let reason = self.quarantine.as_ref().map_or("", |it| it.reason.as_str());
                write!(out, "in quarantine ({reason}), passed {passes} with equal inputs since")
            }
            Finding::Proven => write!(out, "flaky: passed {passes} with equal inputs since"),
            Finding::Broken => {
                write!(out, "broken: failed {straight} with equal inputs")
            }
            Finding::Streak => {
                write!(out, "broken: passed, then failed {straight}, too often for its rate")
            }
            Finding::Edited => write!(out, "the change edits this test: its failure counts"),
            Finding::OverCap => write!(out, "too many tests are in quarantine: none is masked"),
            Finding::Open => write!(out, "not decided yet: failed {straight}"),
            Finding::Spent => {
                write!(out, "not decided: failed {straight}, and is not run again")
            }
            Finding::NewSignature => {
                write!(out, "in quarantine, but it never failed like this before")
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    pub answer: GateAnswer,
    pub incomplete: Option<String>,
    pub items: Vec<Item>,
}

/// Red where anything is; undecided where anything is not known; green otherwise.
pub fn gate(run: &Run<'_>, quarantine: &Quarantine, now: Time) -> Outcome {
    let over_cap = quarantine.over_cap(run.instance, run.tests, now);
    let item = |failure: &Failure| {
        let entry = quarantine.find(&failure.subject, now);
        Item {
            subject: failure.subject.clone(),
            // Who enters later, perhaps for this very failure, takes nothing from what has passed already.
            finding: find(failure, entry.is_some_and(|it| it.since <= failure.at), over_cap),
            signature: failure.signature,
            broken: failure.judgement.map(|it| it.broken),
            tries: failure.tries,
            quarantine: entry.cloned(),
        }
    };
    let items: Vec<_> = run.failures.iter().map(item).collect();
    let any = |answer| items.iter().any(|it| it.finding.answer() == answer);
    let answer = if run.incomplete.is_some() || any(GateAnswer::Red) {
        GateAnswer::Red
    } else if any(GateAnswer::Undecided) {
        GateAnswer::Undecided
    } else {
        GateAnswer::Green
    };
    Outcome { answer, incomplete: run.incomplete.map(str::to_owned), items }
}

fn find(failure: &Failure, quarantined: bool, over_cap: bool) -> Finding {
    let verdict = failure.judgement.map_or(Verdict::Undecided, |it| it.verdict);
    if failure.edited {
        return Finding::Edited;
    }
    match verdict {
        Verdict::Broken if failure.tries.passes > 0 => Finding::Streak,
        Verdict::Broken => Finding::Broken,
        _ if over_cap => Finding::OverCap,
        // Whatever the verdict says, there is no mask without a pass.
        Verdict::Flaky if failure.tries.passes > 0 => match (quarantined, failure.known) {
            (true, true) => Finding::Quarantined,
            (true, false) => Finding::NewSignature,
            (false, _) => Finding::Proven,
        },
        _ if failure.settled => Finding::Spent,
        _ => Finding::Open,
    }
}

#[cfg(test)]
mod tests;
