//! The status server of `kiln worker`: whether it is there, whether it works, and its figures. The server's
//! own front answers, but nothing behind it reads a blob or runs anything.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use kiln_cas::budget::{Budget, MIN_BUDGET};
use kiln_cas::stores::StorageStats;
use kiln_cas::stores::Transfers;
use kiln_executor::WorkerStatus;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::auth::AuthOptions;
use crate::front::{
    Front, FrontLimits, FrontParts, Reserved, Resolved, Site, TlsOptions, health, unknown,
};
use crate::serve::{Admission, ServeError, join_all};
use crate::telemetry::requests::Requests;
use crate::telemetry::stages::Stages;
use crate::telemetry::{ObservedWorker, Security, worker_routes};

/// Threads that serve connections: one is enough for probes and scrapes, which are few.
const THREADS: usize = 1;
/// How long open requests may take to finish once the worker has ended.
const DRAIN: Duration = Duration::from_secs(2);

pub struct StatusServerOptions {
    pub listen: Resolved,
    pub limits: FrontLimits,
    /// Host names under which clients may address this worker.
    pub hosts: Vec<String>,
    /// Certificate and key of this address; `None`: it speaks plain HTTP.
    pub tls: Option<TlsOptions>,
    /// How callers prove who they are; `None`: nobody is asked.
    pub auth: Option<AuthOptions>,
}

/// Sources of the worker's metrics, those that exist before the worker has started.
pub struct Figures {
    pub storage: Arc<StorageStats>,
    pub transfers: Arc<Transfers>,
    pub stages: Arc<Stages>,
}

/// An address that is taken; nobody can connect yet.
pub struct ReservedStatusServer {
    reserved: Reserved,
    limits: FrontLimits,
    hosts: Vec<String>,
    admission: Admission,
}

/// A status server that answers.
pub struct StatusServer {
    front: Front,
    background: Vec<JoinHandle<()>>,
    stop: CancellationToken,
}

impl ReservedStatusServer {
    pub fn reserve(options: StatusServerOptions) -> Result<Self, ServeError> {
        let StatusServerOptions { listen, limits, hosts, tls, auth } = options;
        let address = listen.listen().to_string();
        let reserved = listen.reserve();
        let reserved = reserved.map_err(|source| ServeError::Listen { address, source })?;
        let admission = Admission::load(&listen, tls, auth)?;
        Ok(Self { reserved, limits, hosts, admission })
    }

    pub fn url(&self) -> String {
        format!("{}://{}", self.admission.scheme(), self.reserved.authority())
    }

    /// Answers for the worker from now on. Call within a tokio runtime.
    pub async fn open(
        self,
        worker: WorkerStatus,
        figures: Figures,
    ) -> Result<StatusServer, ServeError> {
        let site = Site::new(&self.url(), self.hosts.clone(), self.admission.tls.is_some());
        let Self { reserved, limits, admission, .. } = self;
        let stop = CancellationToken::new();
        let background = admission.keep_current(&stop).await?;
        let requests = Requests::new(THREADS, Budget::new(MIN_BUDGET));
        let router = router(worker, figures, requests.clone(), admission.security());
        let parts = FrontParts {
            router,
            tls: admission.tls,
            auth: admission.auth,
            failures: admission.failures,
            site,
            limits,
            requests: &requests,
            drain: DRAIN,
        };
        let address = reserved.authority();
        let listeners = reserved.listen();
        let listeners = listeners.map_err(|source| ServeError::Listen { address, source })?;
        let front = Front::start(listeners, parts, &stop).map_err(ServeError::Front)?;
        Ok(StatusServer { front, background, stop })
    }
}

impl StatusServer {
    pub async fn close(self) {
        self.stop.cancel();
        self.front.join().await;
        join_all(self.background).await;
    }
}

fn router(
    worker: WorkerStatus,
    figures: Figures,
    requests: Requests,
    security: Security,
) -> Router {
    let Figures { storage, transfers, stages } = figures;
    let status = worker.clone();
    let observed = ObservedWorker { worker, storage, transfers, stages, requests, security };
    worker_routes(observed)
        .merge(health::routes(move || status.ready().map_err(Into::into)))
        .fallback(unknown::of_worker)
}
