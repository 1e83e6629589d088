//! Tests: the list of them, what became of each at which commit, and each by itself.

pub(super) mod api;
mod attempts;
mod chart;
mod figures;
mod filter;
mod grid;
mod grid_table;
mod id;
mod list;
mod lost;
mod names;
mod page;
mod signatures;
mod tabs;
mod teams;

use axum::Router;
use axum::routing::get;

use super::state::WebState;

pub use filter::{Filter, unknown};
pub use grid::Wanted;
pub use id::{Which, link};
pub use list::millis;
pub use names::Names;
pub use tabs::{Tab, tabs};

pub fn pages() -> Router<WebState> {
    Router::new()
        .route("/tests", get(list::page))
        .route("/tests/grid", get(grid::page))
        .route("/tests/kpi", get(figures::page))
        .route("/tests/{id}", get(page::page))
}

/// What is below `/api/v1`.
pub fn api() -> Router<WebState> {
    Router::new()
        .route("/tests", get(api::tests))
        .route("/tests/grid", get(api::grid))
        .route("/tests/kpi", get(api::kpi))
        .route("/tests/{id}", get(api::test))
}
