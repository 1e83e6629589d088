//! Builds in sums, and what of one runs and waits.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query as Arguments, State};
use kiln_scheduler::journal::BuildSummary;
use serde::Deserialize;

use super::search::Search;
use super::told;
use crate::api::{arguments, limit, page};
use crate::error::{ApiError, WebError};
use crate::format::now;
use crate::json::{Build, Builds, Invocation, Invocations, Told, cursor};
use crate::progress::Progress;
use crate::state::WebState;
use crate::{find, live};

#[derive(Deserialize, schemars::JsonSchema)]
pub struct BuildsFilter {
    limit: Option<usize>,
    before: Option<String>,
}

pub async fn builds(
    State(state): State<WebState>,
    filter: Result<Arguments<BuildsFilter>, QueryRejection>,
) -> Result<Json<Builds>, ApiError> {
    let filter = arguments(filter)?;
    let page = page(filter.limit, filter.before.as_deref())?;
    let found = state.journal.builds(page).await?;
    let (queue, now) = (state.queue.snapshot().await?, now());
    let build = |build| Build::new(build, Progress::of(&state.journal, build, &queue, now));
    let last = found.last().filter(|_| found.len() == page.limit);
    let next_before = last.map(|last| cursor(last.first_seq));
    Ok(Json(Builds { builds: found.iter().map(build).collect(), next_before }))
}

pub async fn invocations(
    State(state): State<WebState>,
    wanted: Result<Arguments<Search>, QueryRejection>,
) -> Result<Json<Invocations>, ApiError> {
    let wanted = arguments(wanted)?;
    wanted.check()?;
    let found = wanted.find(&state.tests.streams, limit(wanted.limit)?).await?;
    let invocations = found.builds.iter().map(|it| Invocation::from(&it.summary)).collect();
    Ok(Json(Invocations { invocations, next_before: found.next }))
}

pub async fn build(
    State(state): State<WebState>,
    Path(invocation): Path<String>,
) -> Result<Json<Build>, ApiError> {
    let queue = state.queue.snapshot().await?;
    let invocation = find::invocation(&state, &queue, &invocation).await?;
    let operations = live::of_build(&state, &queue, &invocation).await;
    let told = told::load(&state, &invocation).await?;
    let told = told.map(|told| Told::new(&told.noted.summary, &told.view));
    let build = match state.journal.build(&invocation).await? {
        Some(build) => build,
        // It has begun in this moment, or asks for nothing here.
        None if !operations.is_empty() || told.is_some() => {
            BuildSummary { invocation_id: invocation, ..BuildSummary::default() }
        }
        None => {
            let hint = "Bazel prints its invocation id at the start of a build; the first \
                        characters are enough where one build begins so.";
            return Err(WebError::not_found("no build has this invocation id", hint).into());
        }
    };
    let progress = Progress::of(&state.journal, &build, &queue, now());
    Ok(Json(Build { operations, told, ..Build::new(&build, progress) }))
}
