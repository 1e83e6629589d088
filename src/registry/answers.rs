//! Turns errors of the registry into answers as the OCI distribution specification has them.

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use kiln_cas::StoreError;
use kiln_cas::access::Refused;
use kiln_cas::budget::BudgetError;
use kiln_cas::records::RecordsError;
use kiln_deploy::registry::store::RegistryError;
use kiln_deploy::registry::{Code, ErrorDocument, PartError};
use kiln_net::causes::chain;

/// The header by which clients know that a server is a registry.
pub const VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// Why a request is answered with an error.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Budget(#[from] BudgetError),
    #[error("{message}")]
    Request { status: StatusCode, code: Code, message: String },
}

impl Failure {
    pub fn new(status: StatusCode, code: Code, message: impl Into<String>) -> Self {
        Self::Request { status, code, message: message.into() }
    }

    pub fn status(&self) -> (StatusCode, Code) {
        match self {
            Self::Registry(error) => of_registry(error),
            Self::Refused(Refused::Unauthenticated(_)) => {
                (StatusCode::UNAUTHORIZED, Code::Unauthorized)
            }
            Self::Refused(Refused::Denied(_)) => (StatusCode::FORBIDDEN, Code::Denied),
            Self::Budget(_) => (StatusCode::SERVICE_UNAVAILABLE, Code::TooManyRequests),
            Self::Request { status, code, .. } => (*status, *code),
        }
    }

    pub fn answer(&self) -> Response {
        let (status, code) = self.status();
        if status.is_server_error() {
            tracing::warn!(error = %chain(self), "the registry cannot answer");
        }
        failure(status, code, &chain(self))
    }
}

fn of_registry(error: &RegistryError) -> (StatusCode, Code) {
    use RegistryError as E;
    match error {
        E::NoBlob(_) => (StatusCode::NOT_FOUND, Code::BlobUnknown),
        E::NoManifest(_) => (StatusCode::NOT_FOUND, Code::ManifestUnknown),
        E::NoRepository => (StatusCode::NOT_FOUND, Code::NameUnknown),
        E::NoUpload => (StatusCode::NOT_FOUND, Code::BlobUploadUnknown),
        E::OtherBytes(_) | E::NoDigest(_) => (StatusCode::BAD_REQUEST, Code::DigestInvalid),
        E::Part(PartError::Order { .. }) => {
            (StatusCode::RANGE_NOT_SATISFIABLE, Code::BlobUploadInvalid)
        }
        E::Part(PartError::Length { .. }) => (StatusCode::BAD_REQUEST, Code::SizeInvalid),
        E::Part(PartError::Parts) | E::BrokenOff(_) => {
            (StatusCode::BAD_REQUEST, Code::BlobUploadInvalid)
        }
        E::TooManyUploads => (StatusCode::TOO_MANY_REQUESTS, Code::TooManyRequests),
        E::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, Code::SizeInvalid),
        E::Large => (StatusCode::PAYLOAD_TOO_LARGE, Code::ManifestInvalid),
        E::Document(_) | E::Size { .. } => (StatusCode::BAD_REQUEST, Code::ManifestInvalid),
        E::Missing(_) => (StatusCode::BAD_REQUEST, Code::ManifestBlobUnknown),
        E::Owned(_) => (StatusCode::FORBIDDEN, Code::Denied),
        E::Needed(_) | E::ManyTags(_) => (StatusCode::CONFLICT, Code::Denied),
        E::Busy | E::Pins(_) => (StatusCode::SERVICE_UNAVAILABLE, Code::Unknown),
        E::Damaged => (StatusCode::INTERNAL_SERVER_ERROR, Code::Unknown),
        E::Store(error) => (of_store(error), Code::Unknown),
        E::Records(RecordsError::Unavailable(_)) => {
            (StatusCode::SERVICE_UNAVAILABLE, Code::Unknown)
        }
        E::Records(_) => (StatusCode::INTERNAL_SERVER_ERROR, Code::Unknown),
    }
}

fn of_store(error: &StoreError) -> StatusCode {
    match error {
        StoreError::NotFound(_) => StatusCode::NOT_FOUND,
        StoreError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        StoreError::Full { .. } | StoreError::Quota { .. } | StoreError::DiskFull { .. } => {
            StatusCode::INSUFFICIENT_STORAGE
        }
        StoreError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

pub fn failure(status: StatusCode, code: Code, message: &str) -> Response {
    let document = serde_json::to_vec(&ErrorDocument::new(code, message)).unwrap_or_default();
    let mut response = Response::new(Body::from(document));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(VERSION, HeaderValue::from_static("registry/2.0"));
    if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
    }
    response
}
