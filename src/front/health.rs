//! `/healthz` and `/readyz`: for orchestrators and balancers that do not speak gRPC's health
//! protocol, or not over TLS.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;

/// Whether this process should be sent work. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Relaxed);
    }

    /// The error says why not.
    pub fn check(&self) -> Result<(), Cow<'static, str>> {
        match self.0.load(Ordering::Relaxed) {
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
