//! Blobs and directories of the store.

mod download;
pub mod page;
pub mod present;
pub mod tree;

use axum::Router;
use axum::routing::get;

use super::state::WebState;

pub fn pages() -> Router<WebState> {
    Router::new()
        .route("/cas/tree/{function}/{hash}/{size}", get(page::root))
        .route("/cas/tree/{function}/{hash}/{size}/{*path}", get(page::below))
        .route("/blobs/{function}/{hash}/{size}", get(download::download))
}
