//! When each step of an execution began and ended.

use kiln_protos::protobuf::Timestamp;
use kiln_protos::{events, reapi};

use crate::job::{Run, UnixNanos, unix_nanos};
use crate::journal::take_worker_times;

const NANOS: i64 = 1_000_000_000;

fn timestamp(nanos: UnixNanos) -> Timestamp {
    Timestamp { seconds: nanos.div_euclid(NANOS), nanos: nanos.rem_euclid(NANOS) as i32 }
}

/// A non-empty `worker` means to clients that every timestamp is set. What the worker left
/// open is taken from the step before.
pub(super) fn fill_metadata(metadata: &mut reapi::ExecutedActionMetadata, run: &Run) {
    if metadata.worker.is_empty() {
        metadata.worker = run.worker.to_string();
    }
    metadata.queued_timestamp = Some(timestamp(run.queued_at));
    let end = *metadata.worker_completed_timestamp.get_or_insert_with(|| timestamp(unix_nanos()));
    let mut last = *metadata.worker_start_timestamp.get_or_insert(timestamp(run.leased_at));
    for step in [
        &mut metadata.input_fetch_start_timestamp,
        &mut metadata.input_fetch_completed_timestamp,
        &mut metadata.execution_start_timestamp,
    ] {
        last = *step.get_or_insert(last);
    }
    let mut next = end;
    for step in [
        &mut metadata.output_upload_completed_timestamp,
        &mut metadata.output_upload_start_timestamp,
        &mut metadata.execution_completed_timestamp,
    ] {
        next = *step.get_or_insert(next);
    }
}

pub(super) fn timeline(
    run: &Run,
    metadata: Option<&reapi::ExecutedActionMetadata>,
) -> events::Timeline {
    let mut timeline = events::Timeline {
        received: run.job.request.received_at,
        queued: run.queued_at,
        leased: run.leased_at,
        finished: unix_nanos(),
        ..Default::default()
    };
    if let Some(metadata) = metadata {
        take_worker_times(&mut timeline, metadata);
    }
    timeline
}
