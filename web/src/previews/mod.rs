//! Environments for a while: which there are, what differs in them, and their end.

mod api;
mod error;

use axum::Router;
use axum::routing::{get, post};

use super::state::WebState;

/// What is below `/api/v1`.
pub fn api() -> Router<WebState> {
    Router::new()
        .route("/previews", get(api::list))
        .route("/previews/{name}/parity", get(api::parity))
        .route("/previews/down", post(api::down))
}
