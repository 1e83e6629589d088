//! What can go wrong with queues of a server.

use crate::queue::Refused;
use crate::queue::serving::QueueError;
use crate::storage::{Damage, StorageError};

#[derive(Debug, thiserror::Error)]
pub enum HostedError {
    #[error("there is no merge queue {0:?}")]
    NoQueue(String),
    #[error("there is no request {0} of this queue, or it is too old")]
    NoRequest(u64),
    #[error("there is no run {0} of this queue that has ended, or it is too old")]
    NoRun(u64),
    #[error("there is no change of branch {0} in the queue")]
    NoChange(String),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("there are {0} requests already that no runner has taken in")]
    Crowded(usize),
    #[error("there are {0} merge queues already")]
    Full(usize),
    #[error("{holder} runs the queue {queue} already")]
    Busy { queue: String, holder: String },
    #[error("another runner has taken the queue {0} over")]
    Lost(String),
    #[error("the queue lands on {known}, not on {asked}")]
    OtherTarget { known: String, asked: String },
    #[error("{0}")]
    Invalid(String),
    #[error("queues cannot be read or written")]
    Storage(#[from] StorageError),
    #[error("record {key} is damaged")]
    Damaged {
        key: String,
        #[source]
        source: Damage,
    },
    #[error("others changed the queue again and again")]
    Restless,
}

impl From<QueueError> for HostedError {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::Storage(error) => Self::Storage(error),
            QueueError::Damaged { key, source } => Self::Damaged { key, source },
            QueueError::Refused(refused) => Self::Refused(refused),
            QueueError::Unknown(branch) => Self::NoChange(branch),
            other => Self::Invalid(other.to_string()),
        }
    }
}
