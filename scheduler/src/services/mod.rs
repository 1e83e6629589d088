//! gRPC services. Only here is gRPC known.

pub mod admin;
pub mod execution;
pub mod hermeticity;
mod inline;
pub mod operations;
pub mod own;
mod servers;
pub mod workers;

use kiln_cas::ActionKey;
use kiln_protos::longrunning::{Operation, operation};
use kiln_protos::protobuf::Any;
use kiln_protos::reapi::{ExecuteOperationMetadata, execution_stage};
use prost::Message;

use crate::api::{OperationState, Stage};

const METADATA: &str =
    "type.googleapis.com/build.bazel.remote.execution.v2.ExecuteOperationMetadata";
const RESPONSE: &str = "type.googleapis.com/build.bazel.remote.execution.v2.ExecuteResponse";

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
