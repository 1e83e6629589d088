//! The services of this crate, put together.

use std::sync::Arc;

use kiln_protos::logstream::log_stream_service_server::LogStreamServiceServer;
use kiln_protos::reapi::capabilities_server::CapabilitiesServer;
use tonic::service::RoutesBuilder;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use super::action_cache::ActionCacheService;
use super::asset::{AssetService, FetchCalls, PushCalls};
use super::attributed::Attributed;
use super::bytestream::{ByteStream, Uploads};
use super::capabilities::CapabilitiesService;
use super::cas::Cas;
use super::config::ServicesConfig;
use super::deadline::Deadlines;
use super::guard::Guard;
use super::hits::Hits;
use super::http::HttpCache;
use super::log_stream::{LogStreamServer, LogTokens};
use super::owners;
use super::rpc::{Grpc, Handler};

/// The services of this crate, ready to be served on one port with others.
pub struct CasServices {
    config: ServicesConfig,
    tokens: Arc<LogTokens>,
    uploads: Arc<Uploads>,
    health: HealthReporter,
}

impl CasServices {
    pub fn new(config: ServicesConfig) -> Self {
        let tokens = Arc::new(LogTokens::new(config.secret));
        let (uploads, health) = (Arc::default(), HealthReporter::new());
        Self { config, tokens, uploads, health }
    }

    /// Adds Capabilities, ContentAddressableStorage, ByteStream, ActionCache, Fetch, Push,
    /// LogStreamService and grpc.health.v1.Health. Needs a tokio runtime.
    pub fn add_to(&self, routes: &mut RoutesBuilder) {
        let config = &self.config;
        let asset = Arc::new(AssetService::new(config));
        routes
            .add_service(Deadlines(self.attributed(self.byte_stream())))
            .add_service(Deadlines(self.attributed(self.action_cache())))
            .add_service(Deadlines(self.attributed(self.cas())))
            .add_service(CapabilitiesServer::new(self.capabilities()))
            .add_service(Deadlines(Grpc(Arc::new(FetchCalls(asset.clone())))))
            .add_service(Deadlines(Grpc(Arc::new(PushCalls(asset)))))
            .add_service(Deadlines(LogStreamServiceServer::new(LogStreamServer {
                logs: config.logs.clone(),
                tokens: self.tokens.clone(),
                guard: self.guard(),
            })))
            .add_service(Deadlines(HealthServer::new(HealthService::from_health_reporter(
                self.health.clone(),
            ))));
    }

    /// Removes what is remembered of blobs that are gone, here and in `others`, each time that `evicted`
    /// tells something new. Never returns; drop it to end it.
    pub fn keep_swept(
        &self,
        others: &'static [owners::Remembered],
        evicted: impl Fn() -> u64 + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let config = &self.config;
        owners::keep_swept(config.records.clone(), config.blobs.clone(), others, evicted)
    }

    /// Gives up the uploads that broke off and may be continued, so that others find their room.
    /// `false`: there are none.
    pub fn give_up_uploads(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let uploads = self.uploads.clone();
        move || uploads.give_up_all()
    }

    /// What the health service answers: `SERVING` for the server (the empty name) until it is
    /// told otherwise, e.g. when draining.
    pub fn health(&self) -> HealthReporter {
        self.health.clone()
    }

    /// The HTTP cache protocol under `/ac/`, `/cas/`, `/{instance}/ac/` and `/{instance}/cas/`.
    pub fn http_cache(&self) -> axum::Router {
        let config = &self.config;
        HttpCache {
            blobs: config.blobs.clone(),
            actions: config.actions.clone(),
            records: config.records.clone(),
            guard: self.guard(),
            quotas: self.config.quotas.clone(),
            opaque: config.opaque.clone(),
            max_blob_size: config.max_blob_size,
        }
        .router()
    }

    fn attributed<H: Handler>(&self, handler: H) -> Attributed<Grpc<H>> {
        Attributed::calls(Grpc(Arc::new(handler)), self.config.invocations.clone())
    }

    fn guard(&self) -> Guard {
        Guard(self.config.access.clone())
    }

    fn byte_stream(&self) -> ByteStream {
        ByteStream {
            guard: self.guard(),
            blobs: self.config.blobs.clone(),
            logs: self.config.logs.clone(),
            tokens: self.tokens.clone(),
            uploads: self.uploads.clone(),
            quotas: self.config.quotas.clone(),
            max_blob_size: self.config.max_blob_size,
        }
    }

    fn action_cache(&self) -> ActionCacheService {
        ActionCacheService {
            actions: self.config.actions.clone(),
            blobs: self.config.blobs.clone(),
            guard: self.guard(),
            hits: Hits::new(self.config.events.clone()),
        }
    }

    fn cas(&self) -> Cas {
        let blobs = self.config.blobs.clone();
        let records = self.config.records.clone();
        Cas {
            guard: self.guard(),
            blobs,
            records,
            quotas: self.config.quotas.clone(),
            max_blob_size: self.config.max_blob_size,
        }
    }

    fn capabilities(&self) -> CapabilitiesService {
        CapabilitiesService {
            exec_enabled: self.config.exec_enabled,
            guard: self.guard(),
            max_blob_size: self.config.max_blob_size,
        }
    }
}
