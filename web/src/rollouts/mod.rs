//! Rollouts: their steps, what was measured and what the judge said of it, and what people say; deploy locks.

pub mod api;
mod bands;
pub mod change;
mod error;
mod list;
mod page;

use axum::Router;
use axum::routing::{get, post};

use super::state::WebState;

pub fn pages() -> Router<WebState> {
    Router::new().route("/rollouts", get(list::page)).route("/rollouts/{id}", get(page::page))
}

/// What is below `/api/v1`.
pub fn api() -> Router<WebState> {
    Router::new()
        .route("/rollouts", get(api::list).post(change::start))
        .route("/rollouts/say", post(change::say))
        .route("/rollouts/abandon", post(change::abandon))
        .route("/rollouts/plan", post(change::plan))
        .route("/rollouts/{id}", get(api::show))
        .route("/locks", get(api::locks).post(change::lock))
        .route("/locks/remove", post(change::unlock))
}
