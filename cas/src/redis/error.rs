use ::redis::{ErrorKind, ServerErrorKind};

use super::address::Address;
use crate::error::{Reason, StoreError};
use crate::records::RecordsError;

/// What went wrong, by what the caller can do about it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RedisError {
    /// No server answers at the address, for now.
    #[error("Redis at {address} is unavailable: {reason}")]
    Unavailable {
        address: String,
        #[source]
        reason: Reason,
        /// The call had been sent: it may have been run.
        sent: bool,
    },
    /// The server answers that it is loading its data, read-only or without a master, for now.
    /// The call was not run.
    #[error("Redis at {address} is starting or failing over: {reason}")]
    FailingOver {
        address: String,
        #[source]
        reason: Reason,
    },
    #[error(
        "Redis at {address} refuses the login: {reason}; give user and password in \
         KILN_REDIS_URL (rediss://USER:PASSWORD@HOST), or the password in redis.password_file"
    )]
    Auth {
        address: String,
        #[source]
        reason: Reason,
    },
    /// Too old, or configured so that it loses data.
    #[error("Redis at {address} cannot be used: {reason}")]
    WrongServer {
        address: String,
        #[source]
        reason: Reason,
    },
    #[error("Redis at {address} has no memory left: {reason}; raise its maxmemory")]
    Full {
        address: String,
        #[source]
        reason: Reason,
    },
    /// A script or command that the server does not accept: a defect, or foreign data under
    /// this key prefix.
    #[error("Redis refused {name}: {reason}")]
    Script {
        name: &'static str,
        #[source]
        reason: Reason,
    },
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

    pub(super) fn unavailable(address: &Address, reason: impl Into<Reason>) -> Self {
        Self::Unavailable { address: address.to_string(), reason: reason.into(), sent: false }
    }

    pub(super) fn sent(address: &Address, reason: impl Into<Reason>) -> Self {
        Self::Unavailable { address: address.to_string(), reason: reason.into(), sent: true }
    }

    /// An error while a connection is set up: nothing was sent.
    pub(super) fn connecting(address: &Address, error: ::redis::RedisError) -> Self {
        let (at, kind) = (address.to_string(), error.kind());
        let code = error.code().map(str::to_owned);
        let reason = Reason::of(error);
        match kind {
            ErrorKind::AuthenticationFailed | ErrorKind::Server(ServerErrorKind::NoPerm) => {
                Self::Auth { address: at, reason }
            }
            ErrorKind::InvalidClientConfig | ErrorKind::RESP3NotSupported => {
                Self::WrongServer { address: at, reason }
            }
            ErrorKind::Server(_) | ErrorKind::Extension => {
                match Self::answered(address, "", code.as_deref(), reason) {
                    Self::Script { reason, .. } => Self::WrongServer { address: at, reason },
                    known => known,
                }
            }
            _ => Self::unavailable(address, reason),
        }
    }

    /// An error that the server answered, by its code.
    pub(super) fn answered(
        address: &Address,
        name: &'static str,
        code: Option<&str>,
        reason: impl Into<Reason>,
    ) -> Self {
        let (address, reason) = (address.to_string(), reason.into());
        match code {
            Some("NOAUTH" | "WRONGPASS" | "NOPERM") => Self::Auth { address, reason },
            Some("OOM") => Self::Full { address, reason },
            Some(
                "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "BUSY" | "NOREPLICAS"
                | "MISCONF" | "READONLY" | "MOVED" | "ASK" | "NOSCRIPT",
            ) => Self::FailingOver { address, reason },
            _ => Self::Script { name, reason },
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
            RedisError::Script { .. } => Self::Corrupt(Reason::of(error)),
            _ => Self::Unavailable(Reason::of(error)),
        }
    }
}
