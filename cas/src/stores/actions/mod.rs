//! Action caches: in memory, on disk, and the decorator that checks completeness.

mod closure;
mod complete;
mod disk;
mod memory;
mod recent;
#[cfg(test)]
mod tests;

pub use closure::{ClosureError, closure};
pub use complete::CompletenessChecking;
pub use disk::{DiskActionCache, DiskActionCacheOptions};
pub use memory::MemoryActionCache;
pub use recent::Recent;
