//! Remote Asset: content that is known by a URI (Fetch and Push).
//!
//! | module | what it does |
//! | --- | --- |
//! | `push` | what callers say of URIs |
//! | `fetch` | what is known of URIs, otherwise downloads |
//! | `complete` | whether a directory is there as a whole |
//! | `names`, `stored` | the records: their keys and values |
//! | `downloads` | downloads under way: shared, bounded, longer than calls |
//! | `download`, `coding` | one of them: requests, redirections, content codings |
//! | `spool` | where its bytes lie until their digest is known |
//! | `qualifiers`, `sri` | what a caller asks of it |

mod coding;
mod complete;
mod download;
mod downloads;
mod fetch;
mod names;
mod push;
mod qualifiers;
mod spool;
mod sri;
mod stored;

use std::time::SystemTime;

use kiln_protos::protobuf::Timestamp;

use self::downloads::Downloads;
pub use self::downloads::FetchConfig;
use super::ServicesConfig;
use super::guard::Guard;
use crate::blob::SharedBlobStore;
use crate::records::SharedRecords;

pub struct AssetService {
    blobs: SharedBlobStore,
    records: SharedRecords,
    guard: Guard,
    downloads: Downloads,
}

impl AssetService {
    /// Needs a tokio runtime: downloads run on it, whoever asks for them.
    pub fn new(config: &ServicesConfig) -> Self {
        Self {
            blobs: config.blobs.clone(),
            records: config.records.clone(),
            guard: Guard(config.access.clone()),
            downloads: Downloads::new(config),
        }
    }
}

/// Nanoseconds since the Unix epoch.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

fn nanoseconds(time: &Timestamp) -> i64 {
    time.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(time.nanos))
}

fn timestamp(nanoseconds: i64) -> Timestamp {
    Timestamp {
        seconds: nanoseconds.div_euclid(1_000_000_000),
        nanos: nanoseconds.rem_euclid(1_000_000_000) as i32,
    }
}
