//! Answers of the API about environments and promotions.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query as Arguments, State};
use kiln_deploy::promotion::{Ask, Environment, Keeper, Outcome, Pipeline, Waiting, World};
use kiln_deploy::timestamp::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;

use super::error::none;
use crate::api::{arguments, limit};
use crate::error::{ApiError, WebError};
use crate::format::short;
use crate::json::{
    EnvironmentShown, EnvironmentState, Environments, GateReason, PastPromotion, PromotionSummary,
    gate_reasons,
};
use crate::state::WebState;
use crate::verdicts::Caller;

#[derive(Debug, Deserialize, JsonSchema)]
pub struct Page {
    limit: Option<usize>,
    /// A generation: only promotions before it.
    before: Option<u64>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub struct Which {
    /// The generation of the promotion; absent: the one that stands there now.
    generation: Option<u64>,
}

/// The keeper, for callers who may read in its instance.
pub fn read(state: &WebState, caller: &Caller) -> Result<Arc<Keeper>, WebError> {
    let keeper = state.promotion.clone().ok_or_else(none)?;
    caller.may_read(&*state.access, &keeper.pipeline().instance)?;
    Ok(keeper)
}

pub async fn list(
    State(state): State<WebState>,
    caller: Caller,
) -> Result<Json<Environments>, ApiError> {
    let keeper = read(&state, &caller)?;
    Ok(Json(all(&keeper).await?))
}

/// All environments, with what those that wait wait for.
pub async fn all(keeper: &Keeper) -> Result<Environments, WebError> {
    let (pipeline, world, now) = (keeper.pipeline(), keeper.world().await?, keeper.now());
    let mut environments = Vec::with_capacity(pipeline.order.len());
    for environment in pipeline.order.iter().filter_map(|it| pipeline.environments.get(it)) {
        environments.push(state_of(keeper, &pipeline, environment, (&world, now)).await);
    }
    let (instance, policy) = (pipeline.instance.clone(), pipeline.digest.to_string());
    Ok(Environments { instance, policy, environments })
}

/// The state of one environment; where a promotion waits there, with what it waits for.
async fn state_of(
    keeper: &Keeper,
    pipeline: &Pipeline,
    environment: &Environment,
    (world, now): (&World, Timestamp),
) -> EnvironmentState {
    let mut state = EnvironmentState::new(pipeline, environment, world, now);
    let waits = world.waiting.iter().find(|it| it.environment == environment.name);
    if let (Some(waits), Some(shown)) = (waits, &mut state.waiting) {
        shown.reasons = why(keeper, waits).await;
    }
    state
}

/// What a promotion waits for. Where that cannot be said it is empty, which hinders nobody who looks at the others.
async fn why(keeper: &Keeper, waiting: &Waiting) -> Vec<GateReason> {
    let ask = Ask {
        environment: waiting.environment.clone(),
        release: waiting.release.clone(),
        by: waiting.by.clone(),
        reason: waiting.reason.clone(),
        again: waiting.again,
        wait: None,
    };
    match keeper.judge(&ask).await {
        Ok(
            Outcome::NotNow { decision }
            | Outcome::Refused { decision }
            | Outcome::Waits { decision, .. }
            | Outcome::Promoted { decision, .. },
        ) => gate_reasons(&decision).into_iter().filter(|it| !it.is_met()).collect(),
        Ok(Outcome::Already { .. }) => Vec::new(),
        Err(error) => {
            let error = kiln_net::causes::chain(&error);
            tracing::debug!(error, "what a promotion waits for cannot be said");
            Vec::new()
        }
    }
}

fn found<'a>(pipeline: &'a Pipeline, environment: &str) -> Result<&'a Environment, WebError> {
    pipeline.environments.get(environment).ok_or_else(|| {
        let message = format!("there is no environment {:?}", short(environment, 80));
        WebError::not_found(message, "`kiln env list` says which there are.")
    })
}

/// What was signed of a promotion: that this content passed this policy.
pub async fn summary(
    State(state): State<WebState>,
    caller: Caller,
    Path(environment): Path<String>,
    which: Result<Arguments<Which>, QueryRejection>,
) -> Result<Json<PromotionSummary>, ApiError> {
    let keeper = read(&state, &caller)?;
    let Which { generation } = arguments(which)?;
    found(&keeper.pipeline(), &environment)?;
    let generation = match generation {
        Some(generation) => generation,
        None => keeper.world().await.map_err(WebError::from)?.place(&environment).generation,
    };
    let signed = keeper.summary(&environment, generation).await.map_err(WebError::from)?;
    let envelope = signed.and_then(|it| serde_json::from_slice(&it).ok()).ok_or_else(|| {
        let message = format!("no summary was signed of generation {generation} of {environment}");
        let hint = "Of a promotion one is, where releases.key is set; of a rollback none.";
        WebError::not_found(message, hint)
    })?;
    Ok(Json(PromotionSummary { environment, generation, envelope }))
}

pub async fn show(
    State(state): State<WebState>,
    caller: Caller,
    Path(environment): Path<String>,
    page: Result<Arguments<Page>, QueryRejection>,
) -> Result<Json<EnvironmentShown>, ApiError> {
    let keeper = read(&state, &caller)?;
    let Page { limit: wanted, before } = arguments(page)?;
    let limit = limit(wanted)?;
    let pipeline = keeper.pipeline();
    let found = found(&pipeline, &environment)?;
    let (world, now) = (keeper.world().await.map_err(WebError::from)?, keeper.now());
    let state = state_of(&keeper, &pipeline, found, (&world, now)).await;
    let past = keeper.past(&environment, before, limit).await.map_err(WebError::from)?;
    let next_before = past.last().map(|it| it.placed.generation);
    let next_before = next_before.filter(|it| *it > 1 && past.len() == limit);
    let past = past.iter().map(PastPromotion::from).collect();
    Ok(Json(EnvironmentShown { state, past, next_before }))
}
