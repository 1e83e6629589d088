//! The floor's answer to GetCapabilities: it caches, and does not execute.

use kiln_protos::reapi::capabilities_server::Capabilities;
use kiln_protos::reapi::{
    ActionCacheUpdateCapabilities, CacheCapabilities, GetCapabilitiesRequest, ServerCapabilities,
    digest_function,
};
use kiln_protos::semver::SemVer;
use tonic::{Request, Response, Status};

/// Most bytes in a batch of blobs.
const MAX_BATCH: i64 = 4 << 20;

#[derive(Clone)]
pub struct Constant;

#[tonic::async_trait]
impl Capabilities for Constant {
    async fn get_capabilities(
        &self,
        _: Request<GetCapabilitiesRequest>,
    ) -> Result<Response<ServerCapabilities>, Status> {
        Ok(Response::new(ServerCapabilities {
            cache_capabilities: Some(CacheCapabilities {
                digest_functions: vec![digest_function::Value::Sha256.into()],
                action_cache_update_capabilities: Some(ActionCacheUpdateCapabilities {
                    update_enabled: true,
                }),
                max_batch_total_size_bytes: MAX_BATCH,
                ..Default::default()
            }),
            low_api_version: Some(SemVer { major: 2, ..Default::default() }),
            high_api_version: Some(SemVer { major: 2, minor: 3, ..Default::default() }),
            ..Default::default()
        }))
    }
}
