//! gRPC and HTTP services over the storage traits. Only here is `tonic::Status` known.

mod action_cache;
mod asset;
mod attributed;
mod bad_request;
mod bytestream;
mod capabilities;
mod cas;
mod cas_services;
mod chunking;
mod compression;
mod config;
mod deadline;
mod fields;
mod get_tree;
mod guard;
mod hits;
mod http;
mod invocation_id;
mod log_stream;
mod metadata;
mod missing;
mod off_thread;
mod opaque;
mod owners;
mod quotas;
pub mod resource;
mod rpc;
mod status;
pub mod wire;

pub use self::action_cache::store_result;
pub use self::asset::{CallerHeaderError, CallerHeaders, FetchConfig};
pub use self::attributed::Attributed;
pub use self::bytestream::{MAX_PARTIAL_UPLOADS, PARTIAL_LIFETIME};
pub use self::capabilities::{HIGH_VERSION, LOW_VERSION, MAX_BATCH_TOTAL};
pub use self::cas_services::CasServices;
pub use self::config::ServicesConfig;
pub use self::deadline::Deadlines;
pub use self::get_tree::MAX_TREE_DIRECTORIES;
pub use self::guard::Guard;
pub use self::http::MAX_INSTANCE_SEGMENTS;
pub use self::metadata::{
    MAX_METADATA, REQUEST_METADATA, encoded_request_metadata, request_metadata,
};
pub use self::missing::{MAX_NAMED_IN_TRAILER, grpc_error, missing_blobs};
pub use self::opaque::OpaqueInstances;
pub use self::owners::Remembered;
pub use self::quotas::{QuotaLimits, Quotas, account_of};
pub use self::rpc::{MAX_BATCH_MESSAGE, MAX_MESSAGE, MAX_STREAM_MESSAGE};
pub use self::status::{
    budget_status, code_of, digest_status, records_status, refused_status, store_status,
};
