//! Pages and answers of the API about the queue and workers.

pub mod activity;
pub(super) mod api;
pub mod page;
pub mod unserved;

use axum::Router;
use axum::routing::get;

use super::state::WebState;

pub fn pages() -> Router<WebState> {
    Router::new().route("/queue", get(page::page))
}

/// What is below `/api/v1`.
pub fn api() -> Router<WebState> {
    Router::new().route("/workers", get(api::workers)).route("/queue", get(api::queue))
}
