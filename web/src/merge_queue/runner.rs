//! What the runners of queues say. Each call names its queue, and is refused to whoever may not run it before anything
//! is looked up.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use kiln_cas::access::Right;
use kiln_ci::queue::hosted::{LEASE, Take};
use kiln_ci::queue::serving::LaneName;

use super::api::named;
use crate::error::{ApiError, WebError};
use crate::json::{MergeAsked, MergeCall, MergeHeard, MergeLane, MergeStep, MergeTake, MergeTaken};
use crate::state::WebState;
use crate::verdicts::{Caller, body};

/// Names of addresses beside queues.
const TAKEN: [&str; 3] = ["say", "runner", "forget"];

fn may(state: &WebState, caller: &Caller, queue: &str) -> Result<LaneName, WebError> {
    let queue = named(queue)?;
    caller.may_queue(&*state.access, Right::Land, queue.as_str())?;
    Ok(queue)
}

pub async fn take(
    State(state): State<WebState>,
    caller: Caller,
    said: Result<Json<MergeTake>, JsonRejection>,
) -> Result<Json<MergeTaken>, ApiError> {
    let said = body(said)?;
    let queue = may(&state, &caller, &said.queue)?;
    if TAKEN.contains(&queue.as_str()) {
        let message = format!("no queue is called {:?}", queue.as_str());
        return Err(WebError::invalid(message, "The API has an address of that name.").into());
    }
    if said.nonce.is_empty() || said.nonce.len() > 100 {
        return Err(WebError::invalid("a runner has a nonce of 1 to 100 bytes", "Name one.").into());
    }
    let taken = state.merge_queues.take(&queue, &Take::from(said)).await;
    let taken = taken.map_err(WebError::from)?;
    Ok(Json(MergeTaken { fence: taken.fence, lease_s: LEASE.as_secs() }))
}

pub async fn lane(
    State(state): State<WebState>,
    caller: Caller,
    said: Result<Json<MergeCall>, JsonRejection>,
) -> Result<Json<MergeLane>, ApiError> {
    let MergeCall { queue, fence } = body(said)?;
    let queue = may(&state, &caller, &queue)?;
    let lane = state.merge_queues.lane(&queue, fence).await.map_err(WebError::from)?;
    Ok(Json(MergeLane { lane }))
}

pub async fn requests(
    State(state): State<WebState>,
    caller: Caller,
    said: Result<Json<MergeCall>, JsonRejection>,
) -> Result<Json<MergeAsked>, ApiError> {
    let MergeCall { queue, fence } = body(said)?;
    let queue = may(&state, &caller, &queue)?;
    let requests = state.merge_queues.pending(&queue, fence).await.map_err(WebError::from)?;
    Ok(Json(MergeAsked { requests }))
}

pub async fn step(
    State(state): State<WebState>,
    caller: Caller,
    said: Result<Json<MergeStep>, JsonRejection>,
) -> Result<Json<MergeHeard>, ApiError> {
    let said = body(said)?;
    let queue = may(&state, &caller, &said.queue)?;
    let (fence, number) = (said.fence, said.number);
    let queues = state.merge_queues.clone();
    // A runner that goes away sends it again: what was begun is ended all the same.
    let writing =
        tokio::spawn(async move { queues.step(&queue, fence, number, &said.step()).await });
    let stopped = |_| WebError::failed("the step was stopped");
    writing.await.map_err(stopped)?.map_err(WebError::from)?;
    Ok(Json(MergeHeard { fence }))
}

pub async fn leave(
    State(state): State<WebState>,
    caller: Caller,
    said: Result<Json<MergeCall>, JsonRejection>,
) -> Result<Json<MergeHeard>, ApiError> {
    let MergeCall { queue, fence } = body(said)?;
    let queue = may(&state, &caller, &queue)?;
    state.merge_queues.leave(&queue, fence).await.map_err(WebError::from)?;
    Ok(Json(MergeHeard { fence }))
}
