//! The LogStream service, and who may write to a log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kiln_protos::logstream::log_stream_service_server::LogStreamService;
use kiln_protos::logstream::{CreateLogStreamRequest, LogStream};
use tonic::{Request, Response, Status};

use super::guard::Guard;
use crate::access::Right;
use crate::logs::LogStreams;

/// Longest parent in bytes.
const MAX_PARENT: usize = 1024;

/// Tokens are derived from a secret of this process: none has to be kept.
pub struct LogTokens {
    secret: [u8; 32],
    count: AtomicU64,
}

impl LogTokens {
    /// `secret`: random bytes.
    pub fn new(secret: [u8; 32]) -> Self {
        Self { secret, count: AtomicU64::new(0) }
    }

    /// Whether `token` allows to write to the log `name`. Takes the same time for any token.
    pub fn is_valid(&self, name: &str, token: &str) -> bool {
        blake3::Hash::from_hex(token).is_ok_and(|token| token == self.token(name))
    }

    fn token(&self, name: &str) -> blake3::Hash {
        blake3::keyed_hash(&self.secret, name.as_bytes())
    }

    fn new_id(&self) -> String {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let hash = blake3::keyed_hash(&self.secret, &number.to_le_bytes()).to_hex();
        hash[..32].to_owned()
    }
}

pub struct LogStreamServer {
    pub logs: LogStreams,
    pub tokens: Arc<LogTokens>,
    pub guard: Guard,
}

#[tonic::async_trait]
impl LogStreamService for LogStreamServer {
    async fn create_log_stream(
        &self,
        request: Request<CreateLogStreamRequest>,
    ) -> Result<Response<LogStream>, Status> {
        let (_, caller, request) = request.into_parts();
        let parent = request.parent;
        self.guard.check(&caller, Right::WriteBlobs, &parent)?;
        check_parent(&parent)?;
        let slash = if parent.is_empty() { "" } else { "/" };
        let name = format!("{parent}{slash}logstreams/{}", self.tokens.new_id());
        self.logs.create(&name);
        let write_resource_name = format!("{name}/{}", self.tokens.token(&name).to_hex());
        Ok(Response::new(LogStream { name, write_resource_name }))
    }
}

/// The name is used in ByteStream calls, where some segments have a meaning.
fn check_parent(parent: &str) -> Result<(), Status> {
    const KEYWORDS: [&str; 4] = ["blobs", "uploads", "compressed-blobs", "logstreams"];
    let wrong = |problem: &str| Status::invalid_argument(format!("parent: {parent:?} {problem}"));
    if parent.len() > MAX_PARENT {
        return Err(Status::invalid_argument("parent: it is longer than 1024 bytes"));
    }
    if !parent.is_empty() && parent.split('/').any(str::is_empty) {
        return Err(wrong("has an empty segment"));
    }
    if parent.split('/').any(|segment| KEYWORDS.contains(&segment)) {
        return Err(wrong("holds a segment that resource names reserve"));
    }
    Ok(())
}
