//! Plans that runners work off, for programs: a suite is cut once, and who has room takes the next piece.

use std::time::Duration;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Query as Arguments, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use kiln_ci::plans::{Piece, Plan, PlanError, Turn};
use kiln_net::causes::chain;
use schemars::JsonSchema;
use serde::Deserialize;

use super::api::arguments;
use super::error::{ApiError, WebError};
use super::json::{NewPlan, PlanNext, PlanStanding, PlanTurn};
use super::state::WebState;
use super::verdicts::{Caller, body};

/// Bytes of a plan as JSON: names are quoted, and some signs take several bytes then.
const MAX_BODY: usize = 2 * kiln_ci::plans::MAX_PLAN;

/// What is below `/api/v1`.
pub fn api() -> Router<WebState> {
    let plans = get(standing).post(put).layer(DefaultBodyLimit::max(MAX_BODY));
    Router::new().route("/tests/plans", plans).route("/tests/plans/next", post(next))
}

#[derive(Debug, Deserialize, JsonSchema)]
pub struct Wanted {
    plan: String,
    #[serde(default)]
    instance: String,
}

async fn put(
    State(state): State<WebState>,
    caller: Caller,
    plan: Result<Json<NewPlan>, JsonRejection>,
) -> Result<Json<PlanStanding>, ApiError> {
    let NewPlan { instance, plan: id, pieces, again_after_s, keep_s } = body(plan)?;
    caller.may_run(&*state.access, &instance)?;
    let piece = |it: super::json::PlanPiece| Piece { tests: it.tests, expected_s: it.expected_s };
    let plan = Plan {
        instance,
        id: id.clone(),
        pieces: pieces.into_iter().map(piece).collect(),
        again_after: again_after_s.map(Duration::from_secs),
        keep: keep_s.map(Duration::from_secs),
    };
    let standing = state.plans.put(plan, state.tests.clock.now()).await?;
    Ok(Json(PlanStanding::new(&id, &standing)))
}

async fn next(
    State(state): State<WebState>,
    caller: Caller,
    turn: Result<Json<PlanTurn>, JsonRejection>,
) -> Result<Json<PlanNext>, ApiError> {
    let PlanTurn { instance, plan, runner, attempt, request } = body(turn)?;
    caller.may_run(&*state.access, &instance)?;
    let now = state.tests.clock.now();
    let turn = Turn { runner: &runner, attempt: &attempt, request, now };
    Ok(Json(state.plans.next(&instance, &plan, turn).await?.into()))
}

async fn standing(
    State(state): State<WebState>,
    caller: Caller,
    wanted: Result<Arguments<Wanted>, QueryRejection>,
) -> Result<Json<PlanStanding>, ApiError> {
    let Wanted { plan, instance } = arguments(wanted)?;
    caller.may_read(&*state.access, &instance)?;
    let standing = state.plans.standing(&instance, &plan, state.tests.clock.now()).await?;
    Ok(Json(PlanStanding::new(&plan, &standing)))
}

impl From<PlanError> for WebError {
    fn from(error: PlanError) -> Self {
        let (status, hint) = match &error {
            PlanError::NoPlan(_) => (
                StatusCode::NOT_FOUND,
                "`kiln tests shards … --keep ID` puts one on the server, for a day where --keep-for does not say it.",
            ),
            PlanError::OtherTests(_) => (
                StatusCode::CONFLICT,
                "Its runners work on that one. Give a plan of other tests another name.",
            ),
            PlanError::Refused(_) | PlanError::Invalid(_) => {
                (StatusCode::BAD_REQUEST, "Correct the request; docs/tests.md has more.")
            }
            PlanError::Full => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Plans that are kept for a shorter time (--keep-for) make room sooner.",
            ),
            PlanError::Restless | PlanError::Storage(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "Try again in a moment.")
            }
            PlanError::Damaged { .. } | PlanError::Unwritable(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "The server's log has more.")
            }
        };
        Self { status, message: chain(&error).to_string(), hint: hint.to_owned() }
    }
}
