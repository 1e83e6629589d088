//! Releases that nothing keeps are removed.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use http::StatusCode;
use kiln_cas::services::account_of;
use kiln_deploy::retention::CollectError;
use kiln_net::causes::chain;

use crate::error::{ApiError, WebError};
use crate::json::{ReleaseFate, ReleaseFates, ReleaseGc};
use crate::state::WebState;
use crate::verdicts::{Caller, body};

/// Removes them, or says what would go.
pub async fn collect(
    State(state): State<WebState>,
    caller: Caller,
    asked: Result<Json<ReleaseGc>, JsonRejection>,
) -> Result<Json<ReleaseFates>, ApiError> {
    let ReleaseGc { instance, dry_run } = body(asked)?;
    caller.may_release(&*state.access, &instance)?;
    let who = account_of(&*state.access, &caller.0).to_string();
    let (collector, now) = (state.collector.clone(), state.collector.now());
    // Bounded like all that reads much: a few look at once.
    let look = async move {
        match dry_run {
            true => collector.look(&instance, now).await,
            false => collector.collect(&instance, &who, now).await,
        }
    };
    let fates = state.kept.beside(look).await??;
    let frees = fates.iter().map(|it| it.frees).sum();
    let releases = fates.iter().map(ReleaseFate::from).collect();
    Ok(Json(ReleaseFates { releases, frees, removed: !dry_run }))
}

impl From<CollectError> for WebError {
    fn from(error: CollectError) -> Self {
        match error {
            CollectError::Catalog(error) => error.into(),
            CollectError::Promotion(error) => error.into(),
            error @ CollectError::Rollouts(_) => Self::failed(chain(&error)),
            error @ CollectError::TooMany => {
                let (status, message) = (StatusCode::CONFLICT, chain(&error));
                let hint = "Release to several instances.".to_owned();
                Self { status, message, hint }
            }
        }
    }
}
