use std::fmt::Display;
use std::io;

use nix::errno::Errno;

/// What failed in the zygote: it travels to the server as text.
#[derive(Debug, thiserror::Error)]
pub(super) enum ZygoteError {
    #[error("{call} {subject}: {source}")]
    Call { call: &'static str, subject: String, source: io::Error },
    #[error("{0}")]
    Refused(String),
}

/// Names the system call and its subject in an error.
pub(super) trait Context<T> {
    fn context(self, call: &'static str, subject: impl Display) -> Result<T, ZygoteError>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, call: &'static str, subject: impl Display) -> Result<T, ZygoteError> {
        self.map_err(|error| ZygoteError::Call {
            call,
            subject: subject.to_string(),
            source: error.into(),
        })
    }
}

/// The same number: both crates have a type for it.
pub(super) fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

impl ZygoteError {
    pub(super) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Call { source, .. } => source.raw_os_error().map(Errno::from_raw),
            Self::Refused(_) => None,
        }
    }
}
