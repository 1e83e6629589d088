//! ByteStream.Read

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Extensions, Response};
use tonic::Status;
use tonic::body::Body;

use super::ByteStream;
use crate::access::Right;
use crate::blob::{Blob, BlobStream, MAX_WHOLE_BLOB};
use crate::budget::Charge;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::services::compression::{compress, compressed_stream};
use crate::services::off_thread::off_thread;
use crate::services::resource::{Compression, ReadName, parse_read};
use crate::services::rpc::{MAX_MESSAGE, add, decode_single, reply, reply_stream};
use crate::services::status::store_status;
use crate::services::wire::{Encoded, ReadRequest, RequestBody, put_varint};

/// Most bytes of a blob in one message: below the 4 MiB that clients take by default.
const MAX_DATA: usize = MAX_WHOLE_BLOB as usize;
/// Bytes of a blob that a read holds at a time: what the client has not taken yet.
const IN_FLIGHT: u64 = MAX_WHOLE_BLOB;
/// Tag of `ReadResponse.data`.
const DATA: u8 = 0x52;

impl ByteStream {
    pub(super) async fn read(
        &self,
        caller: &Extensions,
        body: impl RequestBody,
    ) -> Result<Response<Body>, Status> {
        let (request, charge): (ReadRequest, _) =
            decode_single(caller, body, "ReadRequest", MAX_MESSAGE).await?;
        let name = parse_read(&request.resource_name)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        self.guard.check(caller, Right::Read, name.instance())?;
        let offset = u64::try_from(request.read_offset).map_err(|_| {
            Status::out_of_range(format!("read_offset: {} is negative", request.read_offset))
        })?;
        let limit = u64::try_from(request.read_limit).map_err(|_| {
            Status::invalid_argument(format!("read_limit: {} is negative", request.read_limit))
        })?;
        let limit = (limit > 0).then_some(limit);
        match name {
            ReadName::Blob { digest, compression: Compression::Identity, .. } => {
                self.read_plain(&digest, offset, limit, charge).await
            }
            ReadName::Blob { digest, compression: Compression::Zstd, .. } => {
                Box::pin(self.read_zstd(&digest, offset, limit, charge)).await
            }
            ReadName::Log(name) => self.read_log(name, offset, limit).await,
        }
    }

    async fn read_plain(
        &self,
        digest: &Digest,
        offset: u64,
        limit: Option<u64>,
        mut charge: Charge,
    ) -> Result<Response<Body>, Status> {
        add(&mut charge, digest.size.min(IN_FLIGHT)).await?;
        match self.blobs.read(digest, offset, limit).await.map_err(|e| refuse(&e))? {
            Blob::Whole(data) if data.len() <= MAX_DATA => {
                Ok(reply(response(data).charged(charge)))
            }
            blob => Ok(reply_stream(messages(blob.into_stream(), charge))),
        }
    }

    async fn read_zstd(
        &self,
        digest: &Digest,
        offset: u64,
        limit: Option<u64>,
        mut charge: Charge,
    ) -> Result<Response<Body>, Status> {
        add(&mut charge, digest.size.min(IN_FLIGHT)).await?;
        if limit.is_some() {
            return Err(Status::invalid_argument(
                "read_limit: it must be 0 where resource_name asks for compressed data",
            ));
        }
        match self.blobs.read(digest, offset, None).await.map_err(|e| refuse(&e))? {
            Blob::Whole(data) if data.len() <= MAX_DATA => {
                let compressed = off_thread(digest.size, move || compress(&data)).await?;
                Ok(reply(response(compressed.map_err(|e| refuse(&e))?).charged(charge)))
            }
            blob => {
                let stream = compressed_stream(blob).map_err(|e| refuse(&e))?;
                Ok(reply_stream(messages(stream, charge)))
            }
        }
    }

    async fn read_log(
        &self,
        name: &str,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<Response<Body>, Status> {
        let stream =
            self.logs.read(name, offset).await.map_err(|e| refuse(&e))?.ok_or_else(|| {
                Status::not_found(format!("resource_name: there is no log {name:?} (any more)"))
            })?;
        Ok(reply_stream(messages(limited(stream, limit), Charge::default())))
    }
}

fn refuse(error: &StoreError) -> Status {
    let field = match error {
        StoreError::OutOfRange { .. } => "read_offset",
        _ => "resource_name",
    };
    store_status(field, error)
}

fn response(data: Bytes) -> Encoded {
    let mut head = Vec::with_capacity(6);
    head.push(DATA);
    put_varint(&mut head, data.len() as u64);
    Encoded::new(&head, data)
}

type Pieces = std::pin::Pin<Box<dyn futures_util::Stream<Item = Result<Encoded, Status>> + Send>>;

/// Chunks as messages; chunks that are too large for one are cut. `charge` is kept to the end.
fn messages(stream: BlobStream, charge: Charge) -> Pieces {
    let state = (stream, Bytes::new(), charge);
    Box::pin(futures_util::stream::try_unfold(state, |(mut stream, mut rest, charge)| async move {
        while rest.is_empty() {
            match stream.next().await {
                None => return Ok(None),
                Some(chunk) => rest = chunk.map_err(|error| refuse(&error))?,
            }
        }
        let piece = rest.split_to(rest.len().min(MAX_DATA));
        Ok(Some((response(piece), (stream, rest, charge))))
    }))
}

fn limited(stream: BlobStream, limit: Option<u64>) -> BlobStream {
    let Some(limit) = limit else { return stream };
    Box::pin(futures_util::stream::unfold((stream, limit), |(mut stream, left)| async move {
        if left == 0 {
            return None;
        }
        let chunk = stream.next().await?.map(|mut chunk| {
            chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            chunk
        });
        let taken = chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        Some((chunk, (stream, left - taken)))
    }))
}
