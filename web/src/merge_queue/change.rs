//! Changes are added to queues and taken out; queues are paused and go on.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use kiln_cas::access::Right;
use kiln_cas::services::account_of;
use kiln_cas::stores::audit::AuditEvent;
use kiln_ci::queue::hosted::{Ask, HostedError};
use kiln_ci::queue::serving::Request;
use kiln_ci::queue::{Branch, USUAL_PRIORITY};
use serde_json::{Value, json};

use super::api::named;
use crate::error::{ApiError, WebError};
use crate::json::{MergeRemoval, MergeRequest, MergeSaid, MergeSay};
use crate::state::WebState;
use crate::verdicts::{Caller, body};

/// Bytes of a reason.
const MAX_REASON: usize = 2_000;

pub async fn say(
    State(state): State<WebState>,
    caller: Caller,
    asked: Result<Json<MergeSay>, JsonRejection>,
) -> Result<Json<MergeRequest>, ApiError> {
    let said = body(asked)?;
    let queue = named(&said.queue)?;
    caller.may_queue(&*state.access, Right::Queue, queue.as_str())?;
    let by = account_of(&*state.access, &caller.0).to_string();
    let ask = Ask { request: request(said)?, by };
    // It is noted first: nobody holds up others in secret.
    if let Some((action, details)) = noted(&ask.request) {
        state.merge_queues.head(&queue).await.map_err(WebError::from)?;
        note(&state, &ask.by, action, queue.as_str(), &details).await?;
    }
    let id = state.merge_queues.ask(&queue, &ask).await.map_err(WebError::from)?;
    let asked = state.merge_queues.request(&queue, id).await.map_err(WebError::from)?;
    Ok(Json(MergeRequest::of(&queue, &asked)))
}

/// A queue that nobody runs any more goes, with all that was kept of it.
pub async fn forget(
    State(state): State<WebState>,
    caller: Caller,
    asked: Result<Json<MergeRemoval>, JsonRejection>,
) -> Result<Json<MergeRemoval>, ApiError> {
    let asked = body(asked)?;
    let queue = named(&asked.queue)?;
    if asked.reason.is_empty() || asked.reason.len() > MAX_REASON {
        return Err(WebError::invalid("reason is missing, or too long", "Say why.").into());
    }
    let head = state.merge_queues.head(&queue).await.map_err(WebError::from)?;
    if head.connected(state.merge_queues.now()) {
        let (queue, holder) = (asked.queue, head.about.name);
        return Err(WebError::from(HostedError::Busy { queue, holder }).into());
    }
    let who = account_of(&*state.access, &caller.0).to_string();
    let details = json!({ "reason": asked.reason });
    note(&state, &who, "merge_queue.forget", queue.as_str(), &details).await?;
    state.merge_queues.forget(&queue).await.map_err(WebError::from)?;
    Ok(Json(asked))
}

/// What is noted of a request. What is added is known by what becomes of it.
fn noted(request: &Request) -> Option<(&'static str, Value)> {
    match request {
        Request::Remove { branch } => {
            Some(("merge_queue.remove", json!({ "branch": branch.as_str() })))
        }
        Request::Pause { why } => Some(("merge_queue.pause", json!({ "reason": why }))),
        Request::Resume => Some(("merge_queue.resume", json!({}))),
        Request::Add { .. } | Request::Mode(_) => None,
    }
}

async fn note(
    state: &WebState,
    who: &str,
    action: &str,
    queue: &str,
    details: &Value,
) -> Result<(), WebError> {
    let event = AuditEvent {
        time: state.merge_queues.now().0 / 1_000,
        actor: who.to_owned(),
        action: action.to_owned(),
        subject: queue.to_owned(),
        details: details.to_string(),
    };
    state.audit.append(event).await?;
    Ok(())
}

fn request(said: MergeSay) -> Result<Request, WebError> {
    let MergeSay { what, branch, priority, reason, .. } = said;
    if reason.as_ref().is_some_and(|it| it.len() > MAX_REASON) {
        return Err(WebError::invalid("the reason is too long", "Say it in fewer words."));
    }
    if priority.is_some_and(|it| it > 9) {
        return Err(WebError::invalid("a priority is 0 to 9", "More goes first."));
    }
    let branch = || {
        let missing = || WebError::invalid("no branch is named", "Name it as `branch`.");
        let name = branch.clone().ok_or_else(missing)?;
        let odd = |error: kiln_ci::queue::NameError| {
            WebError::invalid(error.to_string(), "Name it without refs/heads/.")
        };
        Branch::new(&name).map_err(odd)
    };
    Ok(match what {
        MergeSaid::Add => {
            Request::Add { branch: branch()?, priority: priority.unwrap_or(USUAL_PRIORITY) }
        }
        MergeSaid::Remove => Request::Remove { branch: branch()? },
        MergeSaid::Pause => Request::Pause { why: reason.unwrap_or_else(|| "by hand".to_owned()) },
        MergeSaid::Resume => Request::Resume,
    })
}
