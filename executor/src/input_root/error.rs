//! Why an input root could not be laid out.

use kiln_cas::{Digest, StoreError};

use super::directory::DirectoryError;
use crate::failure::Failure;

#[derive(Debug, thiserror::Error)]
pub enum InputError {
    #[error("{} blobs of the input root are missing", .0.len())]
    Missing(Vec<Digest>),
    #[error("input root: Directory {digest}: {source}")]
    Directory { digest: Digest, source: DirectoryError },
    #[error("input root: Directory {digest} is larger than {limit} bytes")]
    DirectoryTooLarge { digest: Digest, limit: u64 },
    #[error("the input root has more than {limit} entries, the limit of this worker")]
    TooManyEntries { limit: usize },
    #[error("the files of the input root have more than {limit} bytes, the limit of this worker")]
    TooManyBytes { limit: u64 },
    #[error(
        "the paths and the targets of links in the input root have more than {limit} bytes, the limit of \
         this worker"
    )]
    TooMuchText { limit: u64 },
    #[error("the input root is more than {limit} directories deep")]
    TooDeep { limit: usize },
    #[error("input root: the path {path:?} is longer than {limit} bytes")]
    PathTooLong { path: String, limit: usize },
    #[error(
        "input root: the target of the symlink {path:?} has {bytes} bytes, more than this worker's file \
         system takes"
    )]
    TargetTooLong { path: String, bytes: usize },
    #[error("input root: {0}")]
    Store(#[from] StoreError),
    #[error("input root: {context}")]
    Io { context: String, source: std::io::Error },
}

impl InputError {
    pub(super) fn io(context: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let context = context.into();
        move |source| Self::Io { context, source }
    }
}

impl From<InputError> for Failure {
    fn from(error: InputError) -> Self {
        match error {
            InputError::Missing(missing) => Self::MissingInputs(missing),
            InputError::Store(error @ StoreError::NotFound(_)) => error.into(),
            InputError::Store(_) | InputError::Io { .. } => Self::Infrastructure(error.into()),
            InputError::Directory { .. }
            | InputError::DirectoryTooLarge { .. }
            | InputError::TooManyEntries { .. }
            | InputError::TooManyBytes { .. }
            | InputError::TooMuchText { .. }
            | InputError::TooDeep { .. }
            | InputError::PathTooLong { .. }
            | InputError::TargetTooLong { .. } => Self::InvalidAction(error.to_string()),
        }
    }
}
