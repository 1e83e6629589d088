//! The hosts that run services: what their agents say and hear, and what people see of them.

mod api;
mod change;
mod error;
mod page;
mod sharing;
mod speaking;
mod versions;

pub use api::{Named, Page as FleetPage};

use axum::Router;
use axum::routing::{get, post};

use super::state::WebState;

pub fn pages() -> Router<WebState> {
    Router::new().route("/fleet", get(page::page))
}

/// What is below `/api/v1`.
pub fn api() -> Router<WebState> {
    Router::new()
        .route("/fleet", get(api::list))
        .route("/fleet/show", get(api::show))
        .route("/fleet/tell", post(change::tell))
        .route("/fleet/remove", post(change::remove))
        .route("/fleet/agent/report", post(speaking::report))
        .route("/fleet/agent/order", post(speaking::order))
        .route("/fleet/agent/content", post(speaking::content))
        .route("/fleet/agent/blob", post(speaking::blob))
        .route("/fleet/agent/pieces", post(sharing::pieces))
        .route("/fleet/agent/share", post(sharing::share))
}
