//! ExecuteResponse: what a client gets for an action that ran.

use std::time::{Duration, SystemTime};

use kiln_protos::protobuf::Timestamp;
use kiln_protos::reapi::{self, ExecutedActionMetadata};
use kiln_protos::rpc;

use crate::outputs::{Content, OutputError};
use crate::sandbox::Ending;
use crate::spool::Spooled;

/// stdout and stderr of up to this size are part of the result besides being blobs: it saves
/// every client that prints them a round trip.
pub const INLINE_OUTPUT_BYTES: usize = 16 << 10;

/// Exit code of an action that ran into its timeout, as with timeout(1).
const TIMED_OUT_EXIT_CODE: i32 = 124;
/// Added to the number of the signal that ended an action, as shells do.
const SIGNAL_EXIT_CODE: i32 = 128;
const SIGKILL: i32 = 9;

/// google.rpc.Code
pub mod code {
    pub const OK: i32 = 0;
    pub const DEADLINE_EXCEEDED: i32 = 4;
    pub const RESOURCE_EXHAUSTED: i32 = 8;
    pub const FAILED_PRECONDITION: i32 = 9;
    pub const UNAVAILABLE: i32 = 14;
}

/// When each step began and ended.
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
    /// All steps at `now`: each is overwritten when it happens.
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
pub struct Verdict {
    pub exit_code: i32,
    pub status: rpc::Status,
}

impl Verdict {
    /// `None`: cancelled, there is no response. An action that left unusable outputs failed,
    /// unless it failed before for a reason of its own.
    pub fn of(ending: &Ending, timeout: Duration, outputs: Option<&OutputError>) -> Option<Self> {
        let (exit_code, code, message) = match ending {
            Ending::Exited(exit_code) => (*exit_code, code::OK, String::new()),
            Ending::Signalled(signal) => (SIGNAL_EXIT_CODE + signal, code::OK, String::new()),
            Ending::TimedOut => (
                TIMED_OUT_EXIT_CODE,
                code::DEADLINE_EXCEEDED,
                format!("the action ran into its timeout of {timeout:?} and was killed"),
            ),
            Ending::OverLimit(limit) => (
                SIGNAL_EXIT_CODE + SIGKILL,
                code::RESOURCE_EXHAUSTED,
                format!("the action was killed: {limit}"),
            ),
            Ending::Cancelled => return None,
        };
        let status = match outputs {
            Some(error) if code == code::OK => status(code::FAILED_PRECONDITION, error.to_string()),
            _ => status(code, message),
        };
        Some(Self { exit_code, status })
    }
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

/// `result` has its outputs and streams.
pub fn assemble(
    mut result: reapi::ActionResult,
    verdict: Verdict,
    timeline: &Timeline,
    now: SystemTime,
) -> reapi::ExecuteResponse {
    result.exit_code = verdict.exit_code;
    result.execution_metadata = Some(timeline.metadata(now));
    reapi::ExecuteResponse {
        result: Some(result),
        status: Some(verdict.status),
        ..Default::default()
    }
}

/// For an action that was not run.
pub fn refused(code: i32, message: String) -> reapi::ExecuteResponse {
    reapi::ExecuteResponse { status: Some(status(code, message)), ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(ending: Ending) -> (i32, i32) {
        let verdict = Verdict::of(&ending, Duration::from_secs(3), None).unwrap();
        (verdict.exit_code, verdict.status.code)
    }

    #[test]
    fn every_ending_has_its_exit_code_and_status() {
        assert_eq!(verdict(Ending::Exited(3)), (3, 0));
        assert_eq!(verdict(Ending::Signalled(11)), (139, 0));
        assert_eq!(verdict(Ending::TimedOut), (124, 4));
        assert_eq!(verdict(Ending::OverLimit("memory".into())), (137, 8));
        assert!(Verdict::of(&Ending::Cancelled, Duration::ZERO, None).is_none());
    }

    #[test]
    fn unusable_outputs_are_a_failed_precondition_unless_there_is_a_better_reason() {
        let error = OutputError::Unusable { path: "out".into(), fault: "is a socket".into() };
        let of =
            |ending| Verdict::of(&ending, Duration::from_secs(3), Some(&error)).unwrap().status;
        let status = of(Ending::Exited(0));
        assert_eq!((status.code, status.message.as_str()), (9, "output \"out\" is a socket"));
        assert_eq!(of(Ending::TimedOut).code, 4);
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
