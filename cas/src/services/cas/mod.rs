//! The ContentAddressableStorage service.

mod batches;
mod chunks;

use std::sync::Arc;

use http::{Extensions, Request, Response};
use kiln_protos::reapi;
use tonic::Status;
use tonic::body::Body;

use super::chunking::Chunking;
use super::fields::{function, wire_digest};
use super::get_tree;
use super::guard::Guard;
use super::quotas::Quotas;
use super::rpc::{
    Handler, MAX_BATCH_MESSAGE, MAX_MESSAGE, add, decode_single, method_of, reply, reply_stream,
    single, unknown_method,
};
use super::status::store_status;
use super::wire::{Encoded, RequestBody, decode_find_missing, encode_missing};
use crate::access::Right;
use crate::blob::SharedBlobStore;
use crate::records::SharedRecords;

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
}
