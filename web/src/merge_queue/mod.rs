//! Merge queues: what waits and why, what is tested, what landed and what was rejected; what people ask for, and what
//! the runners of queues say.

mod api;
mod change;
mod error;
mod list;
mod page;
mod parts;
mod run;
mod runner;

pub use api::{Branch, Ended};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};

use super::state::WebState;

/// Bytes of a step of a runner: a full queue takes about one MiB.
const MAX_STEP: usize = 8 << 20;

pub fn pages() -> Router<WebState> {
    Router::new()
        .route("/merge-queues", get(list::page))
        .route("/merge-queues/{queue}", get(page::page))
        .route("/merge-queues/{queue}/runs/{run}", get(run::page))
}

/// What is below `/api/v1`.
pub fn api() -> Router<WebState> {
    let step = post(runner::step).layer(DefaultBodyLimit::max(MAX_STEP));
    Router::new()
        .route("/merge-queues", get(api::list))
        .route("/merge-queues/say", post(change::say))
        .route("/merge-queues/forget", post(change::forget))
        .route("/merge-queues/{queue}", get(api::show))
        .route("/merge-queues/{queue}/change", get(api::change))
        .route("/merge-queues/{queue}/runs/{run}", get(api::run))
        .route("/merge-queues/{queue}/requests/{request}", get(api::request))
        .route("/merge-queues/runner/take", post(runner::take))
        .route("/merge-queues/runner/lane", post(runner::lane))
        .route("/merge-queues/runner/requests", post(runner::requests))
        .route("/merge-queues/runner/step", step)
        .route("/merge-queues/runner/leave", post(runner::leave))
}
