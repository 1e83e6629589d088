//! The ContentAddressableStorage service.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Extensions, Request, Response};
use kiln_protos::{reapi, rpc};
use tonic::Status;
use tonic::body::Body;

use super::capabilities::MAX_BATCH_TOTAL;
use super::chunking::Chunking;
use super::compression::{compress, decompress};
use super::get_tree;
use super::guard::Guard;
use super::rpc::{
    Handler, MAX_BATCH_MESSAGE, MAX_MESSAGE, decode, decode_single, method_of, reply, reply_stream,
    single, unknown_method,
};
use super::status::{digest_status, inner_status, store_status};
use super::wire::{self, Encoded, Messages, RequestBody, decode_find_missing, encode_missing};
use crate::access::Right;
use crate::blob::SharedBlobStore;
use crate::digest::{Digest, DigestError, DigestFunction};
use crate::error::StoreError;

/// Blobs of one batch that are read or written at a time.
const BATCH_CONCURRENCY: usize = 32;
/// Blobs below this size are not worth compressing.
const MIN_COMPRESSED: usize = 256;

const IDENTITY: i32 = reapi::compressor::Value::Identity as i32;
const ZSTD: i32 = reapi::compressor::Value::Zstd as i32;

pub struct Cas {
    pub guard: Guard,
    pub blobs: SharedBlobStore,
    pub chunking: Chunking,
    /// Bytes; 0: no limit.
    pub max_blob_size: u64,
}

impl Handler for Cas {
    const NAME: &'static str = "build.bazel.remote.execution.v2.ContentAddressableStorage";

    async fn handle<B: RequestBody>(
        self: Arc<Self>,
        request: Request<B>,
    ) -> Result<Response<Body>, Status> {
        let (parts, body) = request.into_parts();
        let caller = parts.extensions;
        match method_of(&parts.uri) {
            "FindMissingBlobs" => self.find_missing(&caller, body).await,
            "BatchUpdateBlobs" => Box::pin(self.batch_update(&caller, body)).await,
            "BatchReadBlobs" => Box::pin(self.batch_read(&caller, body)).await,
            "GetTree" => Box::pin(self.get_tree(&caller, body)).await,
            "SplitBlob" => Box::pin(self.split(&caller, body)).await,
            "SpliceBlob" => Box::pin(self.splice(&caller, body)).await,
            "GetChunkMapping" => Box::pin(self.get_mapping(&caller, body)).await,
            "RegisterChunkMapping" => Box::pin(self.register_mapping(&caller, body)).await,
            other => Err(unknown_method(Self::NAME, other)),
        }
    }
}

impl Cas {
    async fn find_missing(
        &self,
        caller: &Extensions,
        body: impl RequestBody,
    ) -> Result<Response<Body>, Status> {
        let message = single(body, "FindMissingBlobsRequest", MAX_BATCH_MESSAGE).await?;
        let asked = decode_find_missing(&message)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        self.guard.check_bytes(caller, Right::Read, &asked.instance)?;
        let missing = self
            .blobs
            .find_missing(&asked.digests)
            .await
            .map_err(|error| store_status("blob_digests", &error))?;
        Ok(reply(Encoded::whole(encode_missing(&missing).into())))
    }

    async fn batch_update(
        &self,
        caller: &Extensions,
        body: impl RequestBody,
    ) -> Result<Response<Body>, Status> {
        const NAME: &str = "BatchUpdateBlobsRequest";
        let message = single(body, NAME, MAX_BATCH_MESSAGE).await?;
        let batch: wire::BatchUpdateBlobsRequest = decode(NAME, message)?;
        self.guard.check_bytes(caller, Right::WriteBlobs, &batch.instance_name)?;
        let function = function(batch.digest_function)?;
        let responses = futures_util::stream::iter(batch.requests.into_iter().enumerate())
            .map(|(i, request)| async move {
                let digest = request.digest.clone();
                let status = match self.update_one(i, request, function).await {
                    Ok(()) => rpc::Status::default(),
                    Err(status) => inner_status(&status),
                };
                wire::BlobUpdated { digest, status: Some(status) }
            })
            .buffered(BATCH_CONCURRENCY)
            .collect()
            .await;
        Ok(reply(Encoded::message(&wire::BatchUpdateBlobsResponse { responses })))
    }

    async fn update_one(
        &self,
        i: usize,
        request: wire::UpdateBlob,
        function: DigestFunction,
    ) -> Result<(), Status> {
        let digest = parse_digest(|| format!("requests[{i}].digest"), &request.digest, function)?;
        check_size(|| format!("requests[{i}].digest"), &digest, self.max_blob_size)?;
        let data = match request.compressor {
            IDENTITY => request.data,
            ZSTD => decompress(request.data, digest.size).map_err(|error| {
                Status::invalid_argument(format!("requests[{i}].data: {error}"))
            })?,
            other => return Err(unknown_compressor(&format!("requests[{i}].compressor"), other)),
        };
        if data.len() as u64 != digest.size {
            let error = StoreError::SizeMismatch { expected: digest, actual: data.len() as u64 };
            return Err(store_status(&format!("requests[{i}].data"), &error));
        }
        self.blobs
            .write(&digest, data)
            .await
            .map_err(|error| store_status(&format!("requests[{i}].data"), &error))
    }

    async fn batch_read(
        &self,
        caller: &Extensions,
        body: impl RequestBody,
    ) -> Result<Response<Body>, Status> {
        const NAME: &str = "BatchReadBlobsRequest";
        let message = single(body, NAME, MAX_BATCH_MESSAGE).await?;
        let batch: wire::BatchReadBlobsRequest = decode(NAME, message)?;
        self.guard.check_bytes(caller, Right::Read, &batch.instance_name)?;
        let function = function(batch.digest_function)?;
        check_total(&batch.digests)?;
        let zstd = batch.acceptable_compressors.contains(&ZSTD);
        let responses = futures_util::stream::iter(batch.digests.into_iter().enumerate())
            .map(|(i, digest)| async move {
                let read = self.read_one(i, &digest, function, zstd).await;
                let (data, compressor, status) = match read {
                    Ok((data, compressor)) => (data, compressor, rpc::Status::default()),
                    Err(status) => (Bytes::new(), IDENTITY, inner_status(&status)),
                };
                wire::BlobRead { digest: Some(digest), data, status: Some(status), compressor }
            })
            .buffered(BATCH_CONCURRENCY)
            .collect()
            .await;
        Ok(reply(Encoded::message(&wire::BatchReadBlobsResponse { responses })))
    }

    async fn read_one(
        &self,
        i: usize,
        digest: &wire::Digest,
        function: DigestFunction,
        zstd: bool,
    ) -> Result<(Bytes, i32), Status> {
        let digest = digest
            .parse(function)
            .map_err(|error| digest_status(&format!("digests[{i}]"), &error))?;
        let refuse = |error| store_status(&format!("digests[{i}]"), &error);
        let blob = self.blobs.read(&digest, 0, None).await.map_err(refuse)?;
        let data = blob.collect(MAX_BATCH_TOTAL).await.map_err(refuse)?;
        if zstd && data.len() >= MIN_COMPRESSED {
            let compressed = compress(&data).map_err(refuse)?;
            if compressed.len() < data.len() {
                return Ok((compressed, ZSTD));
            }
        }
        Ok((data, IDENTITY))
    }

    async fn get_tree(
        &self,
        caller: &Extensions,
        body: impl RequestBody,
    ) -> Result<Response<Body>, Status> {
        let request: reapi::GetTreeRequest =
            decode_single(body, "GetTreeRequest", MAX_MESSAGE).await?;
        self.guard.check(caller, Right::Read, &request.instance_name)?;
        let function = function(request.digest_function)?;
        let root = wire_digest("root_digest", &request.root_digest, function)?;
        let walk = get_tree::Walk::start(&self.blobs, root, &request).await?;
        Ok(reply_stream(Box::pin(walk.pages())))
    }

    async fn split(
        &self,
        caller: &Extensions,
        body: impl RequestBody,
    ) -> Result<Response<Body>, Status> {
        let request: reapi::SplitBlobRequest =
            decode_single(body, "SplitBlobRequest", MAX_MESSAGE).await?;
        self.guard.check(caller, Right::Read, &request.instance_name)?;
        let function = function(request.digest_function)?;
        let blob = wire_digest("blob_digest", &request.blob_digest, function)?;
        let mapping = self.chunking.split(&blob).await?;
        Ok(reply(Encoded::message(&mapping.into_split_response()?)))
    }

    async fn get_mapping(
        &self,
        caller: &Extensions,
        body: impl RequestBody,
    ) -> Result<Response<Body>, Status> {
        let request: reapi::GetChunkMappingRequest =
            decode_single(body, "GetChunkMappingRequest", MAX_MESSAGE).await?;
        self.guard.check(caller, Right::Read, &request.instance_name)?;
        let function = function(request.digest_function)?;
        let blob = wire_digest("blob_digest", &request.blob_digest, function)?;
        let mapping = self.chunking.split(&blob).await?;
        let pages = mapping.into_pages().map(|page| Ok(Encoded::message(&page)));
        Ok(reply_stream(futures_util::stream::iter(pages)))
    }

    async fn splice(
        &self,
        caller: &Extensions,
        body: impl RequestBody,
    ) -> Result<Response<Body>, Status> {
        let request: reapi::SpliceBlobRequest =
            decode_single(body, "SpliceBlobRequest", MAX_BATCH_MESSAGE).await?;
        self.guard.check(caller, Right::WriteBlobs, &request.instance_name)?;
        let function = function(request.digest_function)?;
        let blob = wire_digest("blob_digest", &request.blob_digest, function)?;
        check_size(|| "blob_digest".into(), &blob, self.max_blob_size)?;
        let chunks = wire_digests("chunk_digests", 0, &request.chunk_digests, function)?;
        self.chunking.splice(&blob, chunks, request.chunking_function).await?;
        let response = reapi::SpliceBlobResponse { blob_digest: Some(blob.to_wire()) };
        Ok(reply(Encoded::message(&response)))
    }

    async fn register_mapping(
        &self,
        caller: &Extensions,
        body: impl RequestBody,
    ) -> Result<Response<Body>, Status> {
        const NAME: &str = "RegisterChunkMappingRequest";
        let mut messages = Messages::new(body, NAME, MAX_BATCH_MESSAGE);
        let first = messages
            .next()
            .await?
            .ok_or_else(|| Status::invalid_argument(format!("{NAME}: no message came")))?;
        let first: reapi::RegisterChunkMappingRequest = decode(NAME, first)?;
        self.guard.check(caller, Right::WriteBlobs, &first.instance_name)?;
        let function = function(first.digest_function)?;
        let blob = wire_digest("blob_digest", &first.blob_digest, function)?;
        check_size(|| "blob_digest".into(), &blob, self.max_blob_size)?;
        let mut chunks = wire_digests("chunk_digests", 0, &first.chunk_digests, function)?;
        while let Some(message) = messages.next().await? {
            let more: reapi::RegisterChunkMappingRequest = decode(NAME, message)?;
            let more = wire_digests("chunk_digests", chunks.len(), &more.chunk_digests, function)?;
            chunks.extend(more);
            Chunking::check_count(chunks.len())?;
        }
        self.chunking.splice(&blob, chunks, first.chunking_function).await?;
        let response = reapi::RegisterChunkMappingResponse { blob_digest: Some(blob.to_wire()) };
        Ok(reply(Encoded::message(&response)))
    }
}

pub fn function(value: i32) -> Result<DigestFunction, Status> {
    DigestFunction::from_wire(value).map_err(|error| digest_status("digest_function", &error))
}

/// A digest that must be set.
pub fn wire_digest(
    field: &str,
    digest: &Option<reapi::Digest>,
    function: DigestFunction,
) -> Result<Digest, Status> {
    digest
        .as_ref()
        .ok_or(DigestError::Absent)
        .and_then(|digest| Digest::from_wire(digest, function))
        .map_err(|error| digest_status(field, &error))
}

fn wire_digests(
    field: &str,
    first: usize,
    digests: &[reapi::Digest],
    function: DigestFunction,
) -> Result<Vec<Digest>, Status> {
    let parse = |(i, digest)| {
        Digest::from_wire(digest, function)
            .map_err(|error| digest_status(&format!("{field}[{}]", first + i), &error))
    };
    digests.iter().enumerate().map(parse).collect()
}

fn parse_digest(
    field: impl Fn() -> String,
    digest: &Option<wire::Digest>,
    function: DigestFunction,
) -> Result<Digest, Status> {
    digest
        .as_ref()
        .ok_or(DigestError::Absent)
        .and_then(|digest| digest.parse(function))
        .map_err(|error| digest_status(&field(), &error))
}

/// `limit`: bytes; 0 means none.
pub fn check_size(field: impl Fn() -> String, digest: &Digest, limit: u64) -> Result<(), Status> {
    if limit == 0 || digest.size <= limit {
        return Ok(());
    }
    Err(Status::invalid_argument(format!(
        "{}: a blob of {} bytes is over max_cas_blob_size_bytes ({limit})",
        field(),
        digest.size
    )))
}

fn check_total(digests: &[wire::Digest]) -> Result<(), Status> {
    let sizes = digests.iter().map(|digest| u64::try_from(digest.size_bytes).unwrap_or(0));
    let total = sizes.fold(0, u64::saturating_add);
    if total <= MAX_BATCH_TOTAL {
        return Ok(());
    }
    Err(Status::invalid_argument(format!(
        "digests: {total} bytes in all are over max_batch_total_size_bytes ({MAX_BATCH_TOTAL}); \
         read large blobs with ByteStream.Read"
    )))
}

fn unknown_compressor(field: &str, value: i32) -> Status {
    Status::invalid_argument(format!(
        "{field}: compressor number {value} is not supported; IDENTITY and ZSTD are"
    ))
}
