//! What happens to a lane, and what it wants done.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::change::{ChangeId, Ended};
use super::names::{Branch, Commit};
use super::options::Mode;

/// Numbers runs of a lane. A number is never given twice, so that a late answer is never taken for another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RunId(pub u64);

/// A change as it is tested: with the head that it had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub id: ChangeId,
    pub head: Commit,
}

/// A change that comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Add {
    pub branch: Branch,
    pub head: Commit,
    pub priority: u8,
    pub impact: Option<BTreeSet<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A change is added. The same branch again gives it its new head and priority.
    Add(Add),
    /// A branch was to be added that is not there.
    Absent(Branch),
    Remove(ChangeId),
    /// The branch of a change has another head.
    Pushed {
        id: ChangeId,
        head: Commit,
    },
    /// The branch of a change has this head, which cannot be fetched, or was not yet.
    Unfetched {
        id: ChangeId,
        head: Commit,
        why: String,
    },
    /// What the check of a change alone, with this head, is expected to cost.
    Cost {
        id: ChangeId,
        head: Commit,
        cost: u64,
    },
    /// The branch of a change is gone.
    Deleted(ChangeId),
    /// The head of a change is in the target already.
    Merged(ChangeId),
    /// The target is at this commit. Each start begins with it.
    Target(Commit),
    /// The members of a run were put together as `commit`, apart from those that do not merge.
    Built {
        run: RunId,
        commit: Commit,
        left_out: Vec<LeftOut>,
    },
    Finished {
        run: RunId,
        outcome: Outcome,
    },
    /// What passed in a run counts on this base as well: `commit` is the run's members on top of it, and each target of
    /// it is as it is in the base or as it was tested. Nothing where that is not so, or not known.
    Proven {
        run: RunId,
        base: Commit,
        commit: Option<Commit>,
    },
    /// Whether what a run that is not to be overtaken says counts also on top of `run`.
    Compared {
        run: RunId,
        with: RunId,
        clear: bool,
    },
    Landed(RunId),
    NotLanded {
        run: RunId,
        why: Refusal,
    },
    Pause(String),
    Resume,
    Mode(Mode),
    /// Time passed, and nothing else happened.
    Tick,
}

/// A member that does not merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    pub id: ChangeId,
    /// Whether the member does not even merge into the base alone. If it does, it does not behind those before it.
    pub with_base: bool,
}

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    Failed {
        /// What failed, where that is known; nothing means: something.
        targets: BTreeSet<String>,
        /// Whoever ran it has ruled out a flake: the same inputs fail always.
        proven: bool,
        /// The members that affect what failed, where somebody has looked.
        affecting: Option<BTreeSet<ChangeId>>,
    },
    /// The check could not be run, which says nothing about what was to be checked.
    Unable(String),
}

/// Why the target was not moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The target is not where it was when the run began: an [`Event::Target`] follows.
    Moved,
    /// The repository does not take the push, with these words.
    Refused(String),
}

/// What is to be done. Everything may be asked for again after a crash, and does the same then.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Put these together on top of `base`, in this order, and run the check there.
    Check { run: RunId, base: Commit, members: Vec<Member> },
    /// Nobody waits for the run any more: end its check.
    Cancel(RunId),
    /// Put these together on top of `base`, and compare each target with `base` and with `tested`, where they passed.
    Prove { run: RunId, base: Commit, tested: Commit, members: Vec<Member> },
    /// Put these, the members of the run `with`, together on top of `base`, which is `run`'s, and compare each target with
    /// `base` and with `other`, which is theirs.
    Compare { run: RunId, with: RunId, base: Commit, other: Commit, members: Vec<Member> },
    /// Move the target from `base` to `commit`, if it still is at `base`.
    Land { run: RunId, base: Commit, commit: Commit },
    /// Tell whoever wants to know.
    Tell(Ended),
}

/// What a caller is told whose event changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("there is no change {0} in the queue")]
    Unknown(u64),
    #[error("change {0} is about to land")]
    Landing(u64),
    #[error("the queue is full: it takes {0} changes")]
    Full(usize),
    #[error("{0} is the branch that changes land on")]
    Target(String),
}
