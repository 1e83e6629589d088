//! Runs of pipelines: their way as a picture, what they print, and what people say of them.

pub mod api;
pub mod change;
mod error;
mod lanes;
mod list;
mod log;
mod page;
mod way;

use axum::Router;
use axum::routing::{get, post};

use super::state::WebState;

pub fn pages() -> Router<WebState> {
    Router::new()
        .route("/pipelines", get(list::page))
        .route("/pipelines/{id}", get(page::page))
        .route("/pipelines/{id}/log/{stage}", get(log::page))
}

/// What is below `/api/v1`.
pub fn api() -> Router<WebState> {
    Router::new()
        .route("/pipelines", get(api::list).post(change::start))
        .route("/pipelines/say", post(change::say))
        .route("/pipelines/abandon", post(change::abandon))
        .route("/pipelines/{id}", get(api::show))
        .route("/pipelines/{id}/log", get(api::log))
}
