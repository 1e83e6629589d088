//! The blob store on a local disk: small blobs in a log, each large one in a file.
//!
//! | module | what it does |
//! | --- | --- |
//! | `store` | the store |
//! | `contents` | what it holds, and how it keeps within its limit |
//! | `sizes` | which blobs are small, and how large the log's files are |
//! | `reader`, `writer`, `append` | large blobs in pieces |
//! | `naming` | blobs whose digest shows at their end |
//! | `large`, `slot`, `names` | files of large blobs, and what is known of them |
//! | `unsynced`, `evicted` | files that are not durable yet, and those of evicted blobs |
//! | `premises`, `tenant` | others who keep files under the same limit |

mod append;
mod contents;
mod evicted;
mod large;
mod names;
mod naming;
mod premises;
mod reader;
mod sizes;
mod slot;
mod store;
mod tenant;
#[cfg(test)]
mod tests;
mod unsynced;
mod writer;

pub use self::premises::Premises;
pub use self::sizes::{SMALL_BLOB, segment_size};
pub use self::store::{DiskBlobStore, DiskOptions};
pub use self::tenant::Tenant;
