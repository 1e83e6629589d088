//! The shared queue for people, metrics and the Operations service.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kiln_protos::queue;
use prost::Message;
use tonic::Code;

use crate::boundary::{Matches, OperationState, Unavailable};
use crate::queue::{Counters, OperationId, TaskId};
use crate::snapshot::{MAX_LISTED, OperationView, PropertySetView, Snapshot, WorkerView};

use super::Inner;
use super::payload::decode_job;
use super::wire::{Step, TaskState, Told, WorkerRow, id};

/// Tasks that are read at once for a list.
const PAGE: usize = 200;

impl Inner {
    pub(super) async fn list(
        &self,
        after: Option<OperationId>,
        limit: usize,
        matches: &Matches,
    ) -> Result<Vec<OperationState>, Unavailable> {
        let mut found = Vec::new();
        let mut from = after.map_or(TaskId(0), |after| after.task);
        loop {
            let words = ["page".to_owned(), id(from.0), PAGE.to_string()];
            let told = self.calls.again(words.map(String::into_bytes).into()).await?.told;
            let states = told.into_iter().filter_map(|told| match told {
                Told::State(state) => Some(state),
                _ => None,
            });
            let states: Vec<Box<TaskState>> = states.collect();
            for operation in states.iter().flat_map(|state| self.requests_of(state)) {
                if after.is_some_and(|after| operation.id <= after) || !matches(&operation) {
                    continue;
                }
                if found.len() == limit {
                    return Ok(found);
                }
                found.push(operation);
            }
            match states.last() {
                Some(last) if states.len() == PAGE => from = TaskId(last.task.0 + 1),
                _ => return Ok(found),
            }
        }
    }

    pub(super) async fn snapshot(&self) -> Result<Snapshot, Unavailable> {
        let arguments = vec![b"figures".to_vec(), MAX_LISTED.to_string().into_bytes()];
        let answer = self.calls.again(arguments).await?;
        let mut snapshot = Snapshot {
            draining: self.draining.load(Ordering::Acquire),
            completed: self.completed_by_code(),
            ..Snapshot::default()
        };
        for told in answer.told {
            self.show(&mut snapshot, told, answer.now);
        }
        snapshot.slots = snapshot.workers.iter().map(|worker| u64::from(worker.slots)).sum();
        Ok(snapshot)
    }

    /// Only what ended here is known by its code.
    fn completed_by_code(&self) -> BTreeMap<String, u64> {
        let local = self.lock();
        let name = |(code, n): (&i32, &u64)| (format!("{:?}", Code::from_i32(*code)), *n);
        local.completed.iter().map(name).collect()
    }

    fn show(&self, snapshot: &mut Snapshot, told: Told, now: i64) {
        let since = |at: i64| u64::try_from(now - at).unwrap_or(0);
        match told {
            Told::Totals { queued, running, oldest } => {
                (snapshot.queue_depth, snapshot.running_count) = (queued, running);
                snapshot.oldest_queued_ms = oldest.map(since);
            }
            Told::Counters(pairs) => snapshot.counters = counters(&pairs),
            Told::Worker(row) => snapshot.workers.push(worker(*row, now)),
            Told::Lane { properties, queued, running, served } => {
                let slots_wanted = queued + running;
                let view = PropertySetView { properties, queued, running, slots_wanted, served };
                snapshot.property_sets.push(view);
            }
            Told::State(state) => {
                let queued = state.step == Step::Queued;
                let at = if queued { state.times.queued } else { state.times.leased };
                let Some(view) = self.operation_view(&state, since(at)) else { return };
                if queued { snapshot.queued.push(view) } else { snapshot.running.push(view) }
            }
            _ => {}
        }
    }

    fn operation_view(&self, state: &TaskState, for_ms: u64) -> Option<OperationView> {
        let job = Arc::new(decode_job(&state.job).ok()?);
        let metadata = &job.request.metadata;
        Some(OperationView {
            name: self.operation(&job, state.task, 0),
            instance: job.key.instance.to_string(),
            action: job.key.action.to_string(),
            target: metadata.target_id.clone(),
            mnemonic: metadata.action_mnemonic.clone(),
            invocation: metadata.tool_invocation_id.clone(),
            for_ms,
            expected_ms: job.expected_ms,
            worker: state.times.worker.to_string(),
            attempt: state.times.attempts,
            waiters: state.cancelled.iter().filter(|cancelled| !**cancelled).count(),
            properties: job.facts.platform.pairs().to_vec(),
            streams: self.names.streams(&job.key.instance, state.task),
        })
    }
}

fn worker(row: WorkerRow, now: i64) -> WorkerView {
    // What cannot be read is shown as empty.
    let info = queue::Worker::decode(row.info).unwrap_or_default();
    WorkerView {
        id: row.name,
        host_name: info.host_name,
        version: info.version,
        slots: row.slots,
        occupied: row.occupied,
        draining: row.draining,
        paused: Some(row.paused).filter(|reason| !reason.is_empty()),
        last_seen_ms: u64::try_from(now - row.seen).unwrap_or(0),
        properties: row.properties,
        not_enforced: info.not_enforced,
    }
}

fn counters(pairs: &[(String, u64)]) -> Counters {
    let mut counters = Counters::default();
    for (name, value) in pairs {
        let counter = match name.as_str() {
            "submitted" => &mut counters.submitted,
            "merged" => &mut counters.merged,
            "refused" => &mut counters.refused,
            "dispatched" => &mut counters.dispatched,
            "published" => &mut counters.published,
            "cancelled" => &mut counters.cancelled,
            "abandoned" => &mut counters.abandoned,
            "unsatisfiable" => &mut counters.unsatisfiable,
            "retries_exhausted" => &mut counters.retries_exhausted,
            "poisoned" => &mut counters.poisoned,
            "retries" => &mut counters.retries,
            "workers_joined" => &mut counters.workers_joined,
            "workers_lost" => &mut counters.workers_lost,
            "leases_expired" => &mut counters.leases_expired,
            "stale_results" => &mut counters.stale_results,
            "returned" => &mut counters.returned,
            "leases_refused" => &mut counters.leases_refused,
            _ => continue,
        };
        *counter = *value;
    }
    counters
}
