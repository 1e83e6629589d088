//! Merge queues, for programs.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query as Arguments, State};
use kiln_ci::queue::RunId;
use kiln_ci::queue::hosted::Shown;
use kiln_ci::queue::serving::{LaneName, RequestId};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::api::arguments;
use crate::error::{ApiError, WebError};
use crate::json::{
    MergeChangeShown, MergeQueueShown, MergeQueueSummary, MergeQueues, MergeRan, MergeRequest,
};
use crate::state::WebState;

/// Changes that have left, where nobody says how many.
const USUAL_ENDED: usize = 50;
const MAX_ENDED: usize = 500;

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ended {
    /// How many of the changes that have left are listed; 50 where this is absent.
    ended: Option<usize>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Branch {
    /// The branch, without `refs/heads/`.
    branch: String,
}

pub fn named(name: &str) -> Result<LaneName, WebError> {
    LaneName::new(name).map_err(|error| WebError::invalid(error.to_string(), "Correct the name."))
}

pub async fn list(State(state): State<WebState>) -> Result<Json<MergeQueues>, ApiError> {
    Ok(Json(listed(&state).await?))
}

pub async fn listed(state: &WebState) -> Result<MergeQueues, WebError> {
    let mut queues = Vec::new();
    let now = state.merge_queues.now();
    for (name, head) in state.merge_queues.heads().await? {
        let lane = state.merge_queues.lane_of(&name).await?;
        queues.push(MergeQueueSummary::of(&name, &head, lane.as_ref(), now));
    }
    Ok(MergeQueues { queues })
}

pub async fn found(state: &WebState, queue: &str, ended: usize) -> Result<Shown, WebError> {
    Ok(state.merge_queues.show(&named(queue)?, ended.min(MAX_ENDED)).await?)
}

pub async fn show(
    State(state): State<WebState>,
    Path(queue): Path<String>,
    ended: Result<Arguments<Ended>, QueryRejection>,
) -> Result<Json<MergeQueueShown>, ApiError> {
    let ended = arguments(ended)?.ended.unwrap_or(USUAL_ENDED);
    Ok(Json(MergeQueueShown::from(&found(&state, &queue, ended).await?)))
}

pub async fn change(
    State(state): State<WebState>,
    Path(queue): Path<String>,
    branch: Result<Arguments<Branch>, QueryRejection>,
) -> Result<Json<MergeChangeShown>, ApiError> {
    let Branch { branch } = arguments(branch)?;
    let shown = MergeChangeShown::of(&found(&state, &queue, MAX_ENDED).await?, &branch);
    if shown.change.is_none() && shown.asked.is_none() && shown.ended.is_none() {
        let message = format!("there is no change of branch {branch} in the queue");
        let hint = "`kiln queue add` adds it; of what has left the last 500 are known.";
        return Err(WebError::not_found(message, hint).into());
    }
    Ok(Json(shown))
}

pub async fn run(
    State(state): State<WebState>,
    Path((queue, run)): Path<(String, u64)>,
) -> Result<Json<MergeRan>, ApiError> {
    Ok(Json(ran(&state, &queue, run).await?))
}

pub async fn ran(state: &WebState, queue: &str, run: u64) -> Result<MergeRan, WebError> {
    let ran = state.merge_queues.run_of(&named(queue)?, RunId(run)).await?;
    Ok(MergeRan::from(&ran))
}

pub async fn request(
    State(state): State<WebState>,
    Path((queue, request)): Path<(String, u64)>,
) -> Result<Json<MergeRequest>, ApiError> {
    let queue = named(&queue)?;
    let asked = state.merge_queues.request(&queue, RequestId(request)).await;
    Ok(Json(MergeRequest::of(&queue, &asked.map_err(WebError::from)?)))
}
