//! Many small blobs in one call.

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Extensions, Response};
use kiln_protos::{reapi, rpc};
use tonic::Status;
use tonic::body::Body;

use super::Cas;
use crate::access::Right;
use crate::blob::SharedBlobStore;
use crate::digest::{Digest, DigestError, DigestFunction};
use crate::error::StoreError;
use crate::services::capabilities::MAX_BATCH_TOTAL;
use crate::services::compression::{compress, decompress};
use crate::services::fields::{check_size, function};
use crate::services::off_thread::off_thread;
use crate::services::rpc::{MAX_BATCH_MESSAGE, add, decode_single, reply};
use crate::services::status::{digest_status, inner_status, store_status};
use crate::services::wire::{self, Encoded, RequestBody};

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

impl Cas {
    pub(super) async fn batch_update(
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

    pub(super) async fn batch_read(
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
