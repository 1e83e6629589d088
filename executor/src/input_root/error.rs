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
    #[error(
        "input root: Directory {digest} is larger than {limit} bytes; spread what is in it over several directories"
    )]
    DirectoryTooLarge { digest: Digest, limit: u64 },
    #[error(
        "the input root has more than {limit} entries, the limit of this worker; declare fewer inputs, or an \
         archive of them"
    )]
    TooManyEntries { limit: usize },
    #[error(
        "the files of the input root have more than {limit} bytes, the limit of this worker; declare fewer \
         or smaller inputs"
    )]
    TooManyBytes { limit: u64 },
    #[error(
        "the paths and the targets of links in the input root have more than {limit} bytes, the limit of \
         this worker; declare fewer inputs, an archive of them, or shorter paths"
    )]
    TooMuchText { limit: u64 },
    #[error("the input root is more than {limit} directories deep; nest its directories less")]
    TooDeep { limit: usize },
    #[error(
        "input root: the path {path:?} is longer than {limit} bytes; shorten its names or nest it less"
    )]
    PathTooLong { path: String, limit: usize },
    #[error(
        "input root: the target of the symlink {path:?} has {bytes} bytes, more than this worker's file \
         system takes; make it shorter"
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_over_a_limit_hears_what_to_do() {
        let path = "a/b".to_owned();
        for error in [
            InputError::TooManyEntries { limit: 7 },
            InputError::TooManyBytes { limit: 7 },
            InputError::TooMuchText { limit: 7 },
            InputError::TooDeep { limit: 7 },
            InputError::PathTooLong { path: path.clone(), limit: 7 },
            InputError::TargetTooLong { path, bytes: 7 },
        ] {
            let Failure::InvalidAction(said) = Failure::from(error) else {
                panic!("it is the action's")
            };
            let (what, remedy) = said.split_once("; ").unwrap_or_default();
            assert!(what.contains('7') && !remedy.is_empty(), "{said}");
        }
    }
}
