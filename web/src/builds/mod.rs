//! Builds: the list of them, and what each ran.

pub(super) mod api;
pub(super) mod compare;
pub mod list;
mod open;
mod page;
pub mod rows;
pub(super) mod search;
mod told;
mod told_list;
mod unknown;
mod waterfall;

use axum::Router;
use axum::routing::get;

use super::state::WebState;

pub fn pages() -> Router<WebState> {
    Router::new()
        .route("/builds", get(list::page))
        .route("/builds/compare", get(compare::page::page))
        .route("/builds/{*invocation}", get(page::page))
}

/// What is below `/api/v1`.
pub fn api() -> Router<WebState> {
    Router::new()
        .route("/builds", get(api::builds))
        .route("/builds/compare", get(compare::api::comparison))
        .route("/builds/{*invocation}", get(api::build))
        .route("/invocations", get(api::invocations))
}
