//! Sources of versions, and why one does not come.

use std::error::Error;
use std::io;
use std::path::Path;

use super::link::LinkError;
use crate::oci::ContentDigest;

/// Whether an agent goes on with what it does: no, when it has been told something newer, or ends.
pub type GoesOn<'a> = &'a dyn Fn() -> bool;

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The release is not to be trusted, and never will be: nothing of it was unpacked.
    #[error("the release is refused")]
    Refused(#[source] Box<dyn Error + Send + Sync>),
    /// There are no keys to trust. They may just be written anew.
    #[error("there are no keys to trust: {0}")]
    Keys(String),
    #[error("there are {free} bytes left, and the release takes {needed}")]
    Full { free: u64, needed: u64 },
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("{0} came as other bytes, or not as many")]
    Tampered(ContentDigest),
    #[error("it cannot be put on disk")]
    Disk(#[from] io::Error),
    /// The agent has something else to do.
    #[error("something newer came")]
    Stopped,
}

impl SourceError {
    pub fn refused(why: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Refused(why.into())
    }

    /// Whether trying again cannot help. Bytes that came wrong may come right from another server; what was signed
    /// stays as it is.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}

/// A source of versions. What it writes has been verified: by digest, and by whoever signed it.
pub trait Source: Send + Sync {
    /// Writes the files of a version into an empty directory.
    fn unpack(
        &self,
        version: &ContentDigest,
        into: &Path,
        goes_on: GoesOn<'_>,
    ) -> Result<(), SourceError>;
}
