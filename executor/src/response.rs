//! ExecuteResponse: what a client gets for an action that ran.

use std::time::{Duration, SystemTime};

use kiln_net::counts::duration;
use kiln_protos::protobuf::{Any, Timestamp};
use kiln_protos::reapi::{self, ExecutedActionMetadata};
use kiln_protos::{rpc, worker};
use prost::Message as _;

use crate::outputs::{Collected, Content, OutputError};
use crate::sandbox::{Ending, TIMED_OUT_EXIT_CODE, UNUSABLE_EXIT_CODE};
use crate::spool::Spooled;

/// stdout and stderr of up to this size are part of the result besides being blobs: it saves
/// every client that prints them a round trip.
pub const INLINE_OUTPUT_BYTES: usize = 16 << 10;

/// Most bytes of an encoded result before its streams are in it: Bazel and others take messages of 4 MiB,
/// and the answer has an envelope.
pub const MAX_RESULT_BYTES: usize = (4 << 20) - (128 << 10);

/// Values of `google.rpc.Code` that responses carry.
pub mod code {
    pub const OK: i32 = 0;
    pub const DEADLINE_EXCEEDED: i32 = 4;
    pub const FAILED_PRECONDITION: i32 = 9;
    pub const UNAVAILABLE: i32 = 14;
}

/// The times at which the steps of an action began and ended.
#[derive(Debug, Clone)]
pub struct Timeline {
    pub worker: String,
    pub queued: SystemTime,
    pub started: SystemTime,
    pub fetch_start: SystemTime,
    pub fetch_end: SystemTime,
    pub run_start: SystemTime,
    pub run_end: SystemTime,
    pub upload_start: SystemTime,
    pub upload_end: SystemTime,
}

impl Timeline {
    /// A timeline with all steps at `now`: each is overwritten when it happens.
    pub fn begin(worker: &str, queued_at_nanos: i64, now: SystemTime) -> Self {
        let since = u64::try_from(queued_at_nanos).unwrap_or(0);
        let queued = match since {
            0 => now,
            nanos => SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos),
        };
        Self {
            worker: worker.to_owned(),
            queued,
            started: now,
            fetch_start: now,
            fetch_end: now,
            run_start: now,
            run_end: now,
            upload_start: now,
            upload_end: now,
        }
    }

    fn metadata(&self, now: SystemTime) -> ExecutedActionMetadata {
        let duration = self.run_end.duration_since(self.run_start).unwrap_or_default();
        ExecutedActionMetadata {
            worker: self.worker.clone(),
            queued_timestamp: Some(timestamp(self.queued)),
            worker_start_timestamp: Some(timestamp(self.started)),
            worker_completed_timestamp: Some(timestamp(now)),
            input_fetch_start_timestamp: Some(timestamp(self.fetch_start)),
            input_fetch_completed_timestamp: Some(timestamp(self.fetch_end)),
            execution_start_timestamp: Some(timestamp(self.run_start)),
            execution_completed_timestamp: Some(timestamp(self.run_end)),
            virtual_execution_duration: Some(kiln_protos::protobuf::Duration {
                seconds: duration.as_secs() as i64,
                nanos: duration.subsec_nanos() as i32,
            }),
            output_upload_start_timestamp: Some(timestamp(self.upload_start)),
            output_upload_completed_timestamp: Some(timestamp(self.upload_end)),
            auxiliary_metadata: Vec::new(),
        }
    }
}

pub fn nanos(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp { seconds: since.as_secs() as i64, nanos: since.subsec_nanos() as i32 }
}

/// How an action ended, in the response's terms.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    pub exit_code: i32,
    /// The status as a `google.rpc.Code`: whatever an action does is its outcome (OK); its timeout
    /// alone is a status of its own, as the specification has it.
    pub code: i32,
    /// Why it failed and what to do, where its own output cannot say so; empty where it can.
    pub reason: String,
}

impl Verdict {
    /// The verdict on an action that ended so; `None`: it was cancelled, and there is no response.
    /// `outputs`: why these cannot be taken as they are; an action that ended well has failed then.
    pub fn of(ending: &Ending, timeout: Duration, outputs: Option<&OutputError>) -> Option<Self> {
        let (code, reason) = match ending {
            Ending::Exited(_) | Ending::Signalled(_) => (code::OK, String::new()),
            Ending::TimedOut => (code::DEADLINE_EXCEEDED, timed_out(timeout)),
            Ending::OverLimit { limit, .. } => {
                (code::OK, format!("the action met a limit of its worker: {limit}"))
            }
            Ending::Unusable(why) => (code::OK, why.clone()),
            Ending::Cancelled => return None,
        };
        let exit_code = ending.exit_code();
        Some(match outputs {
            Some(error) if reason.is_empty() => {
                let exit_code = if exit_code == 0 { UNUSABLE_EXIT_CODE } else { exit_code };
                Self { exit_code, code, reason: error.to_string() }
            }
            _ => Self { exit_code, code, reason },
        })
    }
}

fn timed_out(timeout: Duration) -> String {
    let timeout = duration(timeout);
    format!(
        "the action ran into its timeout of {timeout} and was killed; raise its own (a test's is \
         --test_timeout with Bazel), or scheduler.default_timeout for actions that name none"
    )
}

fn status(code: i32, message: String) -> rpc::Status {
    rpc::Status { code, message, details: Vec::new() }
}

/// Puts the streams into `result`.
pub fn set_streams(result: &mut reapi::ActionResult, stdout: &Spooled, stderr: &Spooled) {
    (result.stdout_digest, result.stdout_raw) = stream_fields(stdout);
    (result.stderr_digest, result.stderr_raw) = stream_fields(stderr);
}

fn stream_fields(stream: &Spooled) -> (Option<reapi::Digest>, Vec<u8>) {
    let raw = match &stream.content {
        Content::Memory(data) if data.len() <= INLINE_OUTPUT_BYTES => data.to_vec(),
        _ => Vec::new(),
    };
    (Some(stream.digest.to_wire()), raw)
}

/// The result of an action whose blobs the store has not taken: only those of its logs that are in
/// the message itself.
pub fn without_blobs(result: reapi::ActionResult) -> reapi::ActionResult {
    reapi::ActionResult {
        stdout_raw: result.stdout_raw,
        stderr_raw: result.stderr_raw,
        ..reapi::ActionResult::default()
    }
}

/// Drops the outputs where naming them takes more than clients accept: the action has failed then.
pub fn within_bounds(collected: Collected) -> Collected {
    let bytes = collected.result.encoded_len();
    if bytes <= MAX_RESULT_BYTES {
        return collected;
    }
    let count = collected.result.output_files.len() + collected.result.output_directories.len();
    let fault = OutputError::TooMuch(format!(
        "are {count}, and naming them takes {bytes} bytes, more than the {MAX_RESULT_BYTES} that clients \
         take in one answer; have the action leave a directory or an archive instead"
    ));
    let (result, blobs) = Default::default();
    Collected { result, blobs, fault: Some(fault), ..collected }
}

/// Makes the response; `result` has its outputs and streams.
pub fn assemble(
    mut result: reapi::ActionResult,
    verdict: Verdict,
    timeline: &Timeline,
    now: SystemTime,
) -> reapi::ExecuteResponse {
    result.exit_code = verdict.exit_code;
    result.execution_metadata = Some(timeline.metadata(now));
    let Verdict { code, reason, .. } = verdict;
    let told = if code == code::OK { String::new() } else { reason.clone() };
    reapi::ExecuteResponse {
        result: Some(result),
        status: Some(status(code, told)),
        message: reason,
        ..Default::default()
    }
}

/// Tells the scheduler how many bytes were stored, which counts them for whoever asked; `None`: none.
pub fn stored(bytes: u64) -> Option<Any> {
    let value = worker::Stored { bytes }.encode_to_vec();
    (bytes > 0).then(|| Any { type_url: worker::STORED.to_owned(), value })
}

/// The response to an action that was not run.
pub fn refused(code: i32, message: String) -> reapi::ExecuteResponse {
    reapi::ExecuteResponse { status: Some(status(code, message)), ..Default::default() }
}

/// The response to an action whose time was over before its command had begun.
pub fn timed_out_early(reason: String) -> reapi::ExecuteResponse {
    let result = reapi::ActionResult {
        exit_code: TIMED_OUT_EXIT_CODE,
        stderr_raw: note(&reason).into_bytes(),
        ..Default::default()
    };
    reapi::ExecuteResponse {
        result: Some(result),
        message: reason.clone(),
        ..refused(code::DEADLINE_EXCEEDED, reason)
    }
}

/// The line that says `reason` in an action's stderr: several clients show nothing else of an
/// action that failed.
pub fn note(reason: &str) -> String {
    format!("kiln: {reason}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(ending: Ending, outputs: Option<&OutputError>) -> (i32, i32, String) {
        let verdict = Verdict::of(&ending, Duration::from_secs(3), outputs).unwrap();
        (verdict.exit_code, verdict.code, verdict.reason)
    }

    #[test]
    fn every_ending_is_an_outcome_and_the_timeout_a_status_too() {
        let nothing = String::new;
        assert_eq!(verdict(Ending::Exited(3), None), (3, 0, nothing()));
        assert_eq!(verdict(Ending::Signalled(11), None), (139, 0, nothing()));
        let (exit_code, code, reason) = verdict(Ending::TimedOut, None);
        assert_eq!((exit_code, code), (124, 4));
        assert!(reason.starts_with("the action ran into its timeout of 3s"), "{reason}");
        let limit = Ending::OverLimit { limit: "memory: much".into(), exit_code: 137 };
        let reason = "the action met a limit of its worker: memory: much";
        assert_eq!(verdict(limit, None), (137, 0, reason.into()));
        assert_eq!(verdict(Ending::Unusable("odd".into()), None), (1, 0, "odd".into()));
        assert_eq!(Verdict::of(&Ending::Cancelled, Duration::ZERO, None), None);
    }

    #[test]
    fn unusable_outputs_fail_what_ended_well_and_are_named_unless_there_is_a_better_reason() {
        let error = OutputError::Unusable { path: "out".into(), fault: "is a socket".into() };
        let named = "output \"out\" is a socket";
        assert_eq!(verdict(Ending::Exited(0), Some(&error)), (1, 0, named.into()));
        assert_eq!(verdict(Ending::Exited(7), Some(&error)), (7, 0, named.into()));
        assert!(!verdict(Ending::TimedOut, Some(&error)).2.contains("socket"));
    }

    #[test]
    fn a_named_worker_has_every_timestamp() {
        let now = SystemTime::now();
        let metadata = Timeline::begin("w", 5, now).metadata(now);
        assert_eq!(metadata.queued_timestamp, Some(Timestamp { seconds: 0, nanos: 5 }));
        for stamp in [
            metadata.worker_start_timestamp,
            metadata.worker_completed_timestamp,
            metadata.input_fetch_start_timestamp,
            metadata.input_fetch_completed_timestamp,
            metadata.execution_start_timestamp,
            metadata.execution_completed_timestamp,
            metadata.output_upload_start_timestamp,
            metadata.output_upload_completed_timestamp,
        ] {
            assert_eq!(stamp, Some(timestamp(now)));
        }
    }
}
