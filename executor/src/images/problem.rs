//! Why an image cannot be had.

use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Trying again does not help: the request, the image or the configuration has to change.
    #[error("{0}")]
    Final(String),
    /// Trying again may help. `after`: how long the registry asked to wait; `None`: it did not say.
    #[error("{text}")]
    Passing { text: String, after: Option<Duration> },
    /// This machine is at fault, and another worker may be able to get the image.
    #[error("{0}")]
    Local(String),
}

impl Problem {
    pub fn passing(text: impl Into<String>) -> Self {
        Self::Passing { text: text.into(), after: None }
    }

    /// An I/O error of this machine, with what was being done.
    pub fn local(context: impl std::fmt::Display, error: impl std::fmt::Display) -> Self {
        Self::Local(format!("{context}: {error}"))
    }

    /// Puts `what` before the problem's words.
    pub fn of(self, what: impl std::fmt::Display) -> Self {
        match self {
            Self::Final(text) => Self::Final(format!("{what}: {text}")),
            Self::Passing { text, after } => {
                Self::Passing { text: format!("{what}: {text}"), after }
            }
            Self::Local(text) => Self::Local(format!("{what}: {text}")),
        }
    }
}
