//! The audit log, for programs.

pub mod api;

use axum::Router;
use axum::routing::get;

use super::state::WebState;

/// What is below `/api/v1`.
pub fn api() -> Router<WebState> {
    Router::new()
        .route("/audit", get(api::entries))
        .route("/audit/check", get(api::check))
        .route("/audit/export", get(api::export))
}
