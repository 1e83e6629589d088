//! The start page, and the state of the server in figures.

pub(super) mod api;
mod page;

use axum::Router;
use axum::routing::get;

use super::state::WebState;

pub fn pages() -> Router<WebState> {
    Router::new().route("/", get(page::page))
}

/// What is below `/api/v1`.
pub fn api() -> Router<WebState> {
    Router::new().route("/status", get(api::status))
}
