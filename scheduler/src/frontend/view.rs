//! The queue as pages for people and metrics show it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tonic::Code;

use crate::api::Unavailable;
use crate::job::UnixNanos;
use crate::journal::between;
use crate::snapshot::{MAX_LISTED, OperationView, PropertySetView, Snapshot, WorkerView};

use super::engine::{Call, Engine};
use super::inner::Inner;
use super::told::{Step, TaskStatus, Told, WorkerStatus};

const NANOS_PER_MILLI: i64 = 1_000_000;

impl<E: Engine> Inner<E> {
    pub(super) async fn snapshot(self: &Arc<Self>) -> Result<Snapshot, Unavailable> {
        let told = self.ask(Call::Figures { listed: MAX_LISTED }).await?;
        let mut snapshot = Snapshot {
            draining: self.is_draining(),
            completed: self.completed_by_code(),
            ..Snapshot::default()
        };
        let mut tasks = Vec::new();
        let mut read_at = 0;
        for told in told {
            match told {
                Told::Totals { now, queued, running, oldest_queued_ms } => {
                    read_at = now;
                    (snapshot.queue_depth, snapshot.running_count) = (queued, running);
                    snapshot.oldest_queued_ms = oldest_queued_ms;
                }
                Told::Counters(counters) => snapshot.counters = counters,
                Told::Worker(worker) => snapshot.workers.push(worker_view(*worker)),
                Told::Lane { properties, queued, running, served } => {
                    let slots_wanted = queued + running;
                    snapshot.property_sets.push(PropertySetView {
                        properties,
                        queued,
                        running,
                        slots_wanted,
                        served,
                    });
                }
                Told::Task(state) => tasks.push(state),
                _ => {}
            }
        }
        for state in tasks {
            let view = self.operation_view(&state, read_at);
            let queued = state.step == Step::Queued;
            if queued { snapshot.queued.push(view) } else { snapshot.running.push(view) }
        }
        snapshot.slots = snapshot.workers.iter().map(|worker| u64::from(worker.slots)).sum();
        Ok(snapshot)
    }

    /// Executions that ended at this frontend, counted by the name of their status code.
    fn completed_by_code(&self) -> BTreeMap<String, u64> {
        let local = self.lock();
        let name = |(code, n): (&i32, &u64)| (format!("{:?}", Code::from_i32(*code)), *n);
        local.completed.iter().map(name).collect()
    }

    fn operation_view(&self, state: &TaskStatus, now: UnixNanos) -> OperationView {
        let job = &state.job;
        let metadata = &job.request.metadata;
        let attempt = &state.attempt;
        let since = if state.step == Step::Queued { attempt.queued_at } else { attempt.leased_at };
        OperationView {
            name: self.operation(job, state.task, 0),
            instance: job.key.instance.to_string(),
            action: job.key.action.to_string(),
            target: metadata.target_id.clone(),
            mnemonic: metadata.action_mnemonic.clone(),
            invocation: metadata.tool_invocation_id.clone(),
            for_ms: u64::try_from((now - since) / NANOS_PER_MILLI).unwrap_or(0),
            waited_ms: match state.step {
                Step::Queued => 0,
                _ => between(attempt.queued_at, attempt.leased_at) / NANOS_PER_MILLI.unsigned_abs(),
            },
            expected_ms: job.expected_ms,
            worker: attempt.worker.to_string(),
            attempt: attempt.number,
            waiters: state.requests.iter().filter(|request| !request.cancelled).count(),
            properties: job.facts.platform.pairs().to_vec(),
            streams: self.names.streams(&job.key.instance, state.task),
        }
    }
}

fn worker_view(worker: WorkerStatus) -> WorkerView {
    WorkerView {
        id: worker.name,
        host_name: worker.info.host_name,
        version: worker.info.version,
        slots: worker.slots,
        occupied: worker.occupied,
        draining: worker.draining,
        paused: worker.paused,
        last_seen_ms: worker.last_seen_ms,
        properties: worker.properties,
        not_enforced: worker.info.not_enforced,
    }
}
