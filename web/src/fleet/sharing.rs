//! Pieces of releases for agents: what they are, and who else has them.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::response::Response;
use http::header::CONTENT_TYPE;
use kiln_deploy::agent::Speaker;
use kiln_net::causes::chain;

use super::speaking::{account, told};
use super::versions::release;
use crate::error::{ApiError, WebError};
use crate::json::{AgentFetch, AgentShare, AgentShared};
use crate::state::WebState;
use crate::verdicts::{Caller, body};

/// The list of the pieces of a release, as [`PieceList`](kiln_deploy::swarm::pieces::PieceList) is written.
pub async fn pieces(
    State(state): State<WebState>,
    caller: Caller,
    asked: Result<Json<AgentFetch>, JsonRejection>,
) -> Result<Response, ApiError> {
    let version = told(&state, &caller, &body(asked)?).await?;
    let entry = release(&state, &version).await?;
    let written = state.pieces.written(&entry.content).await;
    let written = written.map_err(|error| WebError::failed(chain(&error).to_string()))?;
    let answer = Response::builder()
        .header(CONTENT_TYPE, "application/octet-stream")
        .body(Body::from(written));
    Ok(answer.map_err(|error| WebError::failed(error.to_string()))?)
}

pub async fn share(
    State(state): State<WebState>,
    caller: Caller,
    said: Result<Json<AgentShare>, JsonRejection>,
) -> Result<Json<AgentShared>, ApiError> {
    let (from, share) = body(said)?.parts().map_err(|error| {
        WebError::invalid(error.to_string(), "Are agent and server of the same version?")
    })?;
    let speaker = Speaker::from(from);
    let account = account(&state, &caller, &speaker)?;
    let shared = state.fleet.share(&speaker, &account, &share).await.map_err(WebError::from)?;
    Ok(Json(AgentShared::from(shared)))
}
