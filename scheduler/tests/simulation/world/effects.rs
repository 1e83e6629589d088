//! Events go to the queue, and its effects to the model and the world.

use kiln_scheduler::queue::{Effect, Ending, Event, Submit, WorkerId};

use super::{Deed, World};
use crate::subject::Subject;

impl<S: Subject> World<S> {
    pub(super) fn feed(&mut self, front: usize, event: Event, submit: Option<Submit>) {
        self.speak(front);
        self.speaker = front;
        let left = match &event {
            Event::WorkerLeft { worker } => Some(*worker),
            _ => None,
        };
        let exact = !matches!(
            event,
            Event::WorkerLeft { .. }
                | Event::WorkerJoined(_)
                | Event::Heartbeat { .. }
                | Event::WorkerPaused { .. }
                | Event::Refused { .. }
                | Event::Tick
        );
        if exact {
            // After this event nothing is due before `now` any more.
            self.handle(Event::Tick, None, None, false);
        }
        self.handle(event, submit, left, exact);
    }

    pub(super) fn handle(
        &mut self,
        event: Event,
        mut submit: Option<Submit>,
        left: Option<WorkerId>,
        fairly: bool,
    ) {
        let mut effects = std::mem::take(&mut self.effects);
        self.machine.handle(self.now, event, &mut effects);
        if let Some(worker) = left {
            self.model.gone(worker);
        }
        self.follow_all(&effects, &mut submit, fairly && left.is_none());
        effects.clear();
        self.effects = effects;
    }

    /// Effects of what is no event of the state machine.
    pub(super) fn take_in(&mut self, effects: &[Effect]) {
        self.follow_all(effects, &mut None, false);
    }

    pub(super) fn follow_all(
        &mut self,
        effects: &[Effect],
        submit: &mut Option<Submit>,
        fairly: bool,
    ) {
        let mut lost = !fairly;
        for effect in effects {
            if let Effect::Adopted { worker, lease, .. } = effect {
                self.model.moved(*lease, *worker);
            }
        }
        for effect in effects {
            match effect {
                Effect::CloseWorker { worker, .. } => {
                    lost = true;
                    self.model.gone(*worker);
                }
                Effect::Requeued { task, at_once: true } => self.model.requeued_at_once(*task),
                Effect::Accepted { id, merged } => {
                    let submit = submit.take().expect("only a submission is accepted");
                    self.model.accepted(self.now, submit, id.task, id.request, *merged);
                    self.client_comes(*id, self.speaker);
                    self.plan_client(*id);
                }
                _ => {}
            }
            self.model.effect(self.now, effect, !lost);
            self.follow(effect);
        }
    }

    pub(super) fn follow(&mut self, effect: &Effect) {
        match effect {
            Effect::Assign { worker, lease, task, .. } => self.run_lease(*worker, *lease, *task),
            Effect::CancelLease { worker, lease, .. } => {
                // Nine in ten hosts obey.
                if let Some(host) = self.host_of(*worker)
                    && self.rng.permille(900)
                {
                    let after = self.rng.between(1, 200);
                    self.plan(after, Deed::Answer(host, *worker, *lease, false));
                }
            }
            Effect::Publish { task, lease, .. } => {
                let longest = if self.fronts.is_empty() { 30 } else { 300 };
                let after = self.rng.between(0, longest);
                let life = self.begins_to_publish(self.speaker, *task, *lease);
                self.plan(after, Deed::Published(*task, *lease, life));
            }
            Effect::Finished { task, ending } => {
                self.clients.remove(task);
                let poisonous = self.poisonous.remove(task).is_some();
                assert!(!(poisonous && *ending == Ending::Published), "poison gave an answer");
            }
            _ => {}
        }
    }
}
