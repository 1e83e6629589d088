//! What is queued, and how it ends.

use std::collections::BTreeSet;
use std::fmt;

use kiln_net::counts::times;
use serde::{Deserialize, Serialize};

use super::names::{Branch, Commit};
use crate::model::Time;

/// Numbers changes of a lane, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ChangeId(pub u64);

/// The priority of a change for which nobody asked for another one, of 0 to 9.
pub const USUAL_PRIORITY: u8 = 5;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    pub id: ChangeId,
    pub branch: Branch,
    pub head: Commit,
    /// 0 to 9; more goes first.
    pub priority: u8,
    pub added: Time,
    pub standing: Standing,
    /// Targets that the change affects; `None` where nobody said.
    pub impact: Option<BTreeSet<String>>,
    /// The push of a batch with it was refused: it is tried by itself.
    pub alone: bool,
    /// The commit that the target was at when the change did not merge behind another one that waited; `None`: that did
    /// not happen.
    pub clashed: Option<Commit>,
    /// What the check of the change alone is expected to cost, in the unit of whoever said so; `None`: that is not known.
    #[serde(default)]
    pub cost: Option<u64>,
    /// Batches that began without the change since it costs much more than what waited beside it.
    #[serde(default)]
    pub passed_over: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// The change was not tested since it came, or was put back.
    Waiting,
    /// The change passed on a tree that is not what would land: it is believed to be good.
    Screened,
    /// The change is not tried until somebody or something changes that.
    Held(Held),
}

/// Why a head cannot be fetched that is on its way: nobody has to do anything.
pub const COMING: &str = "not yet, but that goes on";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    /// The change failed on top of this commit, which fails by itself: it is tried again on another one.
    RedBase(Commit),
    /// The repository refused the push, with these words: adding it again tries again.
    Refused(String),
    /// The head of the change cannot be fetched, for this reason, or not yet: pushing or adding it again tries again.
    Unfetched(String),
}

/// How a change leaves the queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The change is in the target as of this commit, which is what was tested, or equal to it in each target.
    Landed(Commit),
    /// The change fails on top of what landed before it.
    Failed {
        targets: Vec<String>,
        runs: u32,
    },
    /// The change cannot be merged into this commit.
    Conflict(Commit),
    /// The change was in the target already.
    Merged,
    /// The branch of the change is gone.
    Deleted,
    Removed,
}

impl End {
    /// Whether the change was at fault.
    pub fn rejects(&self) -> bool {
        matches!(self, Self::Failed { .. } | Self::Conflict(_))
    }
}

impl fmt::Display for End {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Landed(commit) => write!(out, "landed in {}", commit.short()),
            Self::Failed { targets, runs } if targets.is_empty() => {
                write!(out, "rejected: its check failed {} on top of a green base", times(*runs))
            }
            Self::Failed { targets, .. } => write!(out, "rejected: {} failed", targets.join(", ")),
            Self::Conflict(base) => write!(out, "rejected: it conflicts with {}", base.short()),
            Self::Merged => out.write_str("was merged already"),
            Self::Deleted => out.write_str("its branch is gone"),
            Self::Removed => out.write_str("removed"),
        }
    }
}

/// A change that has left the queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    pub id: ChangeId,
    pub branch: Branch,
    /// The head of the branch; `None` where there was no such branch.
    pub head: Option<Commit>,
    pub added: Time,
    pub at: Time,
    pub end: End,
}
