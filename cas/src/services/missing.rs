//! Blobs that are not there, as clients want to hear of them: `google.rpc.PreconditionFailure`.

use bytes::Bytes;
use kiln_protos::protobuf::Any;
use kiln_protos::rpc;
use prost::Message;
use tonic::{Code, Status};

use crate::digest::Digest;

const PRECONDITION_FAILURE: &str = "type.googleapis.com/google.rpc.PreconditionFailure";
/// Blobs that the words of an error name.
const NAMED_IN_WORDS: usize = 3;
/// Blobs that the detail of a gRPC error names. It travels in a trailer, and clients of gRPC take
/// 8 KiB of those in all.
pub const MAX_NAMED_IN_TRAILER: usize = 32;

/// `google.rpc.PreconditionFailure`, of which the generated types have none.
#[derive(Clone, PartialEq, Message)]
struct PreconditionFailure {
    #[prost(message, repeated, tag = "1")]
    violations: Vec<Violation>,
}

#[derive(Clone, PartialEq, Message)]
struct Violation {
    /// `MISSING` for absent blobs.
    #[prost(string, tag = "1")]
    r#type: String,
    #[prost(string, tag = "2")]
    subject: String,
    #[prost(string, tag = "3")]
    description: String,
}

/// FAILED_PRECONDITION with one detail that lists every missing blob: clients upload them
/// and try again only if all violations are of type MISSING. `what` are the blobs, `remedy` is
/// what to do.
pub fn missing_blobs(what: &str, remedy: &str, missing: &[Digest]) -> rpc::Status {
    let named: Vec<_> = missing.iter().take(NAMED_IN_WORDS).map(Digest::to_string).collect();
    let more = match missing.len().saturating_sub(NAMED_IN_WORDS) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    let message = format!(
        "{what} are not in the store ({}): {}{more}; {remedy}",
        missing.len(),
        named.join(", "),
    );
    let code = Code::FailedPrecondition as i32;
    rpc::Status { code, message, details: vec![detail(missing)] }
}

/// A gRPC error that names the blobs that are missing: the detail lists the first [`MAX_NAMED_IN_TRAILER`].
pub fn missing_blobs_error(what: &str, remedy: &str, missing: &[Digest]) -> Status {
    let mut status = missing_blobs(what, remedy, missing);
    if missing.len() > MAX_NAMED_IN_TRAILER {
        status.details = vec![detail(&missing[..MAX_NAMED_IN_TRAILER])];
    }
    grpc_error(status)
}

/// Turns a status with details into a gRPC error: details travel in `grpc-status-details-bin`.
pub fn grpc_error(status: rpc::Status) -> Status {
    let code = Code::from_i32(status.code);
    if status.details.is_empty() {
        return Status::new(code, status.message);
    }
    let details = Bytes::from(status.encode_to_vec());
    Status::with_details(code, status.message, details)
}

fn detail(missing: &[Digest]) -> Any {
    let violation = |digest: &Digest| Violation {
        r#type: "MISSING".to_owned(),
        subject: format!("blobs/{digest}"),
        description: String::new(),
    };
    let failure = PreconditionFailure { violations: missing.iter().map(violation).collect() };
    Any { type_url: PRECONDITION_FAILURE.to_owned(), value: failure.encode_to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::DigestFunction;

    #[test]
    fn an_error_fits_into_the_trailers_that_clients_take() {
        let digest = |n: u32| Digest {
            size: u64::from(n) << 32,
            ..DigestFunction::Blake3.digest(&n.to_le_bytes())
        };
        let missing: Vec<Digest> = (0..10_000).map(digest).collect();
        let status = missing_blobs_error("action_result: blobs that it names", "go on", &missing);
        let headers = status.clone().into_http::<()>().into_parts().0.headers;
        let size: usize =
            headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        assert!(size < 8 << 10, "{size}");
        assert!(status.message().contains("(10000)"), "{status}");

        let all = missing_blobs("blobs", "go on", &missing);
        let failure = PreconditionFailure::decode(all.details[0].value.as_slice()).unwrap();
        assert_eq!(failure.violations.len(), missing.len());
    }
}
