//! What can go wrong with a lane that runs.

use crate::queue::Refused;
use crate::queue::git::GitError;
use crate::storage::{Damage, StorageError};

#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("record {key} is damaged")]
    Damaged {
        key: String,
        #[source]
        source: Damage,
    },
    #[error(transparent)]
    Git(#[from] GitError),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("there is no branch {0} in the repository")]
    NoTarget(String),
    #[error("the queue {queue} lands on {target}: name another queue for another branch")]
    OtherTarget { queue: String, target: String },
    #[error("there are {0} requests already that nobody has taken in: is the queue running?")]
    Crowded(usize),
    #[error(
        "{0:?} is no name of a queue: letters, digits, `-`, `_` and `.`, which does not begin it; at most 60"
    )]
    Name(String),
    #[error("there is no change of branch {0} in the queue")]
    Unknown(String),
    #[error("another runner has taken the queue {0} over")]
    Lost(String),
    #[error("the server refuses what this runner says: {0}")]
    Server(String),
    #[error("this runner was told to end")]
    Stopped,
}
