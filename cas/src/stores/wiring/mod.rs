//! The one place that turns configuration into storage.

mod common;
mod config;
mod embedded;
mod open;
mod shared;
mod stats;
mod storage;

pub use config::{SharedConfig, StorageConfig};
pub use shared::SharedIndex;
pub use stats::{SharedSnapshot, StorageSnapshot, StorageStats};
pub use storage::Storage;
