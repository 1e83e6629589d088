//! Why a rollout could not be started, shown or told anything.

use kiln_cas::records::RecordsError;
use kiln_net::panics::Panicked;

use crate::json::JsonError;
use crate::rollouts::machine::Lock;
use crate::rollouts::parts::PartError;
use crate::toml::FileError;

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("the records of rollouts cannot be used")]
    Records(#[from] RecordsError),
    #[error("the record {key} is damaged")]
    Damaged {
        key: String,
        #[source]
        source: JsonError,
    },
    #[error("event {number} of {id} is not there, though it was written")]
    Missing { id: String, number: u64 },
    #[error("{found} targets of {id} are there, though {count} were written")]
    Lacking { id: String, found: usize, count: usize },
    #[error("{id} was given up where it stood, since its records could not be read, by {said}")]
    Abandoned { id: String, said: String },
    #[error("what is to be kept cannot be written")]
    Unwritable(#[source] JsonError),
    #[error("{what} could not be asked")]
    Part {
        what: String,
        #[source]
        source: PartError,
    },
    #[error("others changed what was asked about again and again")]
    Restless,
    #[error(transparent)]
    Panicked(#[from] Panicked),
    #[error("there is no rollout {0}")]
    NoRollout(String),
    #[error("the declaration cannot be used")]
    Declared(#[from] FileError),
    #[error("{0}")]
    Unfit(String),
    #[error("{0}")]
    NoPart(String),
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Frozen(String),
    #[error("{place} is being rolled out by {id} already")]
    Busy { place: String, id: String },
    #[error("{} has the deploy lock until {}: {}", .0.owner, crate::timestamp::Timestamp::from_unix(i64::try_from(.0.expires / 1_000).unwrap_or(i64::MAX)), .0.reason)]
    Locked(Lock),
    #[error("{0}")]
    NotNow(String),
    #[error("a reason is needed, of 2,000 characters at most")]
    Reason,
    #[error("a deploy lock lasts from a second to thirty days")]
    LockTime,
}

/// The error that whoever knows the releases could not be asked.
pub fn unasked(source: PartError) -> ControlError {
    ControlError::Part { what: "the list of releases".to_owned(), source }
}
