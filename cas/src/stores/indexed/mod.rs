//! Blobs whose bytes lie in an object store and whose existence is known to an index.

mod index;
mod objects;

pub use index::{BlobIndex, Candidate, Entry, Generation, IndexUsage, Place};
pub use objects::{Listed, Objects, copy_through};
