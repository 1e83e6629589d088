//! Flaky tests, gates and the quarantine.

mod caller;
mod caps;
pub mod flakes;
mod flakes_page;
pub mod gate;
mod past;
pub mod quarantine;
mod quarantine_page;

use axum::Router;
use axum::routing::{get, post};

use super::state::WebState;
pub use caller::{Caller, body};

pub fn pages() -> Router<WebState> {
    Router::new()
        .route("/tests/flakes", get(flakes_page::page))
        .route("/tests/quarantine", get(quarantine_page::page))
}

/// What is below `/api/v1`.
pub fn api() -> Router<WebState> {
    Router::new()
        .route("/tests/gate", post(gate::ask))
        .route("/tests/flakes", get(flakes::flakes))
        .route("/tests/quarantine/history", get(past::history))
        .route("/tests/quarantine", get(quarantine::list).post(quarantine::enter))
        .route("/tests/quarantine/remove", post(quarantine::leave))
        .route("/tests/quarantine/export", get(quarantine::export))
}
