//! Blobs whose bytes lie in an object store and whose existence is known to an index that all
//! processes of a fleet share.
//!
//! Small blobs are first kept by the index, and written behind to the object store; large ones
//! are streamed there, and then placed in the index. Each upload is an object of its own
//! (a generation), so that nothing ever deletes what it did not mean.

mod batch;
mod behind;
mod collect;
mod cut;
mod epoch;
mod foreign;
mod heal;
mod index;
mod known;
mod memory_index;
mod memory_objects;
mod objects;
mod orphans;
mod parts;
mod rebuild;
mod space;
mod store;
#[cfg(test)]
mod tests;
mod upkeep;
mod writer;

pub use collect::Collected;
pub use index::{BlobIndex, Candidate, Entry, Generation, IndexUsage, Place, Runs};
pub use memory_index::MemoryIndex;
pub use memory_objects::MemoryObjects;
pub use objects::{Listed, Objects, copy_through};
pub use orphans::Orphans;
pub use parts::{IndexedOptions, IndexedStats};
pub use rebuild::{Rebuilt, rebuild};
pub use store::Indexed;
