//! Implementations of the storage traits and the decorators around them. [`compose`] is the
//! one place that puts them together.

mod actions;
mod clock;
mod compose;
mod memory;
mod range;
mod records;
mod verify;

pub use actions::MemoryActionCache;
pub use clock::Clock;
pub use compose::{Storage, StorageConfig, StorageSnapshot, StorageStats};
pub use memory::MemoryBlobStore;
pub use records::MemoryRecords;
pub use verify::Verified;
