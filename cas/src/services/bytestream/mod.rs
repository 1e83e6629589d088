//! The ByteStream service: blobs and logs by resource name.

mod read;
mod sink;
mod uploads;
mod write;

use std::sync::Arc;

use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;

pub use self::uploads::{MAX_PARTIAL_UPLOADS, PARTIAL_LIFETIME, Uploads};
use super::guard::Guard;
use super::log_stream::LogTokens;
use super::quotas::Quotas;
use super::rpc::{Handler, method_of, unknown_method};
use super::wire::RequestBody;
use crate::blob::SharedBlobStore;
use crate::logs::LogStreams;

pub struct ByteStream {
    pub guard: Guard,
    pub blobs: SharedBlobStore,
    pub logs: LogStreams,
    pub tokens: Arc<LogTokens>,
    pub uploads: Arc<Uploads>,
    pub quotas: Arc<Quotas>,
    /// Bytes; 0: no limit.
    pub max_blob_size: u64,
}

impl Handler for ByteStream {
    const NAME: &'static str = "google.bytestream.ByteStream";

    async fn handle<B: RequestBody>(
        self: Arc<Self>,
        request: Request<B>,
    ) -> Result<Response<Body>, Status> {
        let (parts, body) = request.into_parts();
        let caller = parts.extensions;
        match method_of(&parts.uri) {
            "Read" => self.read(&caller, body).await,
            "Write" => self.write(&caller, body).await,
            "QueryWriteStatus" => Box::pin(self.query(&caller, body)).await,
            other => Err(unknown_method(Self::NAME, other)),
        }
    }
}
