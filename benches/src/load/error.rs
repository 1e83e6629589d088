//! The ways in which a call can go wrong.

use super::wire::WireError;

pub const UNKNOWN: u32 = 2;
pub const NOT_FOUND: u32 = 5;
pub const PERMISSION_DENIED: u32 = 7;
pub const UNIMPLEMENTED: u32 = 12;

#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// A gRPC status other than OK; the message still percent-encoded.
    #[error("status {code}: {message}")]
    Status { code: u32, message: String },
    #[error("HTTP status {0} instead of an answer")]
    Http(u16),
    #[error("{0}")]
    Lost(String),
    /// An answer, but not the right one: never counted as speed.
    #[error("wrong answer: {0}")]
    Wrong(String),
    #[error("no answer within {0} s")]
    TimedOut(u64),
}

impl CallError {
    pub fn lost(error: impl std::fmt::Display) -> Self {
        Self::Lost(error.to_string())
    }

    pub fn wrong(what: impl Into<String>) -> Self {
        Self::Wrong(what.into())
    }

    pub fn code(&self) -> Option<u32> {
        match self {
            Self::Status { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// The server does not offer this at all, or not to this caller.
    pub fn is_unsupported(&self) -> bool {
        matches!(self.code(), Some(UNIMPLEMENTED | PERMISSION_DENIED))
    }
}

impl From<h2::Error> for CallError {
    fn from(error: h2::Error) -> Self {
        Self::lost(error)
    }
}

impl From<WireError> for CallError {
    fn from(error: WireError) -> Self {
        Self::wrong(error.to_string())
    }
}
