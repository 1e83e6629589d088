//! Every address below which something is shown.

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::design::layout;
use super::error::WebError;
use super::state::WebState;
use super::{
    actions, audit, blobs, builds, fleet, format, hermeticity, imports, merge_queue, openapi,
    overview, pipelines, plans, previews, profile, promotion, releases, rollouts, security, suite,
    verdicts, workers,
};

/// What is below `/api/v1`.
pub fn api() -> Router<WebState> {
    Router::new()
        .merge(overview::api())
        .merge(builds::api())
        .merge(actions::api())
        .merge(suite::api())
        .merge(workers::api())
        .merge(hermeticity::api())
        .merge(imports::api())
        .merge(verdicts::api())
        .merge(releases::api())
        .merge(plans::api())
        .merge(promotion::api())
        .merge(rollouts::api())
        .merge(pipelines::api())
        .merge(previews::api())
        .merge(fleet::api())
        .merge(merge_queue::api())
        .merge(audit::api())
        .route("/openapi.json", get(openapi::document))
}

/// All routes. Each answers GET (and HEAD) only, but for imports, gates, plans, releases, promotions, rollouts, pipelines, previews, deploy locks, agents, merge queues and changes of the quarantine; answers
/// carry a strict content security policy.
pub fn router(state: WebState) -> Router {
    Router::new()
        .merge(overview::pages())
        .merge(builds::pages())
        .merge(actions::pages())
        .merge(suite::pages())
        .merge(workers::pages())
        .merge(blobs::pages())
        .merge(verdicts::pages())
        .merge(profile::pages())
        .merge(hermeticity::pages())
        .merge(releases::pages())
        .merge(promotion::pages())
        .merge(rollouts::pages())
        .merge(pipelines::pages())
        .merge(fleet::pages())
        .merge(merge_queue::pages())
        .route("/style.css", get(layout::stylesheet))
        .route("/favicon.svg", get(layout::favicon))
        .nest("/api/v1", self::api().fallback(super::api::unknown))
        .layer(axum::middleware::map_response(security::headers))
        .with_state(state)
}

/// The page for an address at which there is none.
pub fn no_page(path: &str) -> Response {
    let message = format!("there is no page {:?}", format::short(path, 200));
    let hint = "The pages are below; what was built is under Builds.";
    security::with_headers(WebError::not_found(message, hint).into_response())
}
