//! `/healthz` and `/readyz`: for orchestrators and balancers that do not speak gRPC's health
//! protocol, or not over TLS.

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

    fn answer(&self) -> (StatusCode, &'static str) {
        match self.0.load(Ordering::Relaxed) {
            true => (StatusCode::OK, "ready\n"),
            false => (StatusCode::SERVICE_UNAVAILABLE, "not ready: starting or draining\n"),
        }
    }
}

/// `/healthz` is 200 as long as the process answers; `/readyz` is 503 until it is ready, and again
/// while it drains. A fleet's Redis or S3 that fails for a moment does not make frontends
/// unready: all of them would be at once, and clients would meet a closed door instead of an
/// answer that tells them to try again.
pub fn routes(readiness: Readiness) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(move || std::future::ready(readiness.answer())))
}
