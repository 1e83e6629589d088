//! Runs of pipelines, for programs.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query as Arguments, State};
use kiln_ci::model::Time;
use kiln_ci::pipelines::control::Registered;
use kiln_ci::pipelines::file::Trigger;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::api::{arguments, limit};
use crate::error::{ApiError, WebError};
use crate::json::{
    PipelineDeclared, PipelineLog, PipelineRun, PipelineShown, Pipelines, pipeline_time,
};
use crate::state::WebState;
use crate::verdicts::Caller;

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Page {
    limit: Option<usize>,
    /// An id: only runs that began before it.
    before: Option<String>,
    /// Only those of this pipeline, of the page.
    pipeline: Option<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// The index of the stage.
    pub stage: u32,
    /// The number of the attempt, counted from 1.
    pub attempt: u32,
    /// 0, or what the last answer named.
    #[serde(default)]
    pub offset: u64,
}

pub async fn list(
    State(state): State<WebState>,
    caller: Caller,
    page: Result<Arguments<Page>, QueryRejection>,
) -> Result<Json<Pipelines>, ApiError> {
    Ok(Json(listed(&state, &caller, arguments(page)?).await?))
}

/// Runs of pipelines that the caller may read. Whoever may read none gets an empty list, and no error.
pub async fn listed(state: &WebState, caller: &Caller, page: Page) -> Result<Pipelines, WebError> {
    let limit = limit(page.limit)?;
    let found = state.pipelines.list(page.before.as_deref(), limit).await?;
    let next_before = (found.len() == limit).then(|| found.last().map(|it| it.run.id.clone()));
    let may = |instance: &str| caller.may_read(&*state.access, instance).is_ok();
    let fits = |name: &str| page.pipeline.as_deref().is_none_or(|wanted| wanted == name);
    let runs = found.iter().filter(|it| fits(&it.run.pipeline) && may(&it.run.instance));
    let now = state.pipelines.now();
    let registered = state.pipelines.registered();
    let declared = registered.values().filter(|it| may(&it.instance));
    Ok(Pipelines {
        runs: runs.map(PipelineRun::from).collect(),
        declared: declared.map(|it| declared_as(it, now)).collect(),
        next_before: next_before.flatten(),
    })
}

fn declared_as(it: &Registered, now: Time) -> PipelineDeclared {
    let next = |trigger: &Trigger| match trigger {
        Trigger::Schedule(schedule) => schedule.cron.next(now),
        _ => None,
    };
    let next = it.declared.triggers.iter().filter_map(next).min();
    PipelineDeclared {
        name: it.declared.name.clone(),
        description: it.declared.description.clone(),
        next: next.map(pipeline_time),
    }
}

/// A run that the caller may read; to others it is not there.
pub async fn readable(
    state: &WebState,
    caller: &Caller,
    id: &str,
) -> Result<PipelineShown, WebError> {
    may_read(state, caller, id).await?;
    Ok(PipelineShown::from(&state.pipelines.show(id).await?))
}

async fn may_read(state: &WebState, caller: &Caller, id: &str) -> Result<(), WebError> {
    let run = state.pipelines.of(id).await?;
    caller.may_read(&*state.access, &run.instance)
}

pub async fn show(
    State(state): State<WebState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<PipelineShown>, ApiError> {
    Ok(Json(readable(&state, &caller, &id).await?))
}

pub async fn log(
    State(state): State<WebState>,
    caller: Caller,
    Path(id): Path<String>,
    part: Result<Arguments<Part>, QueryRejection>,
) -> Result<Json<PipelineLog>, ApiError> {
    may_read(&state, &caller, &id).await?;
    let part = arguments(part)?;
    let found = state.pipelines.log((&id, part.stage, part.attempt), part.offset).await;
    let found = found.map_err(WebError::from)?;
    let text = String::from_utf8_lossy(&found.bytes).into_owned();
    Ok(Json(PipelineLog { text, next: found.next, ended: found.is_end }))
}
