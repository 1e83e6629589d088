//! Settings of the scheduler; every one has a default.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kiln_cas::access::{Everybody, SharedAuthorizer};
use kiln_cas::promises::Invocations;
use kiln_cas::records::SharedRecords;
use kiln_cas::services::Quotas;
use kiln_cas::stores::{MemoryActionCache, MemoryBlobStore, MemoryRecords};
use kiln_cas::{DigestFunction, SharedActionCache, SharedBlobStore};
use kiln_cas::{events::Events, logs::LogStreams};

use crate::job::{DurationEstimator, NoEstimates, ShardEstimator};
use crate::queue::Limits;
use crate::reports::{NoReports, TestReports};

/// A part of a test that takes little longer than expected is not slow.
const LEAST: Duration = Duration::from_secs(5);
/// The shortest time between two looks at whether a part is slow.
const LOOK: Duration = Duration::from_secs(2);

#[derive(Debug, Clone)]
pub struct SchedulerConfig {
    pub limits: Limits,
    /// Applies to actions that name no timeout.
    pub default_timeout: Duration,
    /// An action that names more is refused.
    pub max_timeout: Duration,
    /// How often an operation's stream says that it is alive.
    pub operation_heartbeat: Duration,
    /// How often a worker says that it is alive.
    pub worker_heartbeat: Duration,
    /// Where the web pages are, without a slash at the end: `http://host:8980`. Empty: no links.
    pub base_url: String,
    /// The digest function of requests that name none, by instance; instances that are not listed:
    /// SHA-256.
    pub default_functions: BTreeMap<String, DigestFunction>,
    /// Largest gRPC message that is taken, in bytes.
    pub max_message_bytes: usize,
    /// Which parts of a test that is run in parts are run a second time.
    pub hedge: Hedge,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            default_timeout: Duration::from_secs(3600),
            max_timeout: Duration::from_secs(24 * 3600),
            operation_heartbeat: Duration::from_secs(10),
            worker_heartbeat: Duration::from_secs(10),
            base_url: String::new(),
            default_functions: BTreeMap::new(),
            max_message_bytes: 16 << 20,
            hedge: Hedge::default(),
        }
    }
}

/// When a part of a test that is run in parts is slow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hedge {
    /// A part that takes so many times what it is expected to; 0: none is.
    pub factor: f64,
    /// Such a part also takes at least so much longer than expected.
    pub least: Duration,
    /// The shortest time between two looks at whether a part is slow.
    pub look: Duration,
}

impl Default for Hedge {
    fn default() -> Self {
        Self { factor: 2.0, least: LEAST, look: LOOK }
    }
}

/// How the sender of a request reaches the server, as far as the request tells: put into its extensions by
/// who took it in, who has checked that the server is called so. As [`SchedulerConfig::base_url`].
#[derive(Debug, Clone)]
pub struct BaseUrl(pub Arc<str>);

/// The stores and services that the scheduler works with.
#[derive(Clone)]
pub struct Parts {
    pub blobs: SharedBlobStore,
    /// The action cache, which answers only complete results.
    pub actions: SharedActionCache,
    pub logs: LogStreams,
    pub events: Events,
    pub estimator: Arc<dyn DurationEstimator>,
    /// Estimates how long shards of tests run, from earlier runs.
    pub shards: Arc<dyn ShardEstimator>,
    /// Who may have actions run, run them, and act on operations.
    pub access: SharedAuthorizer,
    /// The builds to which promises of outputs are attributed.
    pub invocations: Invocations,
    /// The quotas that stored outputs are charged against.
    pub quotas: Arc<Quotas>,
    /// The records in which the cases of tests are remembered.
    pub records: SharedRecords,
    /// Reads and combines the reports of test runners.
    pub reports: Arc<dyn TestReports>,
}

impl Parts {
    /// Stores of their own that end with the process. Everybody may do everything, and nothing is estimated, counted or read.
    pub fn in_memory() -> Self {
        Self {
            blobs: Arc::new(MemoryBlobStore::default()),
            actions: Arc::new(MemoryActionCache::default()),
            logs: LogStreams::default(),
            events: Events::new(),
            estimator: Arc::new(NoEstimates),
            shards: Arc::new(NoEstimates),
            access: Arc::new(Everybody { write_results: true }),
            invocations: Invocations::default(),
            quotas: Arc::default(),
            records: Arc::new(MemoryRecords::default()),
            reports: Arc::new(NoReports),
        }
    }
}
