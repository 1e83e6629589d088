//! Implementations of the storage traits and the decorators around them. [`wiring`] is the
//! one place that puts them together.

mod actions;
pub mod audit;
mod capacity;
mod checked;
mod coalesce;
#[cfg(test)]
mod contract;
mod directory;
mod disk;
mod faults;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod group;
mod hashing;
pub mod indexed;
mod log;
mod memory;
mod range;
mod records;
mod redis;
mod remote;
pub mod s3;
mod stage;
mod verify;
mod wiring;

pub use crate::clock::Clock;
pub use actions::{
    ClosureError, CompletenessChecking, DiskActionCache, DiskActionCacheOptions, MemoryActionCache,
    Recent, closure,
};
pub use coalesce::Coalesced;
pub use disk::{DiskBlobStore, DiskOptions, Premises, SMALL_BLOB, Tenant};
pub use faults::{Faults, Faulty, Operation};
pub use memory::MemoryBlobStore;
pub use records::{DiskRecords, MemoryRecords};
pub use redis::{
    RedisActionCache, RedisActionCacheOptions, RedisBlobIndex, RedisBlobIndexOptions, RedisRecords,
};
pub use remote::{RemoteStore, TransferFigures, Transfers};
pub use verify::Verified;
pub use wiring::{
    SharedConfig, SharedIndex, SharedSnapshot, Storage, StorageConfig, StorageSnapshot,
    StorageStats,
};
