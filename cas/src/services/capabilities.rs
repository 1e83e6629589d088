//! What the server tells clients that it can do.

use kiln_protos::reapi::capabilities_server::Capabilities;
use kiln_protos::reapi::{
    ActionCacheUpdateCapabilities, CacheCapabilities, ExecutionCapabilities, FastCdc2020Params,
    GetCapabilitiesRequest, PriorityCapabilities, ServerCapabilities, compressor,
    priority_capabilities::PriorityRange, symlink_absolute_path_strategy,
};
use kiln_protos::semver::SemVer;
use tonic::{Request, Response, Status};

use super::chunking::AVERAGE_CHUNK;
use super::guard::Guard;
use crate::access::Right;
use crate::digest::DigestFunction;

/// Advertised total of a batch: gRPC's default message limit of 4 MiB, less the digests and
/// statuses of some ten thousand blobs. Larger uploads are accepted.
pub const MAX_BATCH_TOTAL: u64 = 3 << 20;
/// REAPI versions served.
pub const LOW_VERSION: (i32, i32) = (2, 0);
/// GetChunkMapping and RegisterChunkMapping came with 2.13; the calls they replace stay served.
pub const HIGH_VERSION: (i32, i32) = (2, 13);

pub struct CapabilitiesService {
    pub exec_enabled: bool,
    pub guard: Guard,
    /// Bytes; 0: no limit.
    pub max_blob_size: u64,
}

#[tonic::async_trait]
impl Capabilities for CapabilitiesService {
    async fn get_capabilities(
        &self,
        request: Request<GetCapabilitiesRequest>,
    ) -> Result<Response<ServerCapabilities>, Status> {
        let (caller, instance) = (request.extensions(), &request.get_ref().instance_name);
        self.guard.check(caller, Right::Read, instance)?;
        let allows = |right| self.guard.0.allows(caller, right, instance);
        let (update_enabled, may_execute) = (allows(Right::WriteResults), allows(Right::Execute));
        Ok(Response::new(ServerCapabilities {
            cache_capabilities: Some(self.cache(update_enabled)),
            execution_capabilities: Some(self.execution(may_execute)),
            deprecated_api_version: None,
            low_api_version: Some(version(LOW_VERSION)),
            high_api_version: Some(version(HIGH_VERSION)),
        }))
    }
}

impl CapabilitiesService {
    fn cache(&self, update_enabled: bool) -> CacheCapabilities {
        CacheCapabilities {
            digest_functions: digest_functions(),
            action_cache_update_capabilities: Some(ActionCacheUpdateCapabilities {
                update_enabled,
            }),
            cache_priority_capabilities: Some(all_priorities()),
            max_batch_total_size_bytes: MAX_BATCH_TOTAL as i64,
            symlink_absolute_path_strategy: symlink_absolute_path_strategy::Value::Allowed.into(),
            supported_compressors: vec![compressor::Value::Zstd.into()],
            supported_batch_update_compressors: vec![compressor::Value::Zstd.into()],
            max_cas_blob_size_bytes: self.max_blob_size as i64,
            split_blob_support: true,
            splice_blob_support: true,
            fast_cdc_2020_params: Some(FastCdc2020Params {
                avg_chunk_size_bytes: AVERAGE_CHUNK as u64,
                seed: 0,
            }),
            rep_max_cdc_params: None,
        }
    }

    fn execution(&self, may_execute: bool) -> ExecutionCapabilities {
        ExecutionCapabilities {
            // Older clients compare this one field for equality.
            digest_function: DigestFunction::Sha256.to_wire().into(),
            exec_enabled: self.exec_enabled && may_execute,
            execution_priority_capabilities: Some(all_priorities()),
            supported_node_properties: Vec::new(),
            digest_functions: digest_functions(),
        }
    }
}

fn digest_functions() -> Vec<i32> {
    DigestFunction::ALL.map(|function| function.to_wire().into()).to_vec()
}

/// Clients refuse to send a priority outside the advertised ranges.
fn all_priorities() -> PriorityCapabilities {
    let all = PriorityRange { min_priority: i32::MIN, max_priority: i32::MAX };
    PriorityCapabilities { priorities: vec![all] }
}

fn version((major, minor): (i32, i32)) -> SemVer {
    SemVer { major, minor, ..Default::default() }
}
