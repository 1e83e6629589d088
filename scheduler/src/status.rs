//! Errors of executions as `google.rpc.Status`.

use kiln_cas::{Digest, StoreError, services};
use kiln_protos::rpc::Status;
use tonic::Code;

use crate::api::NotTaken;
use crate::queue::{Refusal, Scope};

pub fn status(code: Code, message: impl Into<String>) -> Status {
    Status { code: code as i32, message: message.into(), details: Vec::new() }
}

/// FAILED_PRECONDITION for an action whose blobs are absent.
pub fn missing_blobs(missing: &[Digest]) -> Status {
    let what = "blobs that the action needs";
    services::missing_blobs(what, "upload them and execute again", missing)
}

/// An error of the store, met by the server itself.
pub fn store_status(context: &str, error: &StoreError) -> Status {
    let code = match error {
        StoreError::NotFound(digest) => return missing_blobs(&[*digest]),
        StoreError::Full { .. } | StoreError::DiskFull { .. } => Code::ResourceExhausted,
        StoreError::Unavailable(_) => Code::Unavailable,
        StoreError::TooLarge { .. } | StoreError::Invalid(_) => Code::InvalidArgument,
        _ => Code::Internal,
    };
    status(code, format!("{context}: {error}"))
}

/// The status that a client gets for a job that the queue does not take.
pub fn refused(reason: &NotTaken) -> Status {
    let refusal = match reason {
        NotTaken::Refused(refusal) => refusal,
        NotTaken::Unavailable(error) => {
            let message = format!("the queue cannot take the action: {error}; try again");
            return status(Code::Unavailable, message);
        }
    };
    match refusal {
        Refusal::QueueFull { limit } => status(
            Code::ResourceExhausted,
            format!("{limit} actions wait already, which is the limit; try again later"),
        ),
        Refusal::QuotaReached { of, limit } => {
            let (whose, key) = match of {
                Scope::Instance => ("this instance", "quotas.instance_queued"),
                Scope::Caller => ("this caller", "quotas.caller_queued"),
            };
            let message = format!(
                "{limit} actions of {whose} wait already, which is its quota ({key}); \
                 try again when some of them have ended"
            );
            status(Code::ResourceExhausted, message)
        }
        Refusal::Draining => {
            status(Code::Unavailable, "this server is shutting down; try again, or another one")
        }
    }
}
