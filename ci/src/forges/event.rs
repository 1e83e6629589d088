//! What a delivery says, in the words of no forge.

use crate::model::Time;
use crate::queue::Commit;

/// Why the body of a delivery is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is not that of a {event} event: {why}")]
pub struct Malformed {
    pub event: String,
    pub why: String,
}

/// A pull request of GitHub and Gitea, a merge request of GitLab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub number: u64,
    /// The repository that the change is to land in.
    pub repository: String,
    /// The branch it is to land on.
    pub base: String,
    pub branch: String,
    /// The commit that the branch is at; `None` where the forge does not say.
    pub head: Option<Commit>,
    /// Whether the branch is in another repository, or in none any more.
    pub foreign: bool,
    pub open: bool,
    pub draft: bool,
    pub labels: Vec<String>,
}

impl Change {
    pub fn has(&self, label: &str) -> bool {
        self.labels.iter().any(|it| it == label)
    }
}

/// Somebody at a forge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Person {
    pub name: String,
    /// The number by which GitLab's API names the person.
    pub id: Option<u64>,
}

/// What happened to a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    Labeled(String),
    Unlabeled(String),
    /// The labels of the change were changed, and which one is not said.
    Relabeled,
    /// The change was opened, perhaps again, or is no draft any more.
    Offered,
    Drafted,
    Closed,
    /// The change was to land on this branch before, and is to land on another one now.
    Retargeted(String),
    /// The branch of the change was pushed to.
    Pushed,
}

/// A comment on a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub repository: String,
    pub number: u64,
    pub text: String,
    pub by: Person,
    /// The change is by the same person.
    pub by_author: bool,
    /// Whether the person belongs to the repository; nothing where the forge does not say.
    pub belongs: Option<bool>,
    /// `None`: the forge has to be asked for it.
    pub change: Option<Change>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The forge tries whether anybody is there.
    Ping,
    Changed {
        change: Change,
        happened: Vec<Happened>,
        by: Person,
        at: Option<Time>,
    },
    Said {
        said: Said,
        at: Option<Time>,
    },
    /// Some branch was pushed to.
    Pushed,
    /// Something that a queue does nothing about.
    Other,
}

impl Event {
    /// When the event happened, by what was signed; `None` where that is not said.
    pub fn at(&self) -> Option<Time> {
        match self {
            Self::Changed { at, .. } | Self::Said { at, .. } => *at,
            Self::Ping | Self::Pushed | Self::Other => None,
        }
    }
}
