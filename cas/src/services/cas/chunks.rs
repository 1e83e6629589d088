//! Blobs that are made of chunks: SplitBlob, SpliceBlob and the mappings between both.

use http::{Extensions, Response};
use kiln_protos::reapi;
use tonic::Status;
use tonic::body::Body;

use super::Cas;
use crate::access::Right;
use crate::budget::Charge;
use crate::services::chunking::Chunking;
use crate::services::fields::{check_size, function, wire_digest, wire_digests};
use crate::services::rpc::{
    MAX_BATCH_MESSAGE, MAX_MESSAGE, decode, decode_single, reply, reply_stream,
};
use crate::services::wire::{Encoded, Messages, RequestBody};

impl Cas {
    pub(super) async fn split(
        &self,
        caller: &Extensions,
        body: impl RequestBody,
    ) -> Result<Response<Body>, Status> {
        let (request, mut charge): (reapi::SplitBlobRequest, _) =
            decode_single(caller, body, "SplitBlobRequest", MAX_MESSAGE).await?;
        self.guard.check(caller, Right::Read, &request.instance_name)?;
        let function = function(request.digest_function)?;
        let blob = wire_digest("blob_digest", &request.blob_digest, function)?;
        let chunking = self.chunking(caller, &request.instance_name);
        let mapping = chunking.split(&blob, &mut charge).await?;
        Ok(reply(Encoded::message(&mapping.into_split_response()?).charged(charge)))
    }

    pub(super) async fn get_mapping(
        &self,
        caller: &Extensions,
        body: impl RequestBody,
    ) -> Result<Response<Body>, Status> {
        let (request, mut charge): (reapi::GetChunkMappingRequest, _) =
            decode_single(caller, body, "GetChunkMappingRequest", MAX_MESSAGE).await?;
        self.guard.check(caller, Right::Read, &request.instance_name)?;
        let function = function(request.digest_function)?;
        let blob = wire_digest("blob_digest", &request.blob_digest, function)?;
        let chunking = self.chunking(caller, &request.instance_name);
        let mapping = chunking.split(&blob, &mut charge).await?;
        let pages = mapping.into_pages().map(move |page| {
            // Until the last page is out.
            let _held = &charge;
            Ok(Encoded::message(&page))
        });
        Ok(reply_stream(futures_util::stream::iter(pages)))
    }

    pub(super) async fn splice(
        &self,
        caller: &Extensions,
        body: impl RequestBody,
    ) -> Result<Response<Body>, Status> {
        let (request, mut charge): (reapi::SpliceBlobRequest, _) =
            decode_single(caller, body, "SpliceBlobRequest", MAX_BATCH_MESSAGE).await?;
        self.guard.check(caller, Right::WriteBlobs, &request.instance_name)?;
        let function = function(request.digest_function)?;
        let blob = wire_digest("blob_digest", &request.blob_digest, function)?;
        check_size(|| "blob_digest".into(), &blob, self.max_blob_size)?;
        let chunks = wire_digests("chunk_digests", 0, &request.chunk_digests, function)?;
        let chunking = self.chunking(caller, &request.instance_name);
        chunking.splice(&blob, chunks, request.chunking_function, &mut charge).await?;
        let response = reapi::SpliceBlobResponse { blob_digest: Some(blob.to_wire()) };
        Ok(reply(Encoded::message(&response)))
    }

    pub(super) async fn register_mapping(
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
        chunking.splice(&blob, chunks, first.chunking_function, &mut charge).await?;
        let response = reapi::RegisterChunkMappingResponse { blob_digest: Some(blob.to_wire()) };
        Ok(reply(Encoded::message(&response)))
    }
}
