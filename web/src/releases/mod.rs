//! Releases: the list of them, what each is made of and comes from, and how they are made, rejected and removed.

pub mod api;
pub mod change;
mod error;
mod gc;
mod page;
mod told;

use axum::Router;
use axum::routing::{get, post};

use super::state::WebState;

pub fn pages() -> Router<WebState> {
    Router::new().route("/releases", get(page::list)).route("/releases/{*name}", get(page::page))
}

/// What is below `/api/v1`.
pub fn api() -> Router<WebState> {
    Router::new()
        .route("/releases", get(api::list).post(change::create))
        .route("/releases/show", get(api::show))
        .route("/releases/provenance", get(api::provenance))
        .route("/releases/diff", get(api::diff))
        .route("/releases/prepare", post(change::prepare))
        .route("/releases/sign", post(change::sign))
        .route("/releases/reject", post(change::reject))
        .route("/releases/import", post(change::import))
        .route("/releases/gc", post(gc::collect))
        .route("/explain", get(api::explain))
}
