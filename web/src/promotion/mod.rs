//! Environments: which release stands where, what waits and why, and what people say of it.

pub mod api;
pub mod change;
mod error;
mod page;

use axum::Router;
use axum::routing::{get, post};

use super::state::WebState;

pub fn pages() -> Router<WebState> {
    Router::new().route("/environments", get(page::page))
}

/// What is below `/api/v1`.
pub fn api() -> Router<WebState> {
    Router::new()
        .route("/environments", get(api::list))
        .route("/environments/{environment}", get(api::show))
        .route("/environments/{environment}/summary", get(api::summary))
        .route("/promotions", post(change::promote))
        .route("/promotions/rollback", post(change::roll_back))
        .route("/promotions/say", post(change::say))
}
