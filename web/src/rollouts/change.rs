//! Rollouts are started, paused, let on and aborted; deploy locks are taken and given back.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use kiln_cas::services::account_of;
use kiln_deploy::rollouts::control::{By, Command, LockShown, Start};
use kiln_deploy::rollouts::parts::Place;
use kiln_deploy::rollouts::plan;

use super::api::instance;
use crate::error::{ApiError, WebError};
use crate::json::{
    DeployLock, LockRequest, RolloutAbandon, RolloutPlanRequest, RolloutPlanned, RolloutRequest,
    RolloutSaid, RolloutSay, RolloutShown, UnlockRequest,
};
use crate::releases::api::name;
use crate::state::WebState;
use crate::verdicts::{Caller, body};

/// The name of the caller. Errors: they may not release in the instance that promotes.
fn may(state: &WebState, caller: &Caller) -> Result<String, WebError> {
    caller.may_release(&*state.access, &instance(state))?;
    Ok(account_of(&*state.access, &caller.0).to_string())
}

fn place(service: String, environment: String) -> Result<Place, WebError> {
    let named = plan::is_name(&service) && plan::is_name(&environment);
    let wrong = || {
        let hint = "Names have 1 to 100 letters, digits, `-`, `_` and `.`.";
        WebError::invalid("that is no service in an environment", hint)
    };
    named.then_some(Place { service, environment }).ok_or_else(wrong)
}

/// A lock of an environment that nobody has would hold up nothing.
fn known(state: &WebState, environment: &str) -> Result<(), WebError> {
    if let Some(keeper) = &state.promotion
        && !keeper.pipeline().environments.contains_key(environment)
    {
        let message = format!("there is no environment {environment:?}");
        return Err(WebError::not_found(message, "`kiln env list` says which there are."));
    }
    Ok(())
}

async fn shown(state: &WebState, id: &str) -> Result<Json<RolloutShown>, ApiError> {
    let shown = state.rollouts.show(id).await.map_err(WebError::from)?;
    Ok(Json(RolloutShown::from(&shown)))
}

pub async fn start(
    State(state): State<WebState>,
    caller: Caller,
    asked: Result<Json<RolloutRequest>, JsonRejection>,
) -> Result<Json<RolloutShown>, ApiError> {
    let by = may(&state, &caller)?;
    let asked = body(asked)?;
    let ask = Start {
        declared: asked.declared,
        release: name(&asked.release)?,
        environment: asked.environment,
        by,
        reason: asked.reason,
        supersede: asked.supersede,
        again: asked.again,
        drill: asked.drill,
        without_drill: asked.without_drill,
        previous: asked.previous.as_deref().map(name).transpose()?,
    };
    // Whoever asked may go away: what was begun is ended all the same.
    let control = state.rollouts.clone();
    let starting = tokio::spawn(async move { control.start(&ask).await });
    let stopped = |_| WebError::failed("the start was stopped");
    let started = starting.await.map_err(stopped)?.map_err(WebError::from)?;
    shown(&state, &started.id).await
}

/// What a declaration would do: it asks the targets, as a start would, and changes nothing.
pub async fn plan(
    State(state): State<WebState>,
    caller: Caller,
    asked: Result<Json<RolloutPlanRequest>, JsonRejection>,
) -> Result<Json<RolloutPlanned>, ApiError> {
    may(&state, &caller)?;
    let RolloutPlanRequest { declared, environment } = body(asked)?;
    let preview = state.rollouts.preview(&declared, &environment).await.map_err(WebError::from)?;
    Ok(Json(RolloutPlanned::from(preview)))
}

pub async fn say(
    State(state): State<WebState>,
    caller: Caller,
    asked: Result<Json<RolloutSay>, JsonRejection>,
) -> Result<Json<RolloutShown>, ApiError> {
    let name = may(&state, &caller)?;
    let RolloutSay { id, what, reason } = body(asked)?;
    let command = match what {
        RolloutSaid::Pause => Command::Pause,
        RolloutSaid::Resume => Command::Resume,
        RolloutSaid::Promote => Command::Promote,
        RolloutSaid::Abort => Command::Abort,
    };
    state.rollouts.say(&id, command, &By { name, reason }).await.map_err(WebError::from)?;
    shown(&state, &id).await
}

/// Gives up a rollout whose records cannot be read. It cannot be shown, so the answer is what was asked.
pub async fn abandon(
    State(state): State<WebState>,
    caller: Caller,
    asked: Result<Json<RolloutAbandon>, JsonRejection>,
) -> Result<Json<RolloutAbandon>, ApiError> {
    let name = may(&state, &caller)?;
    let asked = body(asked)?;
    let by = By { name, reason: asked.reason.clone() };
    state.rollouts.abandon(&asked.id, &by).await.map_err(WebError::from)?;
    Ok(Json(asked))
}

pub async fn lock(
    State(state): State<WebState>,
    caller: Caller,
    asked: Result<Json<LockRequest>, JsonRejection>,
) -> Result<Json<DeployLock>, ApiError> {
    let by = may(&state, &caller)?;
    let LockRequest { service, environment, reason, lasts_s } = body(asked)?;
    let place = place(service, environment)?;
    known(&state, &place.environment)?;
    let lasts = lasts_s.saturating_mul(1_000);
    let lock = state.rollouts.lock(&place, &by, &reason, lasts).await.map_err(WebError::from)?;
    Ok(Json(DeployLock::from(&LockShown { place, lock })))
}

pub async fn unlock(
    State(state): State<WebState>,
    caller: Caller,
    asked: Result<Json<UnlockRequest>, JsonRejection>,
) -> Result<Json<DeployLock>, ApiError> {
    let by = may(&state, &caller)?;
    let UnlockRequest { service, environment, reason } = body(asked)?;
    let place = place(service, environment)?;
    let lock = state.rollouts.unlock(&place, &by, &reason).await.map_err(WebError::from)?;
    Ok(Json(DeployLock::from(&LockShown { place, lock })))
}
