//! The JSON API under `/api/v1`. Errors are `{"error": {"message", "hint"}}`.

mod actions;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query as Arguments, State};
use axum::routing::get;
use axum::{Json, Router};
use kiln_cas::Digest;
use kiln_scheduler::Snapshot;
use kiln_scheduler::journal::{BuildSummary, Page, Query};
use kiln_scheduler::snapshot::{OperationView, PropertySetView, WorkerView};
use serde::{Deserialize, Serialize};

use super::content::parse_digest;
use super::error::{ApiError, WebError};
use super::format::now;
use super::json::{
    Build, BuildCounts, Builds, Checked, Checks, Execution, Executions, Found, JournalStatus,
    Status, Storage, cursor, parse_cursor,
};
use super::progress::Progress;
use super::{WebState, find, json, live, progress};

/// Entries of an answer that names no `limit`.
const DEFAULT_LIMIT: usize = 50;
/// Most entries of one answer.
const MAX_LIMIT: usize = 1000;

pub fn routes() -> Router<WebState> {
    Router::new()
        .route("/status", get(status))
        .route("/executions", get(executions))
        .route("/executions/{*id}", get(execution))
        .route("/actions/{function}/{hash}/{size}", get(actions::action))
        .route("/actions/{function}/{hash}/{size}/difference", get(actions::difference))
        .route("/find", get(named))
        .route("/builds", get(builds))
        .route("/builds/{*invocation}", get(build))
        .route("/workers", get(workers))
        .route("/queue", get(queue))
        .route("/hermeticity", get(hermeticity))
        .fallback(unknown)
}

async fn status(State(state): State<WebState>) -> Result<Json<Status>, ApiError> {
    let queue = state.queue.snapshot().await?;
    let storage = (state.storage)();
    let journal = state.journal.stats();
    let shared = match &state.shared {
        Some(shared) => Some(shared.usage().await?),
        None => None,
    };
    Ok(Json(Status {
        version: state.version.to_owned(),
        base_url: state.base_url.to_string(),
        uptime_seconds: state.started.elapsed().unwrap_or_default().as_secs(),
        draining: queue.draining,
        workers: queue.workers.len(),
        slots: queue.slots,
        running: queue.running_count,
        queued: queue.queue_depth,
        oldest_queued_ms: queue.oldest_queued_ms,
        unserved: unserved(&queue),
        storage: Storage {
            blobs: storage.blobs,
            used_bytes: storage.used_bytes,
            reserved_bytes: storage.reserved_bytes,
            max_bytes: storage.max_bytes,
            promised_bytes: storage.promised_bytes,
            evicted_blobs_total: storage.evicted_blobs_total,
            refused_writes_total: storage.refused_writes_total,
            cut_blobs_total: storage.cut_blobs_total,
            wanted_bytes: storage.wanted_bytes,
            actions: storage.actions,
            action_cache_used_bytes: storage.action_cache_used_bytes,
            action_cache_max_bytes: storage.action_cache_max_bytes,
        },
        shared,
        journal: JournalStatus {
            executions: journal.executions,
            builds: journal.builds,
            since_start: BuildCounts::from(&journal.counts),
            pending: journal.pending,
            lost_events: journal.lost_events,
            dropped: journal.dropped,
            learned_durations: journal.durations,
        },
    }))
}

#[derive(Deserialize)]
struct Filter {
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

fn page(limit: Option<usize>, before: Option<&str>) -> Result<Page, WebError> {
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    if limit == 0 || limit > MAX_LIMIT {
        let message = format!("limit {limit} is not between 1 and {MAX_LIMIT}");
        return Err(WebError::invalid(message, "Ask for less, and go on with `before`."));
    }
    let before = match before {
        None => None,
        Some(text) => Some(parse_cursor(text).ok_or_else(|| {
            let hint = "Take it from `next_before` of the page before.";
            WebError::invalid("before is not a cursor", hint)
        })?),
    };
    Ok(Page { before, limit })
}

fn parse_action(text: &str) -> Result<Digest, WebError> {
    match text.split('/').collect::<Vec<_>>()[..] {
        [hash, size] => parse_digest("sha256", hash, size),
        [function, hash, size] => parse_digest(function, hash, size),
        _ => Err(WebError::invalid(
            "action is not a digest",
            "Write it as HASH/SIZE, or blake3/HASH/SIZE.",
        )),
    }
}

fn arguments<T>(arguments: Result<Arguments<T>, QueryRejection>) -> Result<T, WebError> {
    match arguments {
        Ok(Arguments(arguments)) => Ok(arguments),
        Err(rejection) => Err(WebError::invalid(rejection.body_text(), "Correct the query.")),
    }
}

async fn executions(
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

async fn execution(
    State(state): State<WebState>,
    Path(id): Path<String>,
) -> Result<Json<Execution>, ApiError> {
    let entry = state.journal.execution(&id).await?.ok_or_else(|| {
        let hint = "It may have been removed: the journal keeps the newest ones.";
        WebError::not_found("no execution has this id", hint)
    })?;
    Ok(Json(Execution::from(&entry)))
}

#[derive(Deserialize)]
struct BuildsFilter {
    limit: Option<usize>,
    before: Option<String>,
}

async fn builds(
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

async fn build(
    State(state): State<WebState>,
    Path(invocation): Path<String>,
) -> Result<Json<Build>, ApiError> {
    let queue = state.queue.snapshot().await?;
    let invocation = find::invocation(&state, &queue, &invocation).await?;
    let operations = live::of_build(&state, &queue, &invocation).await;
    let build = match state.journal.build(&invocation).await? {
        Some(build) => build,
        // It has begun in this moment.
        None if !operations.is_empty() => {
            BuildSummary { invocation_id: invocation, ..BuildSummary::default() }
        }
        None => {
            let hint = "Bazel prints its invocation id at the start of a build; the first \
                        characters are enough where one build begins so.";
            return Err(WebError::not_found("no build has this invocation id", hint).into());
        }
    };
    let progress = Progress::of(&state.journal, &build, &queue, now());
    Ok(Json(Build { operations, ..Build::new(&build, progress) }))
}

#[derive(Deserialize)]
struct Name {
    name: String,
}

async fn named(
    State(state): State<WebState>,
    name: Result<Arguments<Name>, QueryRejection>,
) -> Result<Json<Found>, ApiError> {
    let (found, operations) = find::find(&state, &arguments(name)?.name).await?;
    Ok(Json(Found { executions: found.iter().map(Execution::from).collect(), operations }))
}

fn unserved(queue: &Snapshot) -> Vec<json::Unserved> {
    let unserved = progress::Unserved::of(queue);
    let one = |(properties, queued, reason): (&[(String, String)], usize, &str)| json::Unserved {
        properties: properties.to_vec(),
        queued,
        reason: reason.to_owned(),
    };
    unserved.iter().map(one).collect()
}

#[derive(Serialize)]
struct Workers {
    workers: Vec<WorkerView>,
    slots: u64,
    running: usize,
}

async fn workers(State(state): State<WebState>) -> Result<Json<Workers>, ApiError> {
    let Snapshot { workers, slots, running_count, .. } = state.queue.snapshot().await?;
    Ok(Json(Workers { workers, slots, running: running_count }))
}

#[derive(Serialize)]
struct Queue {
    queue_depth: usize,
    running_count: usize,
    slots: u64,
    oldest_queued_ms: Option<u64>,
    draining: bool,
    /// The oldest of them.
    queued: Vec<OperationView>,
    running: Vec<OperationView>,
    property_sets: Vec<PropertySetView>,
}

async fn queue(State(state): State<WebState>) -> Result<Json<Queue>, ApiError> {
    let snapshot = state.queue.snapshot().await?;
    Ok(Json(Queue {
        queue_depth: snapshot.queue_depth,
        running_count: snapshot.running_count,
        slots: snapshot.slots,
        oldest_queued_ms: snapshot.oldest_queued_ms,
        draining: snapshot.draining,
        queued: snapshot.queued,
        running: snapshot.running,
        property_sets: snapshot.property_sets,
    }))
}

#[derive(Deserialize)]
struct HermeticityFilter {
    limit: Option<usize>,
}

async fn hermeticity(
    State(state): State<WebState>,
    filter: Result<Arguments<HermeticityFilter>, QueryRejection>,
) -> Result<Json<Checks>, ApiError> {
    let limit = page(arguments(filter)?.limit, None)?.limit;
    let checks = state.hermeticity.newest(limit).await?;
    Ok(Json(Checks { checks: checks.iter().map(Checked::from).collect() }))
}

async fn unknown() -> ApiError {
    let hint =
        "There are status, actions, executions, find, builds, workers, queue and hermeticity.";
    ApiError::from(WebError::not_found("no such part of the API", hint))
}
