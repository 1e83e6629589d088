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
use super::off_thread::off_thread;
use super::quotas::Quotas;
use super::rpc::{
    Handler, MAX_BATCH_MESSAGE, MAX_MESSAGE, add, decode, decode_single, method_of, reply,
    reply_stream, single, unknown_method,
};
use super::status::{digest_status, inner_status, store_status};
use super::wire::{self, Encoded, Messages, RequestBody, decode_find_missing, encode_missing};
use crate::access::Right;
use crate::blob::SharedBlobStore;
use crate::budget::Charge;
use crate::digest::{Digest, DigestError, DigestFunction};
use crate::error::StoreError;
use crate::records::SharedRecords;

/// Blobs of one batch that are read or written at a time.
const BATCH_CONCURRENCY: usize = 32;
/// Largest message that clients of gRPC take by default.
const MAX_ANSWER: u64 = 4 << 20;
/// Bytes of one blob in the answer to a batch besides its data: digest, status, tags and lengths.
const BLOB_OVERHEAD: u64 = 96;
/// Blobs below this size are not worth compressing.
const MIN_COMPRESSED: usize = 256;

const IDENTITY: i32 = reapi::compressor::Value::Identity as i32;
const ZSTD: i32 = reapi::compressor::Value::Zstd as i32;

pub struct Cas {
    pub guard: Guard,
    pub blobs: SharedBlobStore,
    pub records: SharedRecords,
    pub quotas: Arc<Quotas>,
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
    /// The store as `caller` may write to it.
    fn written_by(&self, caller: &Extensions, instance: &str) -> SharedBlobStore {
        self.quotas.store(&self.blobs, &self.guard, caller, instance)
    }

    /// Chunks for `caller`: who may only read stores none.
    fn chunking(&self, caller: &Extensions, instance: &str) -> Chunking {
        Chunking {
            blobs: self.written_by(caller, instance),
            records: self.records.clone(),
            may_store: self.guard.0.allows(caller, Right::WriteBlobs, instance),
        }
    }

    async fn find_missing(
        &self,
        caller: &Extensions,
        body: impl RequestBody,
    ) -> Result<Response<Body>, Status> {
        const NAME: &str = "FindMissingBlobsRequest";
        let (message, mut charge) = single(caller, body, NAME, MAX_BATCH_MESSAGE).await?;
        // The digests, and an answer that may name them all.
        add(&mut charge, message.len() as u64 * 2).await?;
        let asked = decode_find_missing(&message)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        self.guard.check_bytes(caller, Right::Read, &asked.instance)?;
        let missing = self
            .blobs
            .find_missing(&asked.digests)
            .await
            .map_err(|error| store_status("blob_digests", &error))?;
        Ok(reply(Encoded::whole(encode_missing(&missing).into()).charged(charge)))
    }

    async fn batch_update(
        &self,
        caller: &Extensions,
        body: impl RequestBody,
    ) -> Result<Response<Body>, Status> {
        const NAME: &str = "BatchUpdateBlobsRequest";
        let (batch, mut charge): (wire::BatchUpdateBlobsRequest, _) =
            decode_single(caller, body, NAME, MAX_BATCH_MESSAGE).await?;
        self.guard.check_bytes(caller, Right::WriteBlobs, &batch.instance_name)?;
        let function = function(batch.digest_function)?;
        add(&mut charge, expanded(&batch.requests)?).await?;
        let instance = std::str::from_utf8(&batch.instance_name).unwrap_or_default();
        let blobs = &self.written_by(caller, instance);
        let responses = futures_util::stream::iter(batch.requests.into_iter().enumerate())
            .map(|(i, request)| async move {
                let digest = request.digest.clone();
                let status = match self.update_one(blobs, i, request, function).await {
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
        blobs: &SharedBlobStore,
        i: usize,
        request: wire::UpdateBlob,
        function: DigestFunction,
    ) -> Result<(), Status> {
        let digest = parse_digest(|| format!("requests[{i}].digest"), &request.digest, function)?;
        check_size(|| format!("requests[{i}].digest"), &digest, self.max_blob_size)?;
        let data = match request.compressor {
            IDENTITY => request.data,
            ZSTD => {
                let data = off_thread(digest.size, move || decompress(request.data, digest.size));
                data.await?.map_err(|error| {
                    Status::invalid_argument(format!("requests[{i}].data: {error}"))
                })?
            }
            other => return Err(unknown_compressor(&format!("requests[{i}].compressor"), other)),
        };
        if data.len() as u64 != digest.size {
            let error = StoreError::SizeMismatch { expected: digest, actual: data.len() as u64 };
            return Err(store_status(&format!("requests[{i}].data"), &error));
        }
        blobs
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
        let (batch, mut charge): (wire::BatchReadBlobsRequest, _) =
            decode_single(caller, body, NAME, MAX_BATCH_MESSAGE).await?;
        self.guard.check_bytes(caller, Right::Read, &batch.instance_name)?;
        let function = function(batch.digest_function)?;
        // Once as blobs, once as the message that they go out in.
        add(&mut charge, check_total(&batch.digests)? * 2).await?;
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
        Ok(reply(Encoded::message(&wire::BatchReadBlobsResponse { responses }).charged(charge)))
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
            let raw = data.clone();
            let compressed = off_thread(digest.size, move || compress(&raw)).await?;
            let compressed = compressed.map_err(refuse)?;
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
        let (request, charge): (reapi::GetTreeRequest, _) =
            decode_single(caller, body, "GetTreeRequest", MAX_MESSAGE).await?;
        self.guard.check(caller, Right::Read, &request.instance_name)?;
        let function = function(request.digest_function)?;
        let root = wire_digest("root_digest", &request.root_digest, function)?;
        let walk = get_tree::Walk::start(&self.blobs, root, &request, charge).await?;
        Ok(reply_stream(Box::pin(walk.pages())))
    }

    async fn split(
        &self,
        caller: &Extensions,
        body: impl RequestBody,
    ) -> Result<Response<Body>, Status> {
        let (request, _charge): (reapi::SplitBlobRequest, _) =
            decode_single(caller, body, "SplitBlobRequest", MAX_MESSAGE).await?;
        self.guard.check(caller, Right::Read, &request.instance_name)?;
        let function = function(request.digest_function)?;
        let blob = wire_digest("blob_digest", &request.blob_digest, function)?;
        let mapping = self.chunking(caller, &request.instance_name).split(&blob).await?;
        Ok(reply(Encoded::message(&mapping.into_split_response()?)))
    }

    async fn get_mapping(
        &self,
        caller: &Extensions,
        body: impl RequestBody,
    ) -> Result<Response<Body>, Status> {
        let (request, _charge): (reapi::GetChunkMappingRequest, _) =
            decode_single(caller, body, "GetChunkMappingRequest", MAX_MESSAGE).await?;
        self.guard.check(caller, Right::Read, &request.instance_name)?;
        let function = function(request.digest_function)?;
        let blob = wire_digest("blob_digest", &request.blob_digest, function)?;
        let mapping = self.chunking(caller, &request.instance_name).split(&blob).await?;
        let pages = mapping.into_pages().map(|page| Ok(Encoded::message(&page)));
        Ok(reply_stream(futures_util::stream::iter(pages)))
    }

    async fn splice(
        &self,
        caller: &Extensions,
        body: impl RequestBody,
    ) -> Result<Response<Body>, Status> {
        let (request, _charge): (reapi::SpliceBlobRequest, _) =
            decode_single(caller, body, "SpliceBlobRequest", MAX_BATCH_MESSAGE).await?;
        self.guard.check(caller, Right::WriteBlobs, &request.instance_name)?;
        let function = function(request.digest_function)?;
        let blob = wire_digest("blob_digest", &request.blob_digest, function)?;
        check_size(|| "blob_digest".into(), &blob, self.max_blob_size)?;
        let chunks = wire_digests("chunk_digests", 0, &request.chunk_digests, function)?;
        let chunking = self.chunking(caller, &request.instance_name);
        chunking.splice(&blob, chunks, request.chunking_function).await?;
        let response = reapi::SpliceBlobResponse { blob_digest: Some(blob.to_wire()) };
        Ok(reply(Encoded::message(&response)))
    }

    async fn register_mapping(
        &self,
        caller: &Extensions,
        body: impl RequestBody,
    ) -> Result<Response<Body>, Status> {
        const NAME: &str = "RegisterChunkMappingRequest";
        let mut messages = Messages::new(body, NAME, MAX_BATCH_MESSAGE, Charge::of(caller));
        let mut charge = Charge::of(caller);
        let first = messages
            .next()
            .await?
            .ok_or_else(|| Status::invalid_argument(format!("{NAME}: no message came")))?;
        let first: reapi::RegisterChunkMappingRequest = decode(NAME, first, &mut charge).await?;
        self.guard.check(caller, Right::WriteBlobs, &first.instance_name)?;
        let function = function(first.digest_function)?;
        let blob = wire_digest("blob_digest", &first.blob_digest, function)?;
        check_size(|| "blob_digest".into(), &blob, self.max_blob_size)?;
        let mut chunks = wire_digests("chunk_digests", 0, &first.chunk_digests, function)?;
        while let Some(message) = messages.next().await? {
            let more: reapi::RegisterChunkMappingRequest =
                decode(NAME, message, &mut charge).await?;
            let more = wire_digests("chunk_digests", chunks.len(), &more.chunk_digests, function)?;
            chunks.extend(more);
            Chunking::check_count(chunks.len())?;
        }
        let chunking = self.chunking(caller, &first.instance_name);
        chunking.splice(&blob, chunks, first.chunking_function).await?;
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

/// Bytes of the blobs of a batch that is read. Errors: they do not fit into one answer, which
/// says the digest and a status of each besides.
fn check_total(digests: &[wire::Digest]) -> Result<u64, Status> {
    let sizes = digests.iter().map(|digest| u64::try_from(digest.size_bytes).unwrap_or(0));
    let total = sizes.fold(0, u64::saturating_add);
    let overhead = digests.len() as u64 * BLOB_OVERHEAD;
    if total <= MAX_BATCH_TOTAL && total + overhead <= MAX_ANSWER {
        return Ok(total + overhead);
    }
    if total <= MAX_BATCH_TOTAL {
        return Err(Status::invalid_argument(format!(
            "digests: an answer with {} blobs of {total} bytes in all is more than the \
             {MAX_ANSWER} bytes that clients take in one message; ask for fewer at a time",
            digests.len()
        )));
    }
    Err(Status::invalid_argument(format!(
        "digests: {total} bytes in all are over max_batch_total_size_bytes ({MAX_BATCH_TOTAL}); \
         read large blobs with ByteStream.Read"
    )))
}

/// Bytes that the compressed blobs of a batch come to, as their digests say. What is compressed
/// may not hold more than what is not.
fn expanded(requests: &[wire::UpdateBlob]) -> Result<u64, Status> {
    let compressed = requests.iter().filter(|request| request.compressor == ZSTD);
    let sizes = compressed.filter_map(|request| request.digest.as_ref());
    let sizes = sizes.map(|digest| u64::try_from(digest.size_bytes).unwrap_or(0));
    let total = sizes.fold(0, u64::saturating_add);
    if total <= MAX_BATCH_MESSAGE as u64 {
        return Ok(total);
    }
    Err(Status::invalid_argument(format!(
        "requests: the compressed blobs come to {total} bytes, and a batch may hold \
         {MAX_BATCH_MESSAGE} (max_batch_total_size_bytes is {MAX_BATCH_TOTAL}); write large blobs \
         with ByteStream.Write"
    )))
}

fn unknown_compressor(field: &str, value: i32) -> Status {
    Status::invalid_argument(format!(
        "{field}: compressor number {value} is not supported; IDENTITY and ZSTD are"
    ))
}
