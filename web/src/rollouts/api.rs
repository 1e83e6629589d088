//! Answers of the API about rollouts.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query as Arguments, State};
use kiln_deploy::rollouts::control::{Listed, MAX_LOOKS};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::api::{arguments, limit};
use crate::error::{ApiError, WebError};
use crate::json::{DeployLock, DeployLocks, DrillState, RolloutShown, RolloutSummary, Rollouts};
use crate::state::WebState;
use crate::verdicts::Caller;

/// Places of which drills are shown.
const MAX_PLACES: usize = 20;

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

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Looks {
    /// How many of the judge's last answers are listed, 1 to 50; 50 where this is absent.
    looks: Option<usize>,
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
    let shown: Vec<&Listed> = found.iter().filter(fits).collect();
    let drills = drills(state, &shown).await?;
    let rollouts = shown.into_iter().map(RolloutSummary::from).collect();
    Ok(Rollouts { rollouts, drills, next_before: next_before.flatten() })
}

/// The state of drills in the places of these rollouts, each place once, by what was declared there last.
async fn drills(state: &WebState, all: &[&Listed]) -> Result<Vec<DrillState>, WebError> {
    let (mut seen, mut drills) = (BTreeSet::new(), Vec::new());
    for rollout in all.iter().map(|it| &it.rollout) {
        if seen.len() < MAX_PLACES && seen.insert(&rollout.place) {
            let standing = state.rollouts.drill_listed(rollout).await?;
            drills.extend(standing.as_ref().map(DrillState::from));
        }
    }
    Ok(drills)
}

pub async fn show(
    State(state): State<WebState>,
    caller: Caller,
    Path(id): Path<String>,
    asked: Result<Arguments<Looks>, QueryRejection>,
) -> Result<Json<RolloutShown>, ApiError> {
    may_read(&state, &caller)?;
    let looks = arguments(asked)?.looks.unwrap_or(MAX_LOOKS);
    let shown = state.rollouts.show_with(&id, looks).await.map_err(WebError::from)?;
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
