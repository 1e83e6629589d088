//! What operators, people and policies did, newest first.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query as Arguments, State};
use http::StatusCode;
use kiln_cas::access::Right;
use kiln_cas::stores::audit::AuditEntry as Kept;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::api::arguments;
use crate::error::{ApiError, WebError};
use crate::json::{AuditCheck, AuditEntries, AuditEntry, AuditExport};
use crate::state::WebState;
use crate::verdicts::Caller;

/// Entries of an answer that names no `limit`, and most of one.
const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 1_000;

#[derive(Deserialize, JsonSchema)]
pub struct Filter {
    limit: Option<usize>,
    /// Only entries before this number.
    before: Option<u64>,
    /// Only what was done by those whose names hold this.
    actor: Option<String>,
    /// Only what was done in this way, or in ways that begin so: `release.`.
    action: Option<String>,
    /// Only what was done to what holds this in its name.
    subject: Option<String>,
}

pub async fn entries(
    State(state): State<WebState>,
    caller: Caller,
    filter: Result<Arguments<Filter>, QueryRejection>,
) -> Result<Json<AuditEntries>, ApiError> {
    may_see(&state, &caller)?;
    let filter = arguments(filter)?;
    let limit = filter.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT);
    let asks = [&filter.actor, &filter.action, &filter.subject].iter().any(|it| it.is_some());
    let at_once = if asks { MAX_LIMIT } else { limit };
    let (mut found, mut before, mut looked_at) = (Vec::new(), filter.before, 0);
    while found.len() < limit && looked_at < LOOKED_AT && before != Some(1) {
        let page = state.audit.list_newest(before, at_once).await?;
        // A page may be short because of entries that cannot be read: only an empty one is the end.
        if page.is_empty() {
            before = None;
            break;
        }
        looked_at += page.len();
        for entry in page {
            if found.len() == limit {
                break;
            }
            before = Some(entry.sequence);
            if fits(&filter, &entry) {
                found.push(entry);
            }
        }
    }
    let entries = found.iter().map(AuditEntry::from).collect();
    Ok(Json(AuditEntries { entries, next_before: before.filter(|it| *it > 1) }))
}

/// Entries that are looked through for those that are asked for.
const LOOKED_AT: usize = 20_000;

fn fits(filter: &Filter, entry: &Kept) -> bool {
    let has =
        |wanted: &Option<String>, text: &str| wanted.as_ref().is_none_or(|it| text.contains(it));
    let event = &entry.event;
    let action = filter.action.as_ref().is_none_or(|it| event.action.starts_with(it));
    action && has(&filter.actor, &event.actor) && has(&filter.subject, &event.subject)
}

#[derive(Deserialize, JsonSchema)]
pub struct After {
    /// Only what comes after this entry.
    #[serde(default)]
    after: u64,
}

/// A page of the log as it was hashed, with the checkpoints that were signed.
pub async fn export(
    State(state): State<WebState>,
    caller: Caller,
    after: Result<Arguments<After>, QueryRejection>,
) -> Result<Json<AuditExport>, ApiError> {
    may_see(&state, &caller)?;
    let After { after } = arguments(after)?;
    let exported = state.checkpoints.export(after, MAX_LIMIT).await;
    let (lines, next_after) = exported.map_err(|error| {
        let message = kiln_net::causes::chain(&error);
        tracing::warn!(error = message, "the audit log cannot be exported");
        WebError::failed(message)
    })?;
    let lines = lines.iter().map(serde_json::to_value).collect::<Result<_, _>>();
    let lines = lines.map_err(|error| WebError::failed(error.to_string()))?;
    Ok(Json(AuditExport { lines, next_after }))
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
