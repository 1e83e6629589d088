//! What is to be executed and how it ended, as the scheduler's own types.

use std::sync::Arc;

use bytes::Bytes;
use kiln_cas::{ActionKey, Digest, bazel};
pub(crate) use kiln_net::clock::unix_nanos;
use kiln_protos::reapi;
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::queue::platform::Requirement;

/// Nanoseconds since the Unix epoch.
pub type UnixNanos = i64;

/// The parts of an `Action` that scheduling and its records need.
#[derive(Debug, Clone)]
pub struct ActionFacts {
    pub command: Digest,
    pub input_root: Digest,
    pub platform: Requirement,
    /// `None`: the action names no limit.
    pub timeout_ms: Option<u64>,
    pub do_not_cache: bool,
}

/// One client's request to execute an action.
#[derive(Debug, Clone)]
pub struct Request {
    pub metadata: reapi::RequestMetadata,
    /// `metadata`, encoded.
    pub metadata_bytes: Bytes,
    pub received_at: UnixNanos,
    pub skip_cache_lookup: bool,
    /// The account that the request belongs to; `None`: nobody in particular.
    pub owner: Option<Arc<str>>,
    /// The group with which the request shares tools that stay between actions; `None`: it may use
    /// none.
    pub tools: Option<Arc<str>>,
    /// The account by which stored outputs are counted ([`kiln_cas::services::Quotas`]); empty:
    /// nobody's.
    pub account: Arc<str>,
    /// The address at which the client reaches the server, for links; `None`: as the server is
    /// configured.
    pub base_url: Option<Arc<str>>,
    /// Set for a run of the hermeticity check, which nobody but the check hears of.
    pub rerun: Option<Rerun>,
    /// Set for one part of an action that was fanned out.
    pub shard: Option<Shard>,
}

/// Which part of an action a job is. Its result is of use for the whole alone, and is published nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// The part's number, counted from 1.
    pub number: u32,
    pub count: u32,
    /// The action that it is a part of, in the same digest function.
    pub whole: kiln_protos::events::Digest,
}

impl From<&Shard> for kiln_protos::events::Shard {
    fn from(shard: &Shard) -> Self {
        let Shard { number, count, ref whole } = *shard;
        Self { number, count, whole: Some(whole.clone()), run_ns: 0 }
    }
}

impl Request {
    /// The address with which links for whoever asked begin.
    pub fn links_from<'a>(&'a self, configured: &'a str) -> &'a str {
        self.base_url.as_deref().unwrap_or(configured)
    }
}

/// An action that ran before runs again.
#[derive(Debug, Clone)]
pub struct Rerun {
    /// Encoded `kiln.hermeticity.v1.Conditions`: what is changed for this run; empty: nothing.
    pub conditions: Bytes,
    /// The worker that should not get the job where another one can; empty: any may.
    pub avoid: Arc<str>,
}

/// A request that the action cache did not answer.
#[derive(Debug, Clone)]
pub struct Job {
    pub key: ActionKey,
    pub facts: ActionFacts,
    pub priority: i32,
    pub expected_ms: Option<u64>,
    pub request: Arc<Request>,
    pub messages: LeaseMessages,
}

impl Job {
    /// Whether the job makes the report of a test that has run: its client waits for that before the test has ended. `false`
    /// also where the job's command did not come along.
    pub fn writes_report(&self) -> bool {
        let command = || reapi::Command::decode(self.messages.blobs().get(1)?.clone()).ok();
        bazel::is_test(&self.request.metadata.action_mnemonic)
            && command().is_some_and(|command| bazel::writes_report(&command))
    }
}

/// The Action and the Command of a job, which go with its leases: its worker reads them first. Empty where
/// they are too large, or where too much of them waits already; then the worker reads them from the store.
#[derive(Debug, Clone, Default)]
pub struct LeaseMessages(Option<Arc<Kept>>);

#[derive(Debug)]
struct Kept {
    blobs: Vec<Bytes>,
    _room: OwnedSemaphorePermit,
}

impl LeaseMessages {
    /// Bytes of one action's messages that go with its leases, at most.
    pub const MOST_BYTES: usize = 16 << 10;

    /// `room`: bytes that the messages of all actions may still take, one permit each.
    pub fn keep(room: &Arc<Semaphore>, messages: &[Bytes]) -> Self {
        let bytes: usize = messages.iter().map(Bytes::len).sum();
        let taken = u32::try_from(bytes).ok().filter(|_| bytes <= Self::MOST_BYTES);
        let room = taken.and_then(|bytes| room.clone().try_acquire_many_owned(bytes).ok());
        // Copies: a slice would keep all of the message in memory that it came in.
        let copied = || messages.iter().map(|message| Bytes::copy_from_slice(message)).collect();
        Self(room.map(|room| Arc::new(Kept { blobs: copied(), _room: room })))
    }

    pub fn blobs(&self) -> &[Bytes] {
        self.0.as_ref().map_or(&[], |kept| &kept.blobs)
    }
}

/// One run of a job by a worker.
#[derive(Debug, Clone)]
pub struct Run {
    /// Name of the first request's operation.
    pub operation: Arc<str>,
    pub job: Arc<Job>,
    pub queued_at: UnixNanos,
    /// When a worker got the lease; 0: no worker ever had it.
    pub leased_at: UnixNanos,
    pub worker: Arc<str>,
    pub attempts: u32,
}

/// A worker's answer that is final for the action.
#[derive(Debug, Clone)]
pub enum Outcome {
    Response(Box<reapi::ExecuteResponse>),
    /// Inputs that the store does not have, as the worker named them; digests are of the action's
    /// own function.
    MissingInputs {
        message: String,
        missing: Vec<kiln_protos::worker::Digest>,
    },
    InvalidAction(String),
    StoreFull(String),
}

/// A finished execution, ready to be sent to any number of clients.
#[derive(Debug, Clone, Default)]
pub struct Finished {
    /// Encoded `ExecuteResponse`.
    pub response: Bytes,
    /// `google.rpc.Code` of `ExecuteResponse.status`.
    pub code: i32,
    pub message: String,
    pub exit_code: i32,
    /// Encoded `ActionResult`; empty when there is none.
    pub result: Bytes,
    pub timeline: kiln_protos::events::Timeline,
    pub worker: Arc<str>,
    pub attempts: u32,
    /// The action was cancelled, or nobody waited for it any more.
    pub cancelled: bool,
}

impl Finished {
    /// Bytes by which this answer counts among those that are kept.
    pub fn size(&self) -> usize {
        self.response.len() + self.result.len()
    }
}

/// Durations learned from earlier runs.
pub trait DurationEstimator: Send + Sync + 'static {
    /// Milliseconds that an action of this target and mnemonic is expected to run.
    fn expected_ms(&self, target: &str, mnemonic: &str) -> Option<u64>;
}

/// An estimator that knows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoEstimates;

impl DurationEstimator for NoEstimates {
    fn expected_ms(&self, _target: &str, _mnemonic: &str) -> Option<u64> {
        None
    }
}

/// One of the shards into which a client divides a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TestShard<'a> {
    pub instance: &'a str,
    pub label: &'a str,
    /// The configuration, as the client calls it.
    pub configuration: &'a str,
    /// The shard's index, counted from 0.
    pub index: u32,
    pub count: u32,
}

/// Estimates how long shards of tests run, from what they took before.
pub trait ShardEstimator: Send + Sync + 'static {
    /// Milliseconds that a shard is expected to run. Answers at once: what is not at hand is not known.
    fn shard_ms(&self, shard: &TestShard<'_>) -> Option<u64>;
}

impl ShardEstimator for NoEstimates {
    fn shard_ms(&self, _shard: &TestShard<'_>) -> Option<u64> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_kept_while_they_are_small_and_there_is_room() {
        let room = Arc::new(Semaphore::new(10));
        let messages = [Bytes::from_static(b"action"), Bytes::from_static(b"cmd")];
        let kept = LeaseMessages::keep(&room, &messages);
        assert_eq!(kept.blobs(), messages);
        assert!(LeaseMessages::keep(&room, &messages).blobs().is_empty(), "there is no room");
        drop(kept);
        assert_eq!(LeaseMessages::keep(&room, &messages).blobs(), messages);
        let room = Arc::new(Semaphore::new(usize::MAX >> 3));
        let large = [Bytes::from(vec![0; LeaseMessages::MOST_BYTES + 1])];
        assert!(LeaseMessages::keep(&room, &large).blobs().is_empty());
    }
}
