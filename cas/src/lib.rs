//! Content-addressed storage, action cache, records and their services.

pub mod access;
pub mod action;
pub mod action_cache;
mod batch;
pub mod bazel;
pub mod blob;
pub mod buck2;
pub mod budget;
pub mod clock;
pub mod counted;
pub mod digest;
pub mod error;
pub mod events;
pub mod logs;
pub mod overlay;
pub mod pins;
pub mod promises;
pub mod records;
pub mod redis;
pub mod result;
pub mod services;
pub mod stores;
pub mod tree;

pub use action_cache::{ActionCache, ActionKey, SharedActionCache};
pub use blob::{Blob, BlobStore, BlobStream, BlobWriter, NamingWriter, SharedBlobStore};
pub use digest::{Digest, DigestError, DigestFunction, Hasher};
pub use error::{Reason, StoreError};
