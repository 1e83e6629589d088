//! What runs or waits, with the end of what it has printed so far.

use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt};
use kiln_cas::Digest;
use kiln_cas::logs::LogStreams;
use kiln_scheduler::Snapshot;
use kiln_scheduler::snapshot::OperationView;
use tokio::time::{Instant, timeout};

use super::json::Running;
use super::progress::operations_of;
use super::state::WebState;
use super::workers::unserved::Unserved;

/// Operations of one build that are shown.
const MAX_OPERATIONS: usize = 100;
/// Operations of which the output is shown in a list.
const WITH_OUTPUT: usize = 10;
/// Bytes of output shown of one operation in a list, and on its own page.
const IN_LIST: usize = 1 << 10;
const ON_PAGE: usize = 64 << 10;
/// How long output is waited for that another frontend of the fleet has.
const PATIENCE: Duration = Duration::from_millis(400);

/// What of a build runs and waits.
pub async fn of_build(state: &WebState, queue: &Snapshot, invocation: &str) -> Vec<Running> {
    let unserved = Unserved::of(queue);
    let shown = operations_of(queue, invocation).take(MAX_OPERATIONS).enumerate();
    let shown = shown.map(|(place, (operation, is_running))| {
        let limit = if place < WITH_OUTPUT && is_running { IN_LIST } else { 0 };
        running_of(state, operation, is_running, &unserved, limit)
    });
    join_all(shown).await
}

/// The operation of this name, if it runs or waits.
pub async fn named(state: &WebState, queue: &Snapshot, name: &str) -> Option<Running> {
    // A request that joined another's run has the name of the run and a number behind it.
    let is_it = |operation: &OperationView| {
        let rest = name.strip_prefix(&operation.name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    first(state, queue, is_it).await
}

/// The operation of this action, if one runs or waits.
pub async fn of_action(state: &WebState, queue: &Snapshot, action: &Digest) -> Option<Running> {
    let action = action.to_string();
    first(state, queue, |operation| operation.action == action).await
}

async fn first(
    state: &WebState,
    queue: &Snapshot,
    is_it: impl Fn(&OperationView) -> bool,
) -> Option<Running> {
    let running = queue.running.iter().map(|operation| (operation, true));
    let mut all = running.chain(queue.queued.iter().map(|operation| (operation, false)));
    let (operation, is_running) = all.find(|(operation, _)| is_it(operation))?;
    Some(running_of(state, operation, is_running, &Unserved::of(queue), ON_PAGE).await)
}

/// `limit`: bytes of each of its streams.
async fn running_of(
    state: &WebState,
    operation: &OperationView,
    is_running: bool,
    unserved: &Unserved,
    limit: usize,
) -> Running {
    let mut output = String::new();
    if limit > 0 {
        let [stdout, stderr] = &operation.streams;
        let read = |stream| output_of(&state.logs, stream, limit);
        let (stdout, stderr) = tokio::join!(read(stdout), read(stderr));
        output = stdout + &stderr;
    }
    let lacking = if is_running { None } else { unserved.reason(&operation.properties) };
    Running {
        operation: operation.clone(),
        is_running,
        output,
        lacking: lacking.map(str::to_owned),
    }
}

/// The end of a log that grows, at most `limit` bytes; what is not UTF-8 is replaced.
async fn output_of(logs: &LogStreams, name: &str, limit: usize) -> String {
    let deadline = Instant::now() + 4 * PATIENCE;
    let known = logs.status(name).map(|(size, _)| size);
    let from = known.map_or(0, |size| size.saturating_sub(limit as u64));
    let Ok(Ok(Some(mut log))) = timeout(PATIENCE, logs.read(name, from)).await else {
        return String::new();
    };
    let mut end = Vec::new();
    loop {
        let next = match known {
            // All of it is here: what comes later is for the next look.
            Some(_) => log.next().now_or_never().flatten(),
            None => {
                let left = PATIENCE.min(deadline - Instant::now());
                timeout(left, log.next()).await.ok().flatten()
            }
        };
        let Some(Ok(chunk)) = next else { break };
        end.extend_from_slice(&chunk);
        end.drain(..end.len().saturating_sub(limit));
    }
    String::from_utf8_lossy(&end).into_owned()
}
