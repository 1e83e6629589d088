//! What can go wrong with verdicts.

use crate::events::LogError;
use crate::history::HistoryError;
use crate::quarantine;
use crate::storage::{Damage, StorageError};

#[derive(Debug, thiserror::Error)]
pub enum VerdictError {
    #[error("what is known of tests cannot be read or written")]
    Storage(#[from] StorageError),
    #[error(transparent)]
    History(#[from] HistoryError),
    #[error(transparent)]
    Streams(#[from] LogError),
    #[error("record {key} is damaged")]
    Damaged {
        key: String,
        #[source]
        source: Damage,
    },
    #[error("a document about tests cannot be written")]
    Unwritable(#[from] Damage),
    #[error(transparent)]
    Refused(#[from] quarantine::Error),
    #[error("{0}")]
    Invalid(String),
    #[error("others changed the quarantine again and again")]
    Restless,
}
