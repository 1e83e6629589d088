//! Releases are promoted, approved, and returned to.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use kiln_cas::services::account_of;
use kiln_deploy::promotion::{Actor, Ask, Keeper, Say};

use super::error::none;
use crate::error::{ApiError, WebError};
use crate::json::{
    PlacedRelease, PromotionAnswer, PromotionChange, PromotionRequest, RollbackRequest, Said,
    SayRequest,
};
use crate::releases::api::name;
use crate::state::WebState;
use crate::verdicts::{Caller, body};

/// Seconds that a promotion may wait: a month.
const MAX_WAIT: u64 = 31 * 86_400;
/// Bytes of a text of a request.
const MAX_TEXT: usize = 8 << 10;

/// The keeper and who it is, if they may release in its instance.
fn may(
    state: &WebState,
    caller: &Caller,
    automation: bool,
) -> Result<(Arc<Keeper>, Actor), WebError> {
    let keeper = state.promotion.clone().ok_or_else(none)?;
    caller.may_release(&*state.access, &keeper.pipeline().instance)?;
    let name = account_of(&*state.access, &caller.0).to_string();
    Ok((keeper, Actor { name, automation }))
}

fn check(texts: &[&String]) -> Result<(), WebError> {
    match texts.iter().any(|it| it.len() > MAX_TEXT) {
        true => Err(WebError::invalid("a text of the request is too long", "Say it shorter.")),
        false => Ok(()),
    }
}

fn seconds(lasts: u64) -> i64 {
    i64::try_from(lasts).unwrap_or(i64::MAX)
}

pub async fn promote(
    State(state): State<WebState>,
    caller: Caller,
    asked: Result<Json<PromotionRequest>, JsonRejection>,
) -> Result<Json<PromotionAnswer>, ApiError> {
    let asked = body(asked)?;
    check(&[&asked.environment, &asked.release, &asked.reason])?;
    let (keeper, by) = may(&state, &caller, asked.automation)?;
    if asked.wait_s.is_some_and(|it| it > MAX_WAIT) {
        let message = format!("a promotion waits for {MAX_WAIT} s at most");
        return Err(WebError::invalid(message, "Ask again later.").into());
    }
    let ask = Ask {
        environment: asked.environment.clone(),
        release: name(&asked.release)?,
        by,
        reason: asked.reason,
        again: asked.again,
        wait: asked.wait_s.map(seconds),
    };
    let (environment, dry_run) = (asked.environment, asked.dry_run);
    // Whoever asked may go away: what was begun is ended all the same.
    let promoting = tokio::spawn(async move {
        match dry_run {
            true => keeper.judge(&ask).await,
            false => keeper.promote(&ask).await,
        }
    });
    let stopped = |_| WebError::failed("the promotion was stopped");
    let outcome = promoting.await.map_err(stopped)?.map_err(WebError::from)?;
    Ok(Json(PromotionAnswer::new(&environment, &asked.release, &outcome, dry_run)))
}

pub async fn roll_back(
    State(state): State<WebState>,
    caller: Caller,
    asked: Result<Json<RollbackRequest>, JsonRejection>,
) -> Result<Json<PlacedRelease>, ApiError> {
    let RollbackRequest { environment, to, reason, automation } = body(asked)?;
    check(&[&environment, &reason])?;
    let (keeper, by) = may(&state, &caller, automation)?;
    let to = to.map(|it| name(&it)).transpose()?;
    let say = Say { environment, by, reason };
    let (placed, _) = keeper.roll_back(&say, to.as_ref()).await.map_err(WebError::from)?;
    Ok(Json(PlacedRelease::from(&placed)))
}

pub async fn say(
    State(state): State<WebState>,
    caller: Caller,
    asked: Result<Json<SayRequest>, JsonRejection>,
) -> Result<Json<PromotionChange>, ApiError> {
    let SayRequest { environment, what, release: of, reason, lasts_s } = body(asked)?;
    check(&[&environment, &reason])?;
    let (keeper, by) = may(&state, &caller, false)?;
    let needed = || WebError::invalid("release is missing", "Name a release: team/app:1.4.2.");
    let of = of.map(|it| name(&it)).transpose()?;
    let of = || of.as_ref().ok_or_else(needed);
    let say = Say { environment, by, reason };
    let lasts = lasts_s.map(seconds);
    let change = match what {
        Said::Approve => keeper.approve(&say, of()?).await,
        Said::Withdraw => keeper.withdraw(&say, of()?).await,
        Said::Hold => keeper.hold(&say, lasts).await,
        Said::Lift => keeper.lift(&say).await,
        Said::AskOverride => keeper.ask_override(&say, of()?, lasts.unwrap_or(0)).await,
        Said::ConfirmOverride => keeper.confirm_override(&say, of()?).await,
    };
    Ok(Json(PromotionChange::from(&change.map_err(WebError::from)?)))
}
