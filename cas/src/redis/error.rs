use ::redis::{ErrorKind, ServerErrorKind};

use super::address::Address;
use crate::error::{Reason, StoreError};
use crate::records::RecordsError;

/// What went wrong, by what the caller can do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedisError {
    /// No server answers at the address, for now.
    #[error("Redis at {address} is unavailable: {message}")]
    Unavailable {
        address: String,
        message: String,
        /// The call had been sent: it may have been run.
        sent: bool,
    },
    /// The server answers that it is loading its data, read-only or without a master, for now.
    /// The call was not run.
    #[error("Redis at {address} is starting or failing over: {message}")]
    FailingOver { address: String, message: String },
    #[error(
        "Redis at {address} refuses the login: {message}; give user and password in \
         KILN_REDIS_URL (rediss://USER:PASSWORD@HOST), or the password in redis.password_file"
    )]
    Auth { address: String, message: String },
    /// Too old, or configured so that it loses data.
    #[error("Redis at {address} cannot be used: {message}")]
    WrongServer { address: String, message: String },
    #[error("Redis at {address} has no memory left: {message}; raise its maxmemory")]
    Full { address: String, message: String },
    /// A script or command that the server does not accept: a defect, or foreign data under
    /// this key prefix.
    #[error("Redis refused {name}: {message}")]
    Script { name: &'static str, message: String },
    #[error("{0}")]
    Config(String),
}

impl RedisError {
    /// Whether the same call may succeed a little later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::FailingOver { .. })
    }

    /// Whether the call may have been run: it was sent, and its answer is lost.
    pub fn may_have_run(&self) -> bool {
        matches!(self, Self::Unavailable { sent: true, .. })
    }

    pub(super) fn unavailable(address: &Address, message: impl ToString) -> Self {
        let (address, message) = (address.to_string(), message.to_string());
        Self::Unavailable { address, message, sent: false }
    }

    pub(super) fn sent(address: &Address, message: impl ToString) -> Self {
        let (address, message) = (address.to_string(), message.to_string());
        Self::Unavailable { address, message, sent: true }
    }

    /// An error while a connection is set up: nothing was sent.
    pub(super) fn connecting(address: &Address, error: &::redis::RedisError) -> Self {
        let (at, message) = (address.to_string(), error.to_string());
        match error.kind() {
            ErrorKind::AuthenticationFailed | ErrorKind::Server(ServerErrorKind::NoPerm) => {
                Self::Auth { address: at, message }
            }
            ErrorKind::InvalidClientConfig | ErrorKind::RESP3NotSupported => {
                Self::WrongServer { address: at, message }
            }
            ErrorKind::Server(_) | ErrorKind::Extension => {
                match Self::answered(address, "", error.code(), message) {
                    Self::Script { message, .. } => Self::WrongServer { address: at, message },
                    known => known,
                }
            }
            _ => Self::unavailable(address, message),
        }
    }

    /// An error that the server answered, by its code.
    pub(super) fn answered(
        address: &Address,
        name: &'static str,
        code: Option<&str>,
        message: String,
    ) -> Self {
        let address = address.to_string();
        match code {
            Some("NOAUTH" | "WRONGPASS" | "NOPERM") => Self::Auth { address, message },
            Some("OOM") => Self::Full { address, message },
            Some(
                "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "BUSY" | "NOREPLICAS"
                | "MISCONF" | "READONLY" | "MOVED" | "ASK" | "NOSCRIPT",
            ) => Self::FailingOver { address, message },
            _ => Self::Script { name, message },
        }
    }
}

impl From<RedisError> for StoreError {
    fn from(error: RedisError) -> Self {
        match &error {
            RedisError::Script { .. } => Self::failed("Redis", error),
            _ => Self::unavailable(Reason::of(error)),
        }
    }
}

impl From<RedisError> for RecordsError {
    fn from(error: RedisError) -> Self {
        match &error {
            RedisError::Script { .. } => Self::Corrupt(error.to_string()),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}
