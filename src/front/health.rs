//! `/healthz` and `/readyz`: for orchestrators and balancers that do not speak gRPC's health
//! protocol, or not over TLS.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use kiln_net::panics::caught;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// The name that grpc.health.v1 gives to the server as a whole.
pub const WHOLE_SERVER: &str = "";

/// Whether this process should be sent work. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<ReadinessState>);

#[derive(Debug, Default)]
struct ReadinessState {
    ready: AtomicBool,
    /// Why the process will not be ready any more: which work ended, and how; empty while none has.
    lost: OnceLock<String>,
}

impl Readiness {
    pub fn set(&self, ready: bool) {
        self.0.ready.store(ready, Ordering::Relaxed);
    }

    /// Does what the process needs for its work and cannot begin anew. Once that panics the process is not ready any more,
    /// and says so by `grpc` as well.
    pub async fn needs(
        &self,
        what: &'static str,
        grpc: &HealthReporter,
        work: impl Future<Output = ()>,
    ) {
        if let Err(panicked) = caught(work).await {
            tracing::error!(what, error = %panicked, "the server is without it until it starts again");
            // What was lost first is said.
            self.0.lost.set(format!("{what} is lost until a restart: {panicked}")).ok();
            grpc.set_service_status(WHOLE_SERVER, ServingStatus::NotServing).await;
        }
    }

    /// The error says why not.
    pub fn check(&self) -> Result<(), Cow<'static, str>> {
        if let Some(lost) = self.0.lost.get() {
            return Err(lost.clone().into());
        }
        match self.0.ready.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err("starting or draining".into()),
        }
    }
}

/// `/healthz` is 200 as long as the process answers; `/readyz` is 503 until it is ready, and again
/// while it drains. A fleet's Redis or S3 that fails for a moment does not make frontends
/// unready: all of them would be at once, and clients would meet a closed door instead of an
/// answer that tells them to try again.
pub fn routes<F>(ready: F) -> Router
where
    F: Fn() -> Result<(), Cow<'static, str>> + Clone + Send + Sync + 'static,
{
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(move || std::future::ready(answer(ready()))))
}

fn answer(ready: Result<(), Cow<'static, str>>) -> (StatusCode, Cow<'static, str>) {
    match ready {
        Ok(()) => (StatusCode::OK, "ready\n".into()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n").into()),
    }
}

#[cfg(test)]
mod tests {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_server::Health;
    use tonic_health::server::HealthService;

    use super::*;

    #[tokio::test]
    async fn a_server_that_has_lost_what_it_needs_is_not_ready() {
        let (readiness, grpc) = (Readiness::default(), HealthReporter::new());
        let service = HealthService::from_health_reporter(grpc.clone());
        let asked = async || {
            let request = tonic::Request::new(HealthCheckRequest::default());
            service.check(request).await.unwrap().into_inner().status
        };
        readiness.set(true);
        readiness.needs("this", &grpc, async {}).await;
        assert_eq!(answer(readiness.check()).0, StatusCode::OK);
        assert_eq!(asked().await, ServingStatus::Serving as i32);
        readiness.needs("the worker", &grpc, async { panic!("odd") }).await;
        let (status, why) = answer(readiness.check());
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(why.contains("the worker is lost") && why.contains("odd"), "{why}");
        assert_eq!(asked().await, ServingStatus::NotServing as i32);
    }
}
