//! Gates and the quarantine, for programs.

mod caller;
pub mod gate;
pub mod quarantine;

use axum::Router;
use axum::routing::{get, post};

use super::state::WebState;
pub use caller::{Caller, body};

/// What is below `/api/v1`.
pub fn api() -> Router<WebState> {
    Router::new()
        .route("/tests/gate", post(gate::ask))
        .route("/tests/quarantine", get(quarantine::list).post(quarantine::enter))
        .route("/tests/quarantine/remove", post(quarantine::leave))
        .route("/tests/quarantine/export", get(quarantine::export))
}
