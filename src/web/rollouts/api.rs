//! Rollouts, for programs.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query as Arguments, State};
use kiln_deploy::rollouts::control::Listed;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::web::api::{arguments, limit};
use crate::web::error::{ApiError, WebError};
use crate::web::json::{DeployLock, DeployLocks, RolloutShown, RolloutSummary, Rollouts};
use crate::web::state::WebState;
use crate::web::verdicts::Caller;

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Page {
    limit: Option<usize>,
    /// An id: only rollouts that began before it.
    before: Option<String>,
    /// Only those of this service, and in this environment, of the page.
    service: Option<String>,
    environment: Option<String>,
}

/// Rollouts are of the instance that promotes.
pub fn instance(state: &WebState) -> String {
    state.promotion.as_ref().map(|it| it.pipeline().instance.clone()).unwrap_or_default()
}

pub fn may_read(state: &WebState, caller: &Caller) -> Result<(), WebError> {
    caller.may_read(&*state.access, &instance(state))
}

pub async fn list(
    State(state): State<WebState>,
    caller: Caller,
    page: Result<Arguments<Page>, QueryRejection>,
) -> Result<Json<Rollouts>, ApiError> {
    may_read(&state, &caller)?;
    Ok(Json(listed(&state, arguments(page)?).await?))
}

pub async fn listed(state: &WebState, page: Page) -> Result<Rollouts, WebError> {
    let limit = limit(page.limit)?;
    let before = page.before.as_deref();
    let found = state.rollouts.list(before, limit).await?;
    let next_before = (found.len() == limit).then(|| found.last().map(|it| it.rollout.id.clone()));
    let fits = |it: &&Listed| {
        let place = &it.rollout.place;
        page.service.as_ref().is_none_or(|name| *name == place.service)
            && page.environment.as_ref().is_none_or(|name| *name == place.environment)
    };
    let rollouts = found.iter().filter(fits).map(RolloutSummary::from).collect();
    Ok(Rollouts { rollouts, next_before: next_before.flatten() })
}

pub async fn show(
    State(state): State<WebState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<RolloutShown>, ApiError> {
    may_read(&state, &caller)?;
    let shown = state.rollouts.show(&id).await.map_err(WebError::from)?;
    Ok(Json(RolloutShown::from(&shown)))
}

pub async fn locks(
    State(state): State<WebState>,
    caller: Caller,
) -> Result<Json<DeployLocks>, ApiError> {
    may_read(&state, &caller)?;
    let locks = state.rollouts.locks().await.map_err(WebError::from)?;
    Ok(Json(DeployLocks { locks: locks.iter().map(DeployLock::from).collect() }))
}
