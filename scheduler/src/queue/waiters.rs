//! Who waits for a task, and what becomes of it when nobody does.

use super::machine::{Machine, TaskState, Timer};
use super::types::{CancelReason, Effect, Ending, OperationId, TaskId};

impl Machine {
    pub(super) fn attach(&mut self, id: OperationId) {
        if let Some(task) = self.tasks.get_mut(&id.task) {
            task.waiters += 1;
            if let Some(count) = task.waiting_for.get_mut(id.request as usize) {
                *count += 1;
            }
            self.stop_abandoning(id.task);
        }
    }

    pub(super) fn detach(&mut self, id: OperationId) {
        let Some(task) = self.tasks.get_mut(&id.task) else { return };
        task.waiters = task.waiters.saturating_sub(1);
        if let Some(count) = task.waiting_for.get_mut(id.request as usize) {
            *count = count.saturating_sub(1);
        }
        if task.waiters == 0 && task.abandon_at.is_none() {
            let at = self.now + self.limits.abandon_grace;
            task.abandon_at = Some(at);
            self.timers.insert((at, Timer::Abandon(id.task)));
        }
    }

    /// Takes away a waiter who does not want the answer any more. Where it was the last one, the
    /// task ends now; where only its request has no waiter left, that request alone ends.
    pub(super) fn gave_up(&mut self, id: OperationId, effects: &mut Vec<Effect>) {
        self.detach(id);
        let Some(task) = self.tasks.get(&id.task) else { return };
        let alone = task.waiting_for.get(id.request as usize) == Some(&0);
        if task.waiters == 0 && task.state != TaskState::Publishing {
            self.stop(id.task, Ending::NobodyWaits, CancelReason::NobodyWaits, effects);
        } else if task.waiters > 0 && alone {
            self.cancel(id, effects);
        }
    }

    pub(super) fn stop_abandoning(&mut self, id: TaskId) {
        let abandon_at = self.tasks.get_mut(&id).and_then(|task| task.abandon_at.take());
        if let Some(at) = abandon_at {
            self.timers.remove(&(at, Timer::Abandon(id)));
        }
    }

    pub(super) fn check_abandoned(&mut self, id: TaskId, effects: &mut Vec<Effect>) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        task.abandon_at = None;
        if task.waiters == 0 && task.state != TaskState::Publishing {
            self.stop(id, Ending::NobodyWaits, CancelReason::NobodyWaits, effects);
        }
    }

    pub(super) fn cancel(&mut self, id: OperationId, effects: &mut Vec<Effect>) {
        let Some(task) = self.tasks.get_mut(&id.task) else { return };
        let Some(cancelled) = task.cancelled.get_mut(id.request as usize) else { return };
        if *cancelled || task.state == TaskState::Publishing {
            return;
        }
        *cancelled = true;
        if task.cancelled.iter().all(|cancelled| *cancelled) {
            self.stop(id.task, Ending::Cancelled, CancelReason::Cancelled, effects);
        } else {
            effects.push(Effect::RequestCancelled { id });
        }
    }
}
