//! Actions: what each was and did, and why it was not cached.

pub(super) mod answer;
pub(super) mod api;
pub mod compare;
pub(super) mod executions;
pub mod explain;
pub mod load;
mod page;
mod parts;
pub mod rows;
mod timeline;
pub mod why;

use axum::Router;
use axum::routing::get;

use super::state::WebState;

pub fn pages() -> Router<WebState> {
    Router::new().route("/actions/{function}/{hash}/{size}", get(page::page))
}

/// What is below `/api/v1`.
pub fn api() -> Router<WebState> {
    Router::new()
        .route("/executions", get(executions::list))
        .route("/executions/{*id}", get(executions::one))
        .route("/actions/{function}/{hash}/{size}", get(api::action))
        .route("/actions/{function}/{hash}/{size}/difference", get(api::difference))
        .route("/find", get(executions::named))
}
