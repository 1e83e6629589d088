//! Errors of executions as `google.rpc.Status`.

use kiln_cas::{Digest, StoreError, services};
use kiln_protos::rpc::Status;
use tonic::Code;

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
