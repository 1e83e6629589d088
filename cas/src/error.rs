//! What can go wrong in storage. gRPC adapters turn it into a status; nothing else knows one.

use crate::digest::Digest;

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
    /// Whoever writes was promised as much as it may be.
    #[error(
        "{key}: {who} was promised {used} of {limit} bytes within storage.lease, {asked} more are \
         too many; wait until promises end, or have {key} raised"
    )]
    Quota { key: &'static str, who: String, used: u64, limit: u64, asked: u64 },
    /// The medium has no space left, below the configured limit.
    #[error("no space left on the device that holds {path}")]
    DiskFull { path: String },
    #[error("{context}: {message}")]
    Io { context: String, message: String },
    /// The other end did not answer, for now: a retry may succeed.
    #[error("storage is unavailable: {0}")]
    Unavailable(String),
    /// The other end answers, and refuses whoever asks.
    #[error("access is denied: {0}")]
    Denied(String),
    #[error("stored data is damaged: {0}")]
    Corrupt(String),
    #[error("invalid request: {0}")]
    Invalid(String),
    /// What is configured cannot be used, whatever the other end does.
    #[error("{0}")]
    Config(String),
}

impl StoreError {
    /// What went wrong, without the words that say of which kind it is: for those who have said
    /// already what could not be done.
    pub fn reason(&self) -> String {
        match self {
            Self::Unavailable(reason) | Self::Denied(reason) | Self::Invalid(reason) => {
                reason.clone()
            }
            other => other.to_string(),
        }
    }

    /// An I/O error with what was being done, e.g. `"open blobs/large/ab…"`.
    pub fn io(context: impl Into<String>, error: &std::io::Error) -> Self {
        let context = context.into();
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { path: context }
            }
            _ => Self::Io { context, message: error.to_string() },
        }
    }
}
