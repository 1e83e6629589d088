//! Runs of pipelines: their way as a picture, what they print, and what people say of them.

pub mod api;
pub mod change;
mod error;

use axum::Router;
use axum::routing::{get, post};

use super::state::WebState;

/// What is below `/api/v1`.
pub fn api() -> Router<WebState> {
    Router::new()
        .route("/pipelines", get(api::list).post(change::start))
        .route("/pipelines/say", post(change::say))
        .route("/pipelines/{id}", get(api::show))
        .route("/pipelines/{id}/log", get(api::log))
}
