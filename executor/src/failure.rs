//! Why an action has no result. A command that ran and failed is a result, not a failure.

use std::error::Error;
use std::fmt::Display;

use kiln_cas::{Digest, StoreError};
use kiln_net::causes;
use kiln_protos::worker::WorkerFailure;
use kiln_protos::worker::worker_failure::Kind;

use crate::paths::PathError;

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The blobs that are absent, in the order in which they were found.
    #[error("{} blobs that the action needs are not in the store, the first is {}",
        .0.len(), first(.0))]
    MissingInputs(Vec<Digest>),
    /// The action is malformed: running it again cannot help.
    #[error("{0}")]
    InvalidAction(String),
    /// This worker could not run the action, for the reason inside; another worker may be able to.
    #[error(transparent)]
    Infrastructure(Box<dyn Error + Send + Sync>),
    #[error("the action was cancelled")]
    Cancelled,
    /// The worker drains and gives the action back. That says nothing about the action.
    #[error("the worker drains: {0}")]
    Draining(&'static str),
    /// The worker has not begun the action, or has stopped it because no scheduler was heard.
    #[error("the worker did not take it: {0}")]
    Refused(String),
    #[error(transparent)]
    StoreFull(StoreError),
    /// The action's time was over before its command had begun. The text says where.
    #[error("{0}")]
    TimedOut(String),
    /// The client gets this answer (`google.rpc.Code`): no other worker knows better.
    #[error("{message}")]
    Answer { code: i32, message: String },
}

/// What this worker was doing when something failed.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
struct While {
    doing: String,
    source: Box<dyn Error + Send + Sync>,
}

fn first(missing: &[Digest]) -> String {
    missing.first().map_or_else(|| "unknown".to_owned(), Digest::to_string)
}

impl Failure {
    /// An I/O error of this machine, with what was being done.
    pub fn io(doing: impl Display, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let (doing, source) = (doing.to_string(), error.into());
        Self::Infrastructure(Box::new(While { doing, source }))
    }

    /// The text of the failure and of all that caused it, on one line.
    pub fn in_full(&self) -> String {
        causes::chain(self)
    }

    pub fn to_wire(&self) -> WorkerFailure {
        let (kind, missing) = match self {
            Self::MissingInputs(missing) => (Kind::MissingInputs, missing.as_slice()),
            Self::InvalidAction(_) => (Kind::InvalidAction, [].as_slice()),
            // An answer is sent as one; whoever comes here with it has lost its code.
            Self::Infrastructure(_) | Self::Answer { .. } | Self::TimedOut(_) => {
                (Kind::Infrastructure, [].as_slice())
            }
            Self::Cancelled => (Kind::Cancelled, [].as_slice()),
            Self::Draining(_) => (Kind::Draining, [].as_slice()),
            Self::Refused(_) => (Kind::Refused, [].as_slice()),
            Self::StoreFull(_) => (Kind::StoreFull, [].as_slice()),
        };
        WorkerFailure {
            kind: kind.into(),
            message: self.in_full(),
            missing: missing.iter().map(digest_to_wire).collect(),
            held_lease_ids: Vec::new(),
        }
    }
}

fn digest_to_wire(digest: &Digest) -> kiln_protos::worker::Digest {
    kiln_protos::worker::Digest { hash: digest.hex(), size_bytes: digest.size as i64 }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound(digest) => Self::MissingInputs(vec![digest]),
            StoreError::Full { .. } | StoreError::DiskFull { .. } => Self::StoreFull(error),
            other => Self::Infrastructure(other.into()),
        }
    }
}

impl From<PathError> for Failure {
    fn from(error: PathError) -> Self {
        Self::InvalidAction(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::SandboxError;

    #[test]
    fn a_scheduler_hears_what_caused_a_failure_and_each_cause_once() {
        let refused = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let slot = SandboxError::Io { action: "make a pipe", source: refused };
        let failure = Failure::io("start a slot", slot);
        assert_eq!(failure.to_string(), "start a slot");
        assert_eq!(
            failure.to_wire().message,
            "start a slot: cannot make a pipe: permission denied"
        );
        let failure = Failure::Infrastructure("the disk is gone".into());
        assert_eq!(failure.to_wire().message, "the disk is gone");
    }
}
