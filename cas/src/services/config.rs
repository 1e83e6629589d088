//! The stores and settings that the services are made with.

use std::sync::Arc;

use super::asset::FetchConfig;
use super::opaque::OpaqueInstances;
use super::quotas::Quotas;
use crate::access::SharedAuthorizer;
use crate::action_cache::SharedActionCache;
use crate::blob::SharedBlobStore;
use crate::events::Events;
use crate::logs::LogStreams;
use crate::promises::Invocations;
use crate::records::SharedRecords;

/// Stores, limits and settings of all services of this crate.
pub struct ServicesConfig {
    /// Must verify: it refuses bytes that do not have the digest under which they are written.
    pub blobs: SharedBlobStore,
    /// Must check completeness: a hit is one only if all blobs that it names are present.
    pub actions: SharedActionCache,
    pub records: SharedRecords,
    pub logs: LogStreams,
    pub events: Events,
    /// Whether the same server executes actions.
    pub exec_enabled: bool,
    /// Decides who may do what.
    pub access: SharedAuthorizer,
    /// The invocations that promises of the stores are attributed to.
    pub invocations: Invocations,
    /// What FetchBlob may download.
    pub fetch: FetchConfig,
    /// Instances whose entries in the HTTP cache are bytes of any kind and not action results.
    pub opaque: OpaqueInstances,
    /// Largest blob taken, in bytes; 0: no limit.
    pub max_blob_size: u64,
    /// What one caller, and one instance, may have the store promise.
    pub quotas: Arc<Quotas>,
    /// Random bytes: whoever knows them can write to logs.
    pub secret: [u8; 32],
}
