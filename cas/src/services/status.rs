//! Errors of storage as gRPC statuses: the one place where both are known.

use kiln_net::causes::chain;
use kiln_protos::rpc;
use tonic::{Code, Status};

use crate::access::Refused;
use crate::budget::BudgetError;
use crate::digest::DigestError;
use crate::error::StoreError;
use crate::records::RecordsError;

/// The gRPC code of a storage error.
pub fn code_of(error: &StoreError) -> Code {
    match error {
        StoreError::NotFound(_) => Code::NotFound,
        StoreError::DigestMismatch { .. }
        | StoreError::SizeMismatch { .. }
        | StoreError::TooLarge { .. }
        | StoreError::Invalid(_) => Code::InvalidArgument,
        StoreError::OutOfRange { .. } => Code::OutOfRange,
        StoreError::Full { .. } | StoreError::DiskFull { .. } | StoreError::Quota { .. } => {
            Code::ResourceExhausted
        }
        StoreError::Unavailable(_) => Code::Unavailable,
        // Not the client was refused, but this server by its storage.
        StoreError::Io { .. } | StoreError::Denied(_) | StoreError::Config(_) => Code::Internal,
        StoreError::Corrupt(_) => Code::DataLoss,
    }
}

/// `field` is the field of the request that the error is about, e.g. `requests[3]`.
pub fn store_status(field: &str, error: &StoreError) -> Status {
    let code = code_of(error);
    if matches!(code, Code::Internal | Code::DataLoss) {
        tracing::error!(field, error = %chain(error), "storage failed");
    }
    Status::new(code, format!("{field}: {error}"))
}

pub fn digest_status(field: &str, error: &DigestError) -> Status {
    Status::invalid_argument(format!("{field}: {error}"))
}

pub fn records_status(context: &str, error: &RecordsError) -> Status {
    let code = match error {
        RecordsError::Conflict { .. } => Code::Aborted,
        RecordsError::Invalid(_) => Code::InvalidArgument,
        RecordsError::Unavailable(_) => Code::Unavailable,
        RecordsError::Corrupt(_) => Code::DataLoss,
    };
    if code == Code::DataLoss {
        tracing::error!(context, error = chain(error), "records failed");
    }
    Status::new(code, format!("{context}: {error}"))
}

/// `UNAVAILABLE` where the same request may be served a moment later.
pub fn budget_status(error: &BudgetError) -> Status {
    match error {
        BudgetError::Busy { .. } => Status::unavailable(error.to_string()),
        BudgetError::Never { .. } => Status::resource_exhausted(error.to_string()),
    }
}

pub fn refused_status(refused: Refused) -> Status {
    match refused {
        Refused::Unauthenticated(message) => Status::unauthenticated(message),
        Refused::Denied(message) => Status::permission_denied(message),
    }
}

/// A status inside a response message.
pub fn inner_status(status: &Status) -> rpc::Status {
    rpc::Status {
        code: status.code() as i32,
        message: status.message().to_owned(),
        details: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::DigestFunction;

    #[test]
    fn each_error_has_its_code_and_names_the_field() {
        let digest = DigestFunction::Sha256.digest(b"x");
        let cases = [
            (StoreError::NotFound(digest), Code::NotFound),
            (
                StoreError::DigestMismatch { expected: digest, actual: digest },
                Code::InvalidArgument,
            ),
            (StoreError::SizeMismatch { expected: digest, actual: 3 }, Code::InvalidArgument),
            (StoreError::OutOfRange { digest, offset: 9 }, Code::OutOfRange),
            (StoreError::Full { used: 1, limit: 1, setting: "x" }, Code::ResourceExhausted),
            (StoreError::DiskFull { path: "/x".into() }, Code::ResourceExhausted),
            (StoreError::unavailable("later"), Code::Unavailable),
            (StoreError::corrupt("bits"), Code::DataLoss),
        ];
        for (error, code) in cases {
            let status = store_status("data", &error);
            assert_eq!(status.code(), code, "{error}");
            assert!(status.message().starts_with("data: "), "{status}");
        }
    }
}
