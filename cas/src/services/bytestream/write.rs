//! ByteStream.Write and QueryWriteStatus

use std::time::Instant;

use bytes::Bytes;
use http::{Extensions, Response};
use kiln_protos::bytestream::{QueryWriteStatusRequest, QueryWriteStatusResponse, WriteResponse};
use prost::Message;
use tonic::Status;
use tonic::body::Body;

use super::ByteStream;
use super::sink::Sink;
use super::uploads::{Partial, UploadKey};
use crate::access::Right;
use crate::blob::{MAX_WHOLE_BLOB, SharedBlobStore};
use crate::budget::Charge;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::services::compression::{MAX_WINDOW, USUAL_WINDOW, decompress, window_of};
use crate::services::fields::check_size;
use crate::services::resource::{Compression, NameError, WriteName, parse_write};
use crate::services::rpc::{MAX_MESSAGE, MAX_STREAM_MESSAGE, decode_single, reply};
use crate::services::status::store_status;
use crate::services::wire::{Encoded, Messages, RequestBody, WriteRequest};

const NAME: &str = "WriteRequest";
/// Bytes of an upload that wait to be hashed and written.
const IN_FLIGHT: u64 = MAX_WHOLE_BLOB;
/// Bytes of a message from which on it is not kept for little data. That of smaller ones is copied where it has to wait.
const LARGE: usize = 16 << 10;
/// `committed_size` of a compressed upload of a blob that is there already.
const ALREADY_THERE: i64 = -1;

impl ByteStream {
    pub(super) async fn write(
        &self,
        caller: &Extensions,
        body: impl RequestBody,
    ) -> Result<Response<Body>, Status> {
        self.uploads.expire(Instant::now());
        let mut incoming = Incoming::start(caller, body).await?;
        let name = incoming.name.clone();
        let name = parse_write(&name).map_err(|e| malformed(&e))?;
        self.guard.check(caller, Right::WriteBlobs, name.instance())?;
        let committed = match name {
            WriteName::Log { name, token } => {
                Box::pin(self.write_log(name, token, incoming)).await?
            }
            WriteName::Blob { instance, digest, compression, .. }
                if incoming.is_whole() && digest.size <= MAX_WHOLE_BLOB =>
            {
                check_size(|| "resource_name".into(), &digest, self.max_blob_size)?;
                let blobs = self.quotas.store(&self.blobs, &self.guard, caller, instance);
                write_whole(&blobs, &digest, compression, &mut incoming).await?
            }
            WriteName::Blob { instance, uuid, digest, compression } => {
                check_size(|| "resource_name".into(), &digest, self.max_blob_size)?;
                let key = UploadKey::new(instance, uuid, digest, compression);
                let blobs = self.quotas.store(&self.blobs, &self.guard, caller, instance);
                Box::pin(self.write_streamed(&blobs, key, incoming)).await?
            }
        };
        Ok(reply(Encoded::message(&WriteResponse { committed_size: committed })))
    }

    async fn write_streamed(
        &self,
        blobs: &SharedBlobStore,
        key: UploadKey,
        mut incoming: Incoming<impl RequestBody>,
    ) -> Result<i64, Status> {
        let (digest, compressed) = (key.digest, key.compressed);
        let window = if compressed { incoming.window() } else { 0 };
        incoming.messages.charge(digest.size.min(window + IN_FLIGHT)).await?;
        if self.is_present(&digest).await? {
            return Ok(if compressed { ALREADY_THERE } else { digest.size as i64 });
        }
        let partial = self.begin(blobs, &key, incoming.start).await?;
        let mut sink = Sink::new(self.uploads.clone(), key, partial, window)?;
        while let Some(request) = incoming.next().await? {
            sink.write(request.data).await?;
            if request.finish_write {
                incoming.expect_end().await?;
                sink.commit().await?;
                return Ok(answer(compressed, &digest, &incoming));
            }
        }
        if sink.committed() < digest.size {
            return Ok(sink.committed() as i64);
        }
        // All bytes came, only the flag did not: a client that takes the committed size for a
        // success is right.
        sink.commit().await?;
        Ok(answer(compressed, &digest, &incoming))
    }

    /// A new upload, or the one that broke off at `offset`.
    async fn begin(
        &self,
        blobs: &SharedBlobStore,
        key: &UploadKey,
        offset: i64,
    ) -> Result<Partial, Status> {
        if offset == 0 {
            // Frees the room that this upload itself had set aside before.
            drop(self.uploads.take(key, Instant::now()));
            let writer = blobs.writer(&key.digest).await;
            let writer = writer.map_err(|error| store_status("resource_name", &error))?;
            return Ok(Partial { writer, committed: 0 });
        }
        let taken = self.uploads.take_at(key, offset.unsigned_abs(), Instant::now());
        taken.map_err(|committed| {
            Status::invalid_argument(format!(
                "write_offset: {offset} is wrong, {committed} bytes of this upload are here; \
                 ask QueryWriteStatus where to go on, or start again at 0"
            ))
        })
    }

    async fn is_present(&self, digest: &Digest) -> Result<bool, Status> {
        let missing = self.blobs.find_missing(std::slice::from_ref(digest)).await;
        Ok(missing.map_err(|error| store_status("resource_name", &error))?.is_empty())
    }

    async fn write_log(
        &self,
        name: &str,
        token: &str,
        mut incoming: Incoming<impl RequestBody>,
    ) -> Result<i64, Status> {
        let size = self.log_size(name, token)?;
        if incoming.start < 0 || incoming.start as u64 > size {
            return Err(Status::invalid_argument(format!(
                "write_offset: {} is wrong, the log has {size} bytes",
                incoming.start
            )));
        }
        while let Some(request) = incoming.next().await? {
            self.logs.append(name, request.write_offset as u64, &request.data);
            if request.finish_write {
                incoming.expect_end().await?;
                self.logs.finish(name);
                break;
            }
        }
        Ok(incoming.offset)
    }

    fn log_size(&self, name: &str, token: &str) -> Result<u64, Status> {
        if !self.tokens.is_valid(name, token) {
            return Err(Status::permission_denied(
                "resource_name: it is not the write_resource_name that CreateLogStream returned",
            ));
        }
        let status = self.logs.status(name);
        status.map(|(size, _)| size).ok_or_else(|| {
            Status::not_found(format!("resource_name: there is no log {name:?} (any more)"))
        })
    }

    pub(super) async fn query(
        &self,
        caller: &Extensions,
        body: impl RequestBody,
    ) -> Result<Response<Body>, Status> {
        let (request, _charge): (QueryWriteStatusRequest, _) =
            decode_single(caller, body, "QueryWriteStatusRequest", MAX_MESSAGE).await?;
        let name = parse_write(request.resource_name.as_bytes()).map_err(|e| malformed(&e))?;
        self.guard.check(caller, Right::WriteBlobs, name.instance())?;
        let (committed, complete) = match name {
            WriteName::Log { name, token } => {
                let size = self.log_size(name, token)?;
                (size, self.logs.status(name).is_some_and(|(_, finished)| finished))
            }
            WriteName::Blob { instance, uuid, digest, compression } => {
                if self.is_present(&digest).await? {
                    (digest.size, true)
                } else {
                    let key = UploadKey::new(instance, uuid, digest, compression);
                    (self.uploads.committed(&key, Instant::now()).unwrap_or(0), false)
                }
            }
        };
        let committed_size = committed as i64;
        Ok(reply(Encoded::message(&QueryWriteStatusResponse { committed_size, complete })))
    }
}

/// A small blob in one message: the usual case, without a writer.
async fn write_whole(
    blobs: &SharedBlobStore,
    digest: &Digest,
    compression: Compression,
    incoming: &mut Incoming<impl RequestBody>,
) -> Result<i64, Status> {
    let sent = incoming.take_first().data;
    let committed = sent.len() as i64;
    let data = match compression {
        Compression::Identity => sent,
        Compression::Zstd => decompress(sent, digest.size)
            .map_err(|error| Status::invalid_argument(format!("data: {error}")))?,
    };
    if data.len() as u64 != digest.size {
        let error = StoreError::SizeMismatch { expected: *digest, actual: data.len() as u64 };
        return Err(store_status("data", &error));
    }
    incoming.expect_end().await?;
    blobs.write(digest, data).await.map_err(|error| store_status("data", &error))?;
    Ok(committed)
}

fn request(message: Bytes) -> Result<WriteRequest, Status> {
    let size = message.len();
    let mut request = WriteRequest::decode(message).map_err(|error| {
        Status::invalid_argument(format!("{NAME} is not a valid message: {error}"))
    })?;
    // Data that waits to be written keeps its whole message, and only the largest one of a call is charged.
    if size > LARGE && request.data.len() < size / 2 {
        request.data = Bytes::copy_from_slice(&request.data);
    }
    Ok(request)
}

/// `committed_size` of a finished upload: all bytes, counted as the client counts its offsets.
fn answer<B>(compressed: bool, digest: &Digest, incoming: &Incoming<B>) -> i64 {
    if compressed { incoming.offset } else { digest.size as i64 }
}

fn malformed(error: &NameError) -> Status {
    Status::invalid_argument(error.to_string())
}

/// The requests of one Write call, checked against each other.
struct Incoming<B> {
    messages: Messages<B>,
    first: Option<WriteRequest>,
    name: Bytes,
    /// `write_offset` of the first request.
    start: i64,
    /// Where the next request has to begin.
    offset: i64,
}

impl<B: RequestBody> Incoming<B> {
    async fn start(caller: &Extensions, body: B) -> Result<Self, Status> {
        let charge = Charge::of(caller);
        let mut messages = Messages::new(body, NAME, MAX_STREAM_MESSAGE, charge);
        let Some(message) = messages.next().await? else {
            return Err(Status::invalid_argument("WriteRequest: no message came"));
        };
        let first = request(message)?;
        let (name, start) = (first.resource_name.clone(), first.write_offset);
        if start < 0 {
            return Err(Status::invalid_argument(format!("write_offset: {start} is negative")));
        }
        Ok(Self { messages, first: Some(first), name, start, offset: start })
    }

    /// The first request is the whole upload.
    fn is_whole(&self) -> bool {
        self.start == 0 && self.first.as_ref().is_some_and(|first| first.finish_write)
    }

    /// What decompressing the data needs, as its beginning says; the most where it does not.
    fn window(&self) -> u64 {
        let said = self.first.as_ref().and_then(|first| window_of(&first.data));
        said.unwrap_or(MAX_WINDOW).max(USUAL_WINDOW)
    }

    fn take_first(&mut self) -> WriteRequest {
        self.first.take().unwrap_or_default()
    }

    async fn next(&mut self) -> Result<Option<WriteRequest>, Status> {
        let request = match self.first.take() {
            Some(first) => first,
            None => match self.messages.next().await? {
                Some(message) => request(message)?,
                None => return Ok(None),
            },
        };
        if request.write_offset != self.offset {
            return Err(Status::invalid_argument(format!(
                "write_offset: {} is wrong, {} was expected: the first offset and the bytes of \
                 data sent since",
                request.write_offset, self.offset
            )));
        }
        if !request.resource_name.is_empty() && request.resource_name != self.name {
            return Err(Status::invalid_argument(
                "resource_name: it differs from that of the first request of this call",
            ));
        }
        self.offset = self.offset.saturating_add(request.data.len() as i64);
        Ok(Some(request))
    }

    async fn expect_end(&mut self) -> Result<(), Status> {
        match self.messages.next().await? {
            None => Ok(()),
            Some(_) => Err(Status::invalid_argument(
                "finish_write: another request came after one that had set it",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_data_does_not_keep_a_large_message() {
        for (name, is_kept) in [(100, true), (50_000, false)] {
            let (resource_name, data) = (vec![b'n'; name].into(), vec![7_u8; 1_000].into());
            let sent = WriteRequest { resource_name, data, ..WriteRequest::default() };
            let message = Bytes::from(sent.encode_to_vec());
            let data = request(message.clone()).unwrap().data;
            assert_eq!(data, sent.data);
            assert_eq!(message.is_unique(), !is_kept, "{name} other bytes");
        }
    }
}
