//! Why a run could not be begun, shown or told anything.

use kiln_net::panics::Panicked;
use kiln_net::toml::FileError;

use crate::pipelines::laid::LayError;
use crate::pipelines::machine::{GroupFull, MAX_RESUMES};
use crate::storage::StorageError;

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("the records of pipelines cannot be used")]
    Storage(#[from] StorageError),
    #[error("the record {key} is damaged")]
    Damaged {
        key: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("event {number} of {id} is not there, though it was written")]
    Missing { id: String, number: u64 },
    #[error("{found} stages of {id} are there, though {count} were written")]
    Lacking { id: String, found: usize, count: usize },
    #[error("{id} was given up where it stood, since its records could not be read, by {said}")]
    Abandoned { id: String, said: String },
    #[error("what is to be kept cannot be written")]
    Unwritable(#[source] serde_json::Error),
    #[error("others changed what was asked about again and again")]
    Restless,
    #[error(transparent)]
    Panicked(#[from] Panicked),
    #[error("there is no run {0}")]
    NoRun(String),
    #[error("there is no stage {0:?} in this run")]
    NoStage(String),
    #[error("the server has no pipeline {0:?}; `kiln pipeline list` says which there are")]
    NoPipeline(String),
    #[error("the pipeline cannot be used")]
    Read(#[from] FileError),
    #[error("the pipeline cannot be laid out")]
    Lay(#[from] LayError),
    #[error(transparent)]
    Group(#[from] GroupFull),
    #[error("{0} runs are going on or wait already, which is as many as there may be")]
    Busy(usize),
    #[error("a run may be resumed {MAX_RESUMES} times, and its history has a bound")]
    Resumes,
    #[error("{0}")]
    NotNow(String),
    #[error("a reason is needed, of 2,000 characters at most")]
    Reason,
}
