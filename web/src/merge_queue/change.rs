//! Changes are added to queues and taken out; queues are paused and go on.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use kiln_cas::access::Right;
use kiln_cas::services::account_of;
use kiln_ci::queue::Branch;
use kiln_ci::queue::hosted::Ask;
use kiln_ci::queue::serving::Request;

use super::api::named;
use crate::error::{ApiError, WebError};
use crate::json::{MergeRequest, MergeSaid, MergeSay};
use crate::state::WebState;
use crate::verdicts::{Caller, body};

const PRIORITY: u8 = 5;

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
    let id = state.merge_queues.ask(&queue, &ask).await.map_err(WebError::from)?;
    let asked = state.merge_queues.request(&queue, id).await.map_err(WebError::from)?;
    Ok(Json(MergeRequest::of(&queue, &asked)))
}

fn request(said: MergeSay) -> Result<Request, WebError> {
    let MergeSay { what, branch, priority, reason, .. } = said;
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
            Request::Add { branch: branch()?, priority: priority.unwrap_or(PRIORITY) }
        }
        MergeSaid::Remove => Request::Remove { branch: branch()? },
        MergeSaid::Pause => Request::Pause { why: reason.unwrap_or_else(|| "by hand".to_owned()) },
        MergeSaid::Resume => Request::Resume,
    })
}
