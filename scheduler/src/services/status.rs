//! `google.rpc.Status` with details, as a message and as a gRPC trailer.

use bytes::Bytes;
use kiln_cas::{Digest, StoreError};
use kiln_protos::protobuf::Any;
use kiln_protos::rpc::Status;
use prost::Message;
use tonic::Code;

const PRECONDITION_FAILURE: &str = "type.googleapis.com/google.rpc.PreconditionFailure";

/// `google.rpc.PreconditionFailure`, of which the generated types have none.
#[derive(Clone, PartialEq, Message)]
pub struct PreconditionFailure {
    #[prost(message, repeated, tag = "1")]
    pub violations: Vec<Violation>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Violation {
    /// `MISSING` for absent blobs.
    #[prost(string, tag = "1")]
    pub r#type: String,
    #[prost(string, tag = "2")]
    pub subject: String,
    #[prost(string, tag = "3")]
    pub description: String,
}

pub fn status(code: Code, message: impl Into<String>) -> Status {
    Status { code: code as i32, message: message.into(), details: Vec::new() }
}

/// FAILED_PRECONDITION with one detail that lists every missing blob: clients upload them
/// and try again only if all violations are of type MISSING.
pub fn missing_blobs(missing: &[Digest]) -> Status {
    let violation = |digest: &Digest| Violation {
        r#type: "MISSING".to_owned(),
        subject: format!("blobs/{digest}"),
        description: String::new(),
    };
    let failure = PreconditionFailure { violations: missing.iter().map(violation).collect() };
    let detail = Any { type_url: PRECONDITION_FAILURE.to_owned(), value: failure.encode_to_vec() };
    let named: Vec<_> = missing.iter().take(3).map(Digest::to_string).collect();
    let more = match missing.len().saturating_sub(3) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    let message = format!(
        "blobs that the action needs are not in the store ({}): {}{more}; upload them and execute \
         again",
        missing.len(),
        named.join(", "),
    );
    Status { code: Code::FailedPrecondition as i32, message, details: vec![detail] }
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

/// As a gRPC error: details travel in `grpc-status-details-bin`.
pub fn to_grpc(status: Status) -> tonic::Status {
    let code = Code::from_i32(status.code);
    if status.details.is_empty() {
        return tonic::Status::new(code, status.message);
    }
    let details = Bytes::from(status.encode_to_vec());
    tonic::Status::with_details(code, status.message, details)
}
