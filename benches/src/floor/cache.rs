//! Action cache and CAS with constant answers.

use std::sync::Arc;

use kiln_protos::reapi;
use kiln_protos::reapi::action_cache_server::ActionCache;
use kiln_protos::reapi::content_addressable_storage_server::ContentAddressableStorage;
use kiln_protos::rpc;
use tonic::{Request, Response, Status};

use crate::sample::{self, MISS_MARK, Pattern, SMALL};

type Reply<T> = Result<Response<T>, Status>;
type NoStream<T> = futures_util::stream::Empty<Result<T, Status>>;

#[derive(Clone)]
pub struct Cache {
    result: Arc<reapi::ActionResult>,
}

impl Cache {
    pub fn new() -> Self {
        Self { result: Arc::new(sample::action_result(&Pattern::new(SMALL))) }
    }
}

#[tonic::async_trait]
impl ActionCache for Cache {
    async fn get_action_result(
        &self,
        request: Request<reapi::GetActionResultRequest>,
    ) -> Reply<reapi::ActionResult> {
        match &request.get_ref().action_digest {
            Some(digest) if digest.hash.starts_with(MISS_MARK) => {
                Err(Status::not_found("no such action result"))
            }
            Some(_) => Ok(Response::new((*self.result).clone())),
            None => Err(Status::invalid_argument("action_digest is missing")),
        }
    }

    async fn update_action_result(
        &self,
        request: Request<reapi::UpdateActionResultRequest>,
    ) -> Reply<reapi::ActionResult> {
        Ok(Response::new(request.into_inner().action_result.unwrap_or_default()))
    }
}

#[tonic::async_trait]
impl ContentAddressableStorage for Cache {
    async fn find_missing_blobs(
        &self,
        _: Request<reapi::FindMissingBlobsRequest>,
    ) -> Reply<reapi::FindMissingBlobsResponse> {
        Ok(Response::new(reapi::FindMissingBlobsResponse::default()))
    }

    async fn batch_update_blobs(
        &self,
        request: Request<reapi::BatchUpdateBlobsRequest>,
    ) -> Reply<reapi::BatchUpdateBlobsResponse> {
        let responses = request
            .into_inner()
            .requests
            .into_iter()
            .map(|blob| reapi::batch_update_blobs_response::Response {
                digest: blob.digest,
                status: Some(rpc::Status::default()),
            })
            .collect();
        Ok(Response::new(reapi::BatchUpdateBlobsResponse { responses }))
    }

    async fn batch_read_blobs(
        &self,
        _: Request<reapi::BatchReadBlobsRequest>,
    ) -> Reply<reapi::BatchReadBlobsResponse> {
        Err(unmeasured())
    }

    type GetTreeStream = NoStream<reapi::GetTreeResponse>;

    async fn get_tree(&self, _: Request<reapi::GetTreeRequest>) -> Reply<Self::GetTreeStream> {
        Err(unmeasured())
    }

    async fn split_blob(
        &self,
        _: Request<reapi::SplitBlobRequest>,
    ) -> Reply<reapi::SplitBlobResponse> {
        Err(unmeasured())
    }

    type GetChunkMappingStream = NoStream<reapi::GetChunkMappingResponse>;

    async fn get_chunk_mapping(
        &self,
        _: Request<reapi::GetChunkMappingRequest>,
    ) -> Reply<Self::GetChunkMappingStream> {
        Err(unmeasured())
    }

    async fn splice_blob(
        &self,
        _: Request<reapi::SpliceBlobRequest>,
    ) -> Reply<reapi::SpliceBlobResponse> {
        Err(unmeasured())
    }

    async fn register_chunk_mapping(
        &self,
        _: Request<tonic::Streaming<reapi::RegisterChunkMappingRequest>>,
    ) -> Reply<reapi::RegisterChunkMappingResponse> {
        Err(unmeasured())
    }
}

fn unmeasured() -> Status {
    Status::unimplemented("the floor answers only what is measured")
}
