//! What operators, people and policies did, newest first.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query as Arguments, State};
use http::StatusCode;
use kiln_cas::access::Right;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::web::api::arguments;
use crate::web::error::{ApiError, WebError};
use crate::web::json::{AuditCheck, AuditEntries, AuditEntry};
use crate::web::state::WebState;
use crate::web::verdicts::Caller;

/// Entries of an answer that names no `limit`, and most of one.
const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 1_000;

#[derive(Deserialize, JsonSchema)]
pub struct Filter {
    limit: Option<usize>,
    /// Only entries before this number.
    before: Option<u64>,
}

pub async fn entries(
    State(state): State<WebState>,
    caller: Caller,
    filter: Result<Arguments<Filter>, QueryRejection>,
) -> Result<Json<AuditEntries>, ApiError> {
    may_see(&state, &caller)?;
    let Filter { limit, before } = arguments(filter)?;
    let limit = limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT);
    let newest = state.audit.list_newest(before, limit).await?;
    let next = newest.last().map(|it| it.sequence).filter(|it| *it > 1 && newest.len() == limit);
    let entries = newest.iter().map(AuditEntry::from).collect();
    Ok(Json(AuditEntries { entries, next_before: next }))
}

/// Whether each entry is bound to the one before it.
pub async fn check(
    State(state): State<WebState>,
    caller: Caller,
) -> Result<Json<AuditCheck>, ApiError> {
    may_see(&state, &caller)?;
    let entries = state.audit.head().await?.map_or(0, |(sequence, _)| sequence);
    let broken = state.audit.verify(1, entries).await?.map(|it| it.to_string());
    Ok(Json(AuditCheck { entries, broken }))
}

fn may_see(state: &WebState, caller: &Caller) -> Result<(), WebError> {
    let access = state.access.check_everywhere(&caller.0, Right::Administer);
    access.map_err(|refused| WebError {
        status: StatusCode::FORBIDDEN,
        message: refused.to_string(),
        hint: "The audit log takes the role admin in all instances.".to_owned(),
    })
}
