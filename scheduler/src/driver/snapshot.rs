//! The queue for people and metrics.

use tonic::Code;

use crate::snapshot::{MAX_LISTED, OperationView, PropertySetView, Snapshot, WorkerView};

use super::*;

impl Inner {
    pub(super) fn snapshot(&self) -> Snapshot {
        let state = self.lock();
        // Only now: what happened before the lock was given is not in the future.
        let now = self.now();
        let machine = &state.machine;
        let queued = machine.waiting().take(MAX_LISTED);
        let queued: Vec<_> =
            queued.filter_map(|(task, since)| self.view(&state, task, now - since)).collect();
        let running = machine.leases().filter_map(|lease| {
            let mut view = self.view(&state, lease.task?, now.saturating_sub(lease.started))?;
            view.attempt = lease.attempt;
            Some(view)
        });
        let completed = state.completed.iter();
        Snapshot {
            workers: state.worker_views(now),
            queue_depth: machine.queued(),
            running_count: machine.running(),
            slots: machine.workers().map(|worker| u64::from(worker.slots)).sum(),
            oldest_queued_ms: machine.waiting().next().map(|(_, since)| now - since),
            running: running.take(MAX_LISTED).collect(),
            queued,
            property_sets: state.property_sets(),
            draining: machine.is_draining(),
            counters: machine.counters(),
            cache_hits: 0,
            completed: completed
                .map(|(code, n)| (format!("{:?}", Code::from_i32(*code)), *n))
                .collect(),
        }
    }

    fn view(&self, state: &State, task: TaskId, for_ms: u64) -> Option<OperationView> {
        let entry = state.entries.get(&task)?;
        let metadata = &entry.job.request.metadata;
        Some(OperationView {
            name: entry.operation.to_string(),
            instance: entry.job.key.instance.to_string(),
            action: entry.job.key.action.to_string(),
            target: metadata.target_id.clone(),
            mnemonic: metadata.action_mnemonic.clone(),
            invocation: metadata.tool_invocation_id.clone(),
            for_ms,
            expected_ms: entry.job.expected_ms,
            worker: entry.worker.to_string(),
            attempt: entry.attempts,
            waiters: entry.updates.receiver_count(),
            properties: entry.job.facts.platform.pairs().to_vec(),
            streams: entry.streams.as_ref().clone(),
        })
    }
}

impl State {
    fn worker_views(&self, now: Millis) -> Vec<WorkerView> {
        let view = |worker: crate::queue::WorkerFigures<'_>| {
            let session = self.sessions.get(&worker.id)?;
            Some(WorkerView {
                id: worker.name.to_string(),
                host_name: session.host_name.clone(),
                version: session.version.clone(),
                slots: worker.slots,
                occupied: worker.occupied,
                draining: worker.draining,
                paused: worker.paused.map(|reason| reason.to_string()),
                last_seen_ms: now.saturating_sub(worker.last_seen),
                properties: worker.offer.map(|offer| offer.pairs().to_vec()).unwrap_or_default(),
                not_enforced: session.not_enforced.clone(),
            })
        };
        self.machine.workers().filter_map(view).collect()
    }

    fn property_sets(&self) -> Vec<PropertySetView> {
        let view = |lane: crate::queue::LaneFigures<'_>| PropertySetView {
            properties: lane.requirement.pairs().to_vec(),
            queued: lane.queued,
            running: lane.running,
            slots_wanted: lane.queued + lane.running,
            served: lane.served,
        };
        self.machine.lanes().map(view).collect()
    }
}
