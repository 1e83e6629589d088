//! Builds: the list of them, and what each ran.

mod api;
pub mod list;
mod page;
pub mod progress;
pub mod rows;
mod waterfall;

use axum::Router;
use axum::routing::get;

use super::state::WebState;

pub fn pages() -> Router<WebState> {
    Router::new().route("/builds", get(list::page)).route("/builds/{*invocation}", get(page::page))
}

/// What is below `/api/v1`.
pub fn api() -> Router<WebState> {
    Router::new().route("/builds", get(api::builds)).route("/builds/{*invocation}", get(api::build))
}
