//! Bazel's own profile of a build, as a waterfall: one lane a thread, one bar a span.

mod page;
mod read;

use axum::Router;
use axum::routing::get;

use super::state::WebState;

pub fn pages() -> Router<WebState> {
    Router::new().route("/profile/{function}/{hash}/{size}", get(page::page))
}
