//! Every address below which something is shown.

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::design::layout;
use super::error::WebError;
use super::state::WebState;
use super::{
    actions, api, blobs, builds, format, hermeticity, imports, overview, security, workers,
};

/// All routes. Each answers GET (and HEAD) only, but for imports; answers carry a strict content security policy.
pub fn router(state: WebState) -> Router {
    let api = Router::new()
        .merge(overview::api())
        .merge(builds::api())
        .merge(actions::api())
        .merge(workers::api())
        .merge(hermeticity::api())
        .merge(imports::api())
        .fallback(api::unknown);
    Router::new()
        .merge(overview::pages())
        .merge(builds::pages())
        .merge(actions::pages())
        .merge(workers::pages())
        .merge(blobs::pages())
        .merge(hermeticity::pages())
        .route("/style.css", get(layout::stylesheet))
        .route("/favicon.svg", get(layout::favicon))
        .nest("/api/v1", api)
        .layer(axum::middleware::map_response(security::headers))
        .with_state(state)
}

/// The page for an address at which there is none.
pub fn no_page(path: &str) -> Response {
    let message = format!("there is no page {:?}", format::short(path, 200));
    let hint = "The pages are below; what was built is under Builds.";
    security::with_headers(WebError::not_found(message, hint).into_response())
}
