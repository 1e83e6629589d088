//! Executions as the journal keeps them, and what a name may mean.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query as Arguments, State};
use kiln_scheduler::journal::{Page, Query};
use serde::Deserialize;

use crate::api::{arguments, page, parse_action};
use crate::error::{ApiError, WebError};
use crate::find;
use crate::json::{Execution, Executions, Found, cursor};
use crate::state::WebState;

#[derive(Deserialize, schemars::JsonSchema)]
pub struct Filter {
    /// `HASH/SIZE`, with `sha256/` or `blake3/` in front; without, SHA-256.
    action: Option<String>,
    target: Option<String>,
    mnemonic: Option<String>,
    invocation: Option<String>,
    limit: Option<usize>,
    before: Option<String>,
}

impl Filter {
    fn query(&self) -> Result<Query, WebError> {
        let given = [self.action.is_some(), self.target.is_some(), self.invocation.is_some()];
        if given.iter().filter(|given| **given).count() > 1 {
            let message = "action, target and invocation exclude each other";
            return Err(WebError::invalid(message, "Give one of them."));
        }
        if self.mnemonic.is_some() && self.target.is_none() {
            let hint = "Give the target as well, or leave the mnemonic out.";
            return Err(WebError::invalid("mnemonic was given without target", hint));
        }
        if let Some(action) = &self.action {
            return Ok(Query::Action(parse_action(action)?));
        }
        if let Some(target) = &self.target {
            let (target, mnemonic) = (target.clone(), self.mnemonic.clone());
            return Ok(Query::Target { target, mnemonic });
        }
        Ok(self.invocation.clone().map_or(Query::Recent, Query::Invocation))
    }

    fn page(&self) -> Result<Page, WebError> {
        page(self.limit, self.before.as_deref())
    }
}

pub async fn list(
    State(state): State<WebState>,
    filter: Result<Arguments<Filter>, QueryRejection>,
) -> Result<Json<Executions>, ApiError> {
    let filter = arguments(filter)?;
    let page = filter.page()?;
    let entries = state.journal.executions(&filter.query()?, page).await?;
    let last = entries.last().filter(|_| entries.len() == page.limit);
    let next_before = last.map(|last| cursor(last.seq));
    let executions = entries.iter().map(Execution::from).collect();
    Ok(Json(Executions { executions, next_before }))
}

pub async fn one(
    State(state): State<WebState>,
    Path(id): Path<String>,
) -> Result<Json<Execution>, ApiError> {
    let entry = state.journal.execution(&id).await?.ok_or_else(|| {
        let hint = "It may have been removed: the journal keeps the newest ones.";
        WebError::not_found("no execution has this id", hint)
    })?;
    Ok(Json(Execution::from(&entry)))
}

#[derive(Deserialize, schemars::JsonSchema)]
pub struct Name {
    name: String,
}

pub async fn named(
    State(state): State<WebState>,
    name: Result<Arguments<Name>, QueryRejection>,
) -> Result<Json<Found>, ApiError> {
    let (found, operations) = find::find(&state, &arguments(name)?.name).await?;
    Ok(Json(Found { executions: found.iter().map(Execution::from).collect(), operations }))
}
