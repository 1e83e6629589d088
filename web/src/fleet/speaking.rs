//! What agents say and hear. Each call names its service, and is refused to whoever may not speak for it before anything
//! is looked up.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::response::Response;
use futures_util::StreamExt as _;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use kiln_cas::access::Refused;
use kiln_cas::{Digest, DigestFunction};
use kiln_deploy::agent::{Report, Speaker};
use kiln_deploy::fleet::HEARTBEAT;
use kiln_deploy::oci::ContentDigest;

use super::versions::release;
use crate::error::{ApiError, WebError};
use crate::json::{
    AgentAnswer, AgentFetch, AgentHeard, AgentOrder, AgentQuestion, AgentReport, Release,
};
use crate::state::WebState;
use crate::verdicts::{Caller, body};

const HINT: &str =
    "Give the agent credentials with the role agent for its service; docs/agents.md has more.";

/// Whose credentials the caller has, where they may speak for the service; empty where the server asks nobody who
/// calls. Errors: they may not.
pub fn account(state: &WebState, caller: &Caller, speaker: &Speaker) -> Result<String, WebError> {
    let service = format!("{}/{}", speaker.place.service, speaker.place.environment);
    match state.access.check_host(&caller.0, &service) {
        Ok(()) => Ok(state.access.name(&caller.0).map(|it| it.to_string()).unwrap_or_default()),
        Err(refused) => {
            let status = match refused {
                Refused::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
                Refused::Denied(_) => StatusCode::FORBIDDEN,
            };
            Err(WebError { status, message: refused.to_string(), hint: HINT.to_owned() })
        }
    }
}

pub async fn report(
    State(state): State<WebState>,
    caller: Caller,
    said: Result<Json<AgentReport>, JsonRejection>,
) -> Result<Json<AgentHeard>, ApiError> {
    let malformed = |error: &dyn std::error::Error| {
        WebError::invalid(error.to_string(), "Are agent and server of the same version?")
    };
    let report = Report::try_from(body(said)?).map_err(|error| malformed(&error))?;
    let account = account(&state, &caller, &report.from)?;
    state.fleet.report(&report, &account).await.map_err(WebError::from)?;
    Ok(Json(AgentHeard { heartbeat_s: HEARTBEAT.as_secs() }))
}

pub async fn order(
    State(state): State<WebState>,
    caller: Caller,
    asked: Result<Json<AgentQuestion>, JsonRejection>,
) -> Result<Json<AgentAnswer>, ApiError> {
    let AgentQuestion { from, known, wait_s } = body(asked)?;
    let speaker = Speaker::from(from);
    let account = account(&state, &caller, &speaker)?;
    let wait = Duration::from_secs(wait_s);
    let order = state.fleet.next_order(&speaker, &account, known.into(), wait).await;
    let order = order.map_err(WebError::from)?.as_ref().map(AgentOrder::from);
    Ok(Json(AgentAnswer { order }))
}

/// The release that an agent asks for, if it was told to run it.
pub async fn told(
    state: &WebState,
    caller: &Caller,
    fetch: &AgentFetch,
) -> Result<ContentDigest, WebError> {
    let speaker = Speaker::from(fetch.from.clone());
    let account = account(state, caller, &speaker)?;
    let version = digest(&fetch.version)?;
    state.fleet.may_fetch(&speaker, &account, &version).await?;
    Ok(version)
}

fn digest(text: &str) -> Result<ContentDigest, WebError> {
    text.parse().map_err(|error: kiln_deploy::oci::DigestError| {
        WebError::invalid(error.to_string(), "Name a digest: sha256:…")
    })
}

pub async fn content(
    State(state): State<WebState>,
    caller: Caller,
    asked: Result<Json<AgentFetch>, JsonRejection>,
) -> Result<Json<Release>, ApiError> {
    let version = told(&state, &caller, &body(asked)?).await?;
    Ok(Json(Release::from(&release(&state, &version).await?)))
}

pub async fn blob(
    State(state): State<WebState>,
    caller: Caller,
    asked: Result<Json<AgentFetch>, JsonRejection>,
) -> Result<Response, ApiError> {
    let asked = body(asked)?;
    let version = told(&state, &caller, &asked).await?;
    let wanted = digest(asked.blob.as_deref().unwrap_or_default())?;
    let entry = release(&state, &version).await?;
    let none =
        || WebError::not_found(format!("{wanted} is no part of {version}"), "Ask for another.");
    let (_, size) = entry.content.iter().find(|(it, _)| *it == wanted).ok_or_else(none)?;
    let stored = Digest::from_hex(wanted.hex().as_bytes(), *size, DigestFunction::Sha256);
    let stored = stored.map_err(|_| none())?;
    let rest = size.saturating_sub(asked.start).min(asked.length.unwrap_or(u64::MAX));
    let body = if rest == 0 {
        Body::empty()
    } else {
        let read =
            state.blobs.read(&stored, asked.start, Some(rest)).await.map_err(WebError::from)?;
        let fleet = state.fleet.clone();
        Body::from_stream(read.into_stream().map(move |chunk| {
            // After the first byte the only way to report an error is to end the body early.
            chunk
                .inspect(|it| fleet.give(it.len()))
                .inspect_err(|error| tracing::warn!(%error, "a download ended early"))
        }))
    };
    let answer = Response::builder()
        .header(CONTENT_TYPE, "application/octet-stream")
        .header(CONTENT_LENGTH, rest)
        .body(body);
    Ok(answer.map_err(|error| WebError::failed(error.to_string()))?)
}
