//! Starts what the services of all crates stand on: stores, the server's own worker, and the values
//! that crates share.

use std::sync::Arc;

use kiln_cas::stores::{Storage, StorageConfig};

use super::common::Common;
use super::entrance::Entrance;
use super::options::{ServeError, ServeOptions};
use super::worker::{self, Prepared};
use crate::telemetry::redis::RedisTimes;

pub struct Base {
    pub storage: Storage,
    /// Times of calls to Redis, where there is one.
    pub redis: Arc<RedisTimes>,
    /// The server's own worker before its first session; `None`: workers join from elsewhere.
    pub worker: Option<Prepared>,
    pub common: Common,
}

impl Base {
    /// Opens the stores. Must be called within a Tokio runtime.
    pub async fn open(options: &ServeOptions, entrance: &Entrance) -> Result<Self, ServeError> {
        let admission = &entrance.admission;
        let base_url = options.links_from(admission.scheme(), &entrance.address());
        crate::data_dir::close(&options.storage.data_dir)?;
        let redis = Arc::<RedisTimes>::default();
        let storage = Storage::open(observed(&options.storage, &redis)).await?;
        let worker = worker::prepare(options.worker.clone(), &storage).await?;
        let common = Common::new(options, admission, &storage, base_url).await?;
        Ok(Self { storage, redis, worker, common })
    }
}

/// The same storage options, with `redis` as the observer that is told how long calls to Redis
/// take.
fn observed(config: &StorageConfig, redis: &Arc<RedisTimes>) -> StorageConfig {
    let mut config = config.clone();
    if let Some(shared) = &mut config.shared {
        shared.redis.observer = Some(redis.clone());
    }
    config
}
