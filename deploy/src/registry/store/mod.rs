//! Repositories in a store of blobs and records.
//!
//! | records | what they say |
//! | --- | --- |
//! | `registry/blobs/DIGEST:REPOSITORY` | a repository has a blob: its size, and its SHA-256 where it is named otherwise |
//! | `registry/manifests/REPOSITORY:DIGEST` | a manifest: its type, where its bytes are, what it needs, whether it is pinned |
//! | `registry/tags/REPOSITORY:TAG` | which manifest a tag names |
//! | `registry/referrers/REPOSITORY:SUBJECT/DIGEST` | one manifest is about another |
//! | `registry/owners/REPOSITORY` | releases own a repository: the instance that they are of; see `released.rs` |
//! | `registry/uploads/`, `registry/pieces/` | uploads under way |
//! | `registry/pinning/`, `registry/untidy/`, `registry/changes/` | see `keeping.rs` and `tidying.rs` |
//!
//! Each change that is visible is one write of records, made when the bytes that it names are in the store: a crash
//! leaves all of it or nothing.

mod assembling;
mod body;
mod error;
mod keeping;
mod keys;
mod links;
mod manifests;
mod model;
mod reading;
mod registry;
mod released;
mod removing;
mod sessions;
#[cfg(test)]
mod tests;
mod tidying;

pub use body::Body;
pub use error::{BrokenOff, RegistryError};
pub use keys::{BLOBS, MANIFESTS, REFERRERS, REGISTRY};
pub use manifests::{Push, Pushed};
pub use model::{owner_of_blob, owner_of_manifest, owner_of_referrer};
pub use reading::{Found, Page};
pub use registry::{Registry, RegistryParts};
pub use released::{ClaimError, ReleasedRepository, Shown};
pub use sessions::Ending;
