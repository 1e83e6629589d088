//! The port of `kiln worker`: whether it is there, whether it works, and its figures. The server's
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

use crate::auth::failures::Failures;
use crate::auth::{Auth, AuthOptions};
use crate::front::{
    Front, FrontLimits, FrontParts, Reserved, Resolved, Site, Tls, TlsOptions, health, unknown,
};
use crate::reload;
use crate::serve::{ServeError, authentication, reloaded};
use crate::telemetry::requests::Requests;
use crate::telemetry::stages::Stages;
use crate::telemetry::{ObservedWorker, Security, worker_routes};

/// Probes and scrapes are few.
const THREADS: usize = 1;
/// What an open request gets when the worker has ended.
const DRAIN: Duration = Duration::from_secs(2);

pub struct PortOptions {
    pub listen: Resolved,
    pub limits: FrontLimits,
    /// What the worker is called.
    pub hosts: Vec<String>,
    /// `None`: without TLS.
    pub tls: Option<TlsOptions>,
    /// `None`: nobody is asked who calls.
    pub auth: Option<AuthOptions>,
}

/// What the figures are about, as far as it is known before the worker has started.
pub struct Figures {
    pub storage: Arc<StorageStats>,
    pub transfers: Arc<Transfers>,
    pub stages: Arc<Stages>,
}

/// An address that is taken; nobody can connect yet.
pub struct Port {
    reserved: Reserved,
    limits: FrontLimits,
    hosts: Vec<String>,
    tls: Option<Arc<Tls>>,
    auth: Option<Arc<Auth>>,
    failures: Arc<Failures>,
}

/// A port that answers.
pub struct OpenPort {
    front: Front,
    background: Vec<JoinHandle<()>>,
    stop: CancellationToken,
}

impl Port {
    pub fn reserve(options: PortOptions) -> Result<Self, ServeError> {
        let PortOptions { listen, limits, hosts, tls, auth } = options;
        let address = listen.listen().to_string();
        let reserved = listen.reserve();
        let reserved = reserved.map_err(|error| ServeError::Listen { address, error })?;
        let failures = Arc::<Failures>::default();
        let auth = authentication(auth, tls.as_ref(), &listen, &failures)?;
        let tls = tls.map(Tls::load).transpose()?.map(Arc::new);
        Ok(Self { reserved, limits, hosts, tls, auth, failures })
    }

    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.reserved.authority())
    }

    /// Answers for the worker from now on. Call within a tokio runtime.
    pub async fn open(
        self,
        worker: WorkerStatus,
        figures: Figures,
    ) -> Result<OpenPort, ServeError> {
        let site = Site::new(&self.url(), self.hosts.clone(), self.tls.is_some());
        let Self { reserved, limits, tls, auth, failures, .. } = self;
        let stop = CancellationToken::new();
        let mut background = vec![reload::watch(reloaded(&tls, &auth), stop.clone())];
        if let Some(auth) = &auth {
            background.extend(auth.keep_keys(stop.clone()).await?);
        }
        let requests = Requests::new(THREADS, Budget::new(MIN_BUDGET));
        let security = Security { failures: failures.clone(), tls: tls.clone() };
        let router = router(worker, figures, requests.clone(), security);
        let parts = FrontParts {
            router,
            tls,
            auth,
            failures,
            site,
            limits,
            requests: &requests,
            drain: DRAIN,
        };
        let address = reserved.authority();
        let listeners = reserved.listen();
        let listeners = listeners.map_err(|error| ServeError::Listen { address, error })?;
        let front = Front::start(listeners, parts, &stop).map_err(ServeError::Front)?;
        Ok(OpenPort { front, background, stop })
    }
}

impl OpenPort {
    pub async fn close(self) {
        self.stop.cancel();
        self.front.join().await;
        for task in self.background {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task that keeps files or keys current failed");
            }
        }
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
