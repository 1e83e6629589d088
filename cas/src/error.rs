//! The errors of storage. Only the gRPC services turn them into statuses.
//!
//! An error says in words what users need to know, and keeps the error that caused it as its source:
//! logs show both (`kiln_net::causes::chain`).

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use crate::digest::Digest;

/// Why something failed, in words, and the error that caused it, if one did.
#[derive(Clone)]
pub struct Reason {
    message: Cow<'static, str>,
    /// Shared, because errors of storage are told to all who waited for the same thing.
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl Reason {
    /// `message` says what `error` means to whoever reads it.
    pub fn caused(
        message: impl Into<Cow<'static, str>>,
        error: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self { message: message.into(), source: Some(Arc::from(error.into())) }
    }

    /// What `error` says itself.
    pub fn of(error: impl Error + Send + Sync + 'static) -> Self {
        Self::caused(error.to_string(), error)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.message, f)
    }
}

impl Error for Reason {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

impl From<String> for Reason {
    fn from(message: String) -> Self {
        Self { message: message.into(), source: None }
    }
}

impl From<&'static str> for Reason {
    fn from(message: &'static str) -> Self {
        Self { message: message.into(), source: None }
    }
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    #[error("blob {0} is not in the store")]
    NotFound(Digest),
    #[error("the bytes hash to {actual}, not to {expected}")]
    DigestMismatch { expected: Digest, actual: Digest },
    #[error("blob {expected}: got {actual} bytes, its digest says {}", expected.size)]
    SizeMismatch { expected: Digest, actual: u64 },
    #[error("offset {offset} is beyond the end of blob {digest}")]
    OutOfRange { digest: Digest, offset: u64 },
    #[error("{size} bytes are more than the limit of {limit}")]
    TooLarge { size: u64, limit: u64 },
    /// Everything stored is promised to somebody: writing more would break a promise. `setting`
    /// is the key of the limit.
    #[error(
        "the store is full: {used} of {limit} bytes are in use and promised to builds that run, \
         or that asked for them a short while ago (storage.min_lease); raise {setting}"
    )]
    Full { used: u64, limit: u64, setting: &'static str },
    /// The caller or the instance has been promised as much as its quota allows.
    #[error(
        "{key}: {who} was promised {used} of {limit} bytes within storage.lease, {asked} more are \
         too many; wait until promises end, or have {key} raised"
    )]
    Quota { key: &'static str, who: String, used: u64, limit: u64, asked: u64 },
    /// The medium has no space left, below the configured limit.
    #[error("no space left on the device that holds {path}")]
    DiskFull { path: String },
    /// `context`: what was being done.
    #[error("{context}: {reason}")]
    Io {
        context: String,
        #[source]
        reason: Reason,
    },
    /// The other end did not answer, for now: a retry may succeed.
    #[error("storage is unavailable: {0}")]
    Unavailable(#[source] Reason),
    /// The other end answers, and refuses whoever asks.
    #[error("access is denied: {0}")]
    Denied(#[source] Reason),
    #[error("stored data is damaged: {0}")]
    Corrupt(#[source] Reason),
    #[error("invalid request: {0}")]
    Invalid(#[source] Reason),
    /// What is configured cannot be used, whatever the other end does.
    #[error("{0}")]
    Config(#[source] Reason),
}

/// The words in which a server says that a blob is over its limit. gRPC has no status code for that alone, and
/// a worker has to tell this refusal from errors that it made itself.
pub const OVER_BLOB_SIZE: &str = "is over max_cas_blob_size_bytes";

/// Size and limit in what [`over_blob_size`] has written.
pub fn parse_over_blob_size(message: &str) -> Option<(u64, u64)> {
    let (before, after) = message.split_once(OVER_BLOB_SIZE)?;
    let size = before.trim_end().strip_suffix(" bytes")?.rsplit(' ').next()?.parse().ok()?;
    let limit = after.trim_start().strip_prefix('(')?.split(')').next()?.parse().ok()?;
    Some((size, limit))
}

/// `size` and `limit` in bytes.
pub fn over_blob_size(size: u64, limit: u64) -> String {
    format!(
        "a blob of {size} bytes {OVER_BLOB_SIZE} ({limit}); split or compress it, or have storage.max_blob_size raised"
    )
}

impl StoreError {
    /// The message without the words that say of which kind the error is, for callers whose own message
    /// says already what could not be done.
    pub fn reason(&self) -> String {
        match self {
            Self::Unavailable(reason) | Self::Denied(reason) | Self::Invalid(reason) => {
                reason.to_string()
            }
            other => other.to_string(),
        }
    }

    /// An I/O error with what was being done, e.g. `"open blobs/large/ab…"`.
    pub fn io(context: impl Into<String>, error: io::Error) -> Self {
        let context = context.into();
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { path: context }
            }
            _ => Self::failed(context, error),
        }
    }

    /// Any other error with what was being done.
    pub fn failed(context: impl Into<String>, error: impl Error + Send + Sync + 'static) -> Self {
        Self::Io { context: context.into(), reason: Reason::of(error) }
    }

    /// See [`StoreError::Unavailable`].
    pub fn unavailable(reason: impl Into<Reason>) -> Self {
        Self::Unavailable(reason.into())
    }

    /// See [`StoreError::Denied`].
    pub fn denied(reason: impl Into<Reason>) -> Self {
        Self::Denied(reason.into())
    }

    /// See [`StoreError::Corrupt`].
    pub fn corrupt(reason: impl Into<Reason>) -> Self {
        Self::Corrupt(reason.into())
    }

    /// See [`StoreError::Invalid`].
    pub fn invalid(reason: impl Into<Reason>) -> Self {
        Self::Invalid(reason.into())
    }

    /// See [`StoreError::Config`].
    pub fn config(reason: impl Into<Reason>) -> Self {
        Self::Config(reason.into())
    }
}

#[cfg(test)]
mod tests {
    use kiln_net::causes::{chain, find};

    use super::*;

    #[test]
    fn an_error_keeps_what_caused_it_and_says_it_once() {
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let error = StoreError::io("open x", denied());
        assert_eq!(error.to_string(), "open x: permission denied");
        assert_eq!(chain(&error), error.to_string());
        assert!(find::<io::Error>(&error.clone()).is_some());
        let error = StoreError::unavailable(Reason::caused("the index does not answer", denied()));
        assert_eq!(error.to_string(), "storage is unavailable: the index does not answer");
        assert_eq!(chain(&error), format!("{error}: permission denied"));
    }

    #[test]
    fn a_full_disk_is_told_apart() {
        let full = StoreError::io("write x", io::ErrorKind::StorageFull.into());
        assert!(matches!(full, StoreError::DiskFull { .. }), "{full}");
    }

    #[test]
    fn a_blob_over_the_limit_is_told_from_other_refusals() {
        let said = format!("resource_name: {}", over_blob_size(2_000_000, 1 << 20));
        assert_eq!(parse_over_blob_size(&said), Some((2_000_000, 1 << 20)));
        assert_eq!(parse_over_blob_size("resource_name: no such form"), None);
        assert_eq!(parse_over_blob_size("is over max_cas_blob_size_bytes"), None);
    }
}
