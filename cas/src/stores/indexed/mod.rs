//! Blobs whose bytes lie in an object store and whose existence is known to an index that all
//! processes of a fleet share.
//!
//! Small blobs are first kept by the index, and written behind to the object store; large ones
//! are streamed there, and then placed in the index. Each upload is an object of its own
//! (a generation), so that nothing ever deletes what it did not mean.
//!
//! | module | what it does |
//! | --- | --- |
//! | `index`, `objects` | the two traits below, and `memory_index`, `memory_objects` for tests |
//! | `store`, `mechanisms` | the store, and how it is put together |
//! | `lookups`, `reads`, `writes`, `writer` | what callers ask for |
//! | `index_client`, `questions`, `presence` | the index in batches, and what is remembered of it |
//! | `uploads` | objects become the places of their blobs |
//! | `write_behind`, `hurry` | small blobs that this process is still to write to the object store |
//! | `pending_elsewhere` | small blobs that other processes are still to write |
//! | `recent_writes` | small blobs that were written here, in memory |
//! | `read_repair` | blobs that the index has lost and the object store has |
//! | `epoch`, `rebuild` | an index that was lost is noticed, and rebuilt |
//! | `space`, `admission` | the limit of the store |
//! | `collect`, `orphans`, `claim` | garbage |
//! | `running` | whose promises may be cut short |
//! | `upkeep`, `activity` | what runs in the background, and how often |

mod activity;
mod admission;
mod claim;
mod collect;
mod epoch;
mod hurry;
mod index;
mod index_client;
mod lookups;
mod mechanisms;
mod memory_index;
mod memory_objects;
mod objects;
mod options;
mod orphans;
mod pending_elsewhere;
mod presence;
mod questions;
mod read_repair;
mod reads;
mod rebuild;
mod recent_writes;
mod running;
mod space;
mod stats;
mod store;
#[cfg(test)]
mod tests;
mod upkeep;
mod uploads;
mod write_behind;
mod writer;
mod writes;

pub use collect::Collected;
pub use epoch::is_marked;
pub use index::{BlobIndex, Candidate, Generation, IndexEntry, IndexUsage, Place, Runs};
pub use memory_index::MemoryIndex;
pub use memory_objects::MemoryObjects;
pub use objects::{Listed, Objects, copy_through};
pub use options::IndexedOptions;
pub use orphans::Orphans;
pub use rebuild::{Rebuilt, rebuild};
pub use stats::IndexedStats;
pub use store::Indexed;
