//! Why a registry does not do what it is asked for.

use kiln_cas::StoreError;
use kiln_cas::pins::PinError;
use kiln_cas::records::RecordsError;

use crate::oci::{ContentDigest, DocumentError};
use crate::registry::uploads::PartError;

/// A body did not come to its end: what came of it is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BrokenOff(pub String);

#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("blob {0} is not in this repository")]
    NoBlob(ContentDigest),
    #[error("{0} names no manifest in this repository")]
    NoManifest(String),
    #[error("there is no such repository")]
    NoRepository,
    #[error("there is no such upload: it ended, or nothing came of it for too long")]
    NoUpload,
    #[error("the bytes are not those that {0} names")]
    OtherBytes(ContentDigest),
    #[error("{0:?} is no digest by SHA-256 or SHA-512")]
    NoDigest(String),
    #[error(transparent)]
    Part(#[from] PartError),
    #[error(
        "too many uploads are under way, or they have too many bytes (registry.max_uploads, \
         registry.max_upload_bytes); try again later"
    )]
    TooManyUploads,
    #[error(
        "{what} of more than {limit} bytes is not taken (storage.max_blob_size): split it, or have the limit raised"
    )]
    TooLarge { what: &'static str, limit: u64 },
    #[error("the manifest is not taken")]
    Document(#[from] DocumentError),
    #[error("the manifest names {0}, which is not in this repository: push it first")]
    Missing(ContentDigest),
    #[error("the manifest says that {digest} has {said} bytes, and it has {actual}")]
    Size { digest: ContentDigest, said: u64, actual: u64 },
    #[error(
        "the manifest names or says more than a record of it can hold: push one with fewer layers \
         or annotations"
    )]
    Large,
    #[error("the push is refused: {0}")]
    Owned(String),
    #[error("manifest {0} needs it: delete that first")]
    Needed(ContentDigest),
    #[error("more than {0} tags name the manifest: delete some of them first")]
    ManyTags(usize),
    #[error("others change the same all the time; try again")]
    Busy,
    #[error("a record of the registry cannot be read")]
    Damaged,
    #[error("the request broke off")]
    BrokenOff(#[from] BrokenOff),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Records(#[from] RecordsError),
    #[error(transparent)]
    Pins(#[from] PinError),
}

/// Whether somebody else was faster.
pub fn is_conflict(error: &RecordsError) -> bool {
    matches!(error, RecordsError::Conflict { .. })
}
