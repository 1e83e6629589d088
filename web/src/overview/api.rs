//! The state of the server in figures.

use axum::Json;
use axum::extract::State;
use kiln_ci::CiServices;
use kiln_scheduler::Snapshot;

use crate::error::ApiError;
use crate::json::{self, BuildCounts, FailedReload, JournalStatus, Status, Storage};
use crate::state::{LinksFrom, WebState};
use crate::workers::unserved::Unserved;
use kiln_net::reload::{LastReload, Reloads};

/// Files that could not be read again, each with the first line of its error: the others may show what stands in the
/// file.
fn failed_reloads(reloads: &Reloads) -> Vec<FailedReload> {
    let failed = |(_, last): (_, LastReload)| {
        let error = last.error?.lines().next().unwrap_or_default().to_owned();
        Some(FailedReload { what: last.what.to_owned(), error })
    };
    reloads.all().into_iter().filter_map(failed).collect()
}

pub async fn status(
    State(state): State<WebState>,
    LinksFrom(base_url): LinksFrom,
) -> Result<Json<Status>, ApiError> {
    let queue = state.queue.snapshot().await?;
    let storage = (state.storage)();
    let journal = state.journal.stats();
    let shared = match &state.shared {
        Some(shared) => Some(shared.usage().await?),
        None => None,
    };
    Ok(Json(Status {
        version: state.version.to_owned(),
        base_url: base_url.to_string(),
        uptime_seconds: state.started.elapsed().unwrap_or_default().as_secs(),
        draining: queue.draining,
        workers: queue.workers.len(),
        slots: queue.slots,
        running: queue.running_count,
        queued: queue.queue_depth,
        oldest_queued_ms: queue.oldest_queued_ms,
        unserved: unserved(&queue),
        failed_reloads: failed_reloads(&state.reloads),
        storage: Storage {
            blobs: storage.blobs,
            used_bytes: storage.used_bytes,
            reserved_bytes: storage.reserved_bytes,
            max_bytes: storage.max_bytes,
            promised_bytes: storage.promised_bytes,
            pinned_blobs: storage.pinned_blobs,
            pinned_bytes: storage.pinned_bytes,
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
        tests: tests(&state.tests),
    }))
}

fn tests(tests: &CiServices) -> json::TestsStatus {
    let figures = tests.recorder.figures();
    json::TestsStatus {
        recording: tests.records,
        attempts: figures.attempts,
        lost: figures.lost_executions + figures.lost_reports,
        failed_writes: figures.failed_writes,
    }
}

fn unserved(queue: &Snapshot) -> Vec<json::Unserved> {
    let unserved = Unserved::of(queue);
    let one = |(properties, queued, reason): (&[(String, String)], usize, &str)| json::Unserved {
        properties: properties.to_vec(),
        queued,
        reason: reason.to_owned(),
    };
    unserved.iter().map(one).collect()
}
