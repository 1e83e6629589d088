//! gRPC services. Only here, and in `status`, is gRPC known.

pub mod admin;
pub mod execution;
pub mod hermeticity;
mod inline;
pub mod operations;
pub mod status;
pub mod workers;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kiln_cas::ActionKey;
use kiln_cas::services::Guard;
use kiln_protos::longrunning::{Operation, operation};
use kiln_protos::protobuf::Any;
use kiln_protos::reapi::{ExecuteOperationMetadata, execution_stage};
use prost::Message;

use crate::api::{OperationState, Queue, Stage};
use crate::completion::Completion;
use crate::config::{Parts, SchedulerConfig};
use crate::presence::Presence;

const METADATA: &str =
    "type.googleapis.com/build.bazel.remote.execution.v2.ExecuteOperationMetadata";
const RESPONSE: &str = "type.googleapis.com/build.bazel.remote.execution.v2.ExecuteResponse";

/// What the services share.
pub(crate) struct Core {
    pub config: SchedulerConfig,
    pub parts: Parts,
    pub queue: Arc<dyn Queue>,
    pub completion: Arc<Completion>,
    pub presence: Arc<Presence>,
    pub cache_hits: AtomicU64,
    unqueued: AtomicU64,
    epoch: u64,
}

impl Core {
    pub fn new(
        config: SchedulerConfig,
        parts: Parts,
        queue: Arc<dyn Queue>,
        completion: Arc<Completion>,
    ) -> Self {
        let epoch = RandomState::new().hash_one(std::process::id());
        let (cache_hits, unqueued) = Default::default();
        let presence = Arc::new(Presence::start());
        Self { config, parts, queue, completion, presence, cache_hits, unqueued, epoch }
    }

    pub fn guard(&self) -> Guard {
        Guard(self.parts.access.clone())
    }

    /// Names an operation that the queue never sees.
    fn unqueued_name(&self, instance: &str) -> String {
        let number = self.unqueued.fetch_add(1, Ordering::Relaxed);
        let slash = if instance.is_empty() { "" } else { "/" };
        format!("{instance}{slash}operations/direct-{:016x}-{number:x}", self.epoch)
    }
}

fn metadata(key: &ActionKey, stage: execution_stage::Value, streams: Option<&[String; 2]>) -> Any {
    let [stdout, stderr] = streams.cloned().unwrap_or_default();
    let metadata = ExecuteOperationMetadata {
        stage: stage as i32,
        action_digest: Some(key.action.to_wire()),
        stdout_stream_name: stdout,
        stderr_stream_name: stderr,
        partial_execution_metadata: None,
        digest_function: key.action.function.to_wire() as i32,
    };
    Any { type_url: METADATA.to_owned(), value: metadata.encode_to_vec() }
}

/// `response`: encoded `ExecuteResponse`. Done and COMPLETED are one and the same.
fn done(
    name: String,
    key: &ActionKey,
    streams: Option<&[String; 2]>,
    response: Vec<u8>,
) -> Operation {
    let response = Any { type_url: RESPONSE.to_owned(), value: response };
    Operation {
        name,
        metadata: Some(metadata(key, execution_stage::Value::Completed, streams)),
        done: true,
        result: Some(operation::Result::Response(response)),
    }
}

fn pending(
    name: String,
    key: &ActionKey,
    stage: execution_stage::Value,
    streams: Option<&[String; 2]>,
) -> Operation {
    Operation { name, metadata: Some(metadata(key, stage, streams)), done: false, result: None }
}

fn message(state: OperationState) -> Operation {
    let (key, streams) = (&state.job.key, Some(&*state.streams));
    match &state.stage {
        Stage::Queued => pending(state.name, key, execution_stage::Value::Queued, streams),
        Stage::Executing => pending(state.name, key, execution_stage::Value::Executing, streams),
        Stage::Done(finished) => done(state.name, key, streams, finished.response.to_vec()),
    }
}
