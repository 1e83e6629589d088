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

use std::sync::Arc;
use std::time::SystemTime;

use kiln_protos::protobuf::Timestamp;

use self::downloads::Downloads;
pub use self::downloads::FetchConfig;
use self::stored::StoredAsset;
use super::ServicesConfig;
use super::guard::Guard;
use super::quotas::Quotas;
use crate::blob::SharedBlobStore;
use crate::digest::{Digest, DigestFunction};
use crate::records::{Record, SharedRecords};

/// What the keys of assets begin with.
pub const ASSETS: &str = "asset/";

pub struct AssetService {
    blobs: SharedBlobStore,
    records: SharedRecords,
    guard: Guard,
    quotas: Arc<Quotas>,
    downloads: Downloads,
}

impl AssetService {
    /// Needs a tokio runtime: downloads run on it, whoever asks for them.
    pub fn new(config: &ServicesConfig) -> Self {
        Self {
            blobs: config.blobs.clone(),
            records: config.records.clone(),
            guard: Guard(config.access.clone()),
            quotas: config.quotas.clone(),
            downloads: Downloads::new(config),
        }
    }
}

/// The blob, or the root of the directory, that an asset is.
pub fn owner(record: &Record) -> Option<Digest> {
    let function = record.key.strip_prefix(ASSETS)?.split('/').nth(1)?;
    let function = DigestFunction::ALL.into_iter().find(|known| known.to_string() == function)?;
    StoredAsset::decode_record(record.value.clone())?.digest(function)
}

#[cfg(test)]
pub fn remembered(blob: &Digest) -> (String, Vec<u8>) {
    let uris = [format!("https://example/{}", blob.hex())];
    let names = names::Names::new(stored::Kind::Blob, "", &uris, &[], blob.function);
    let key = names.map(|names| names.key(0)).unwrap_or_default();
    (key, StoredAsset::new(blob, 0, None).encode().into())
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
