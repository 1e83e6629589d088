//! What a simulated world drives: the state machine in memory, or the same in Redis.

use kiln_cas::{ActionKey, DigestFunction};
use kiln_scheduler::queue::platform::Requirement;
use kiln_scheduler::queue::{Counters, Effect, Event, LeaseId, Machine, Millis, Submit, TaskId};

/// Somebody asks for an action that has no wishes.
pub fn submitted(action: &[u8]) -> Event {
    let action = DigestFunction::Sha256.digest(action);
    Event::Submit(Box::new(Submit {
        key: ActionKey { instance: "".into(), action },
        requirement: Requirement::default(),
        priority: 0,
        invocation: "build".into(),
        expected_ms: None,
        timeout_ms: 600_000,
        do_not_cache: false,
        skip_cache_lookup: false,
        caller: None,
        avoid: None,
    }))
}

pub trait Subject {
    /// Handles one event, as [`Machine::handle`] does.
    fn handle(&mut self, now: Millis, event: Event, effects: &mut Vec<Effect>);

    fn next_timer(&mut self) -> Option<Millis>;

    /// Panics where its state is not consistent.
    fn check(&mut self);

    fn counters(&mut self) -> Counters;

    fn unfinished(&mut self) -> usize;

    /// Frontends that tell it what happens; 0: there is no one between.
    fn frontends(&self) -> usize {
        0
    }

    /// Names the frontend that tells the events from now on.
    fn told_by(&mut self, _name: &str) {}

    /// The frontend that speaks next has made the answer under this lease durable.
    fn published_under(&mut self, _task: TaskId, _lease: LeaseId) {}

    /// The frontend that speaks is alive. Returns whether it was taken for lost, or is new.
    fn beat(&mut self, _now: Millis, _effects: &mut Vec<Effect>) -> bool {
        false
    }

    /// Compares what the frontend that speaks waits for, and how often, and what it is publishing,
    /// with what the queue knows.
    fn compare(
        &mut self,
        _now: Millis,
        _waits: &[(TaskId, usize)],
        _publishing: &[TaskId],
        _effects: &mut Vec<Effect>,
    ) {
    }
}

impl Subject for Machine {
    fn handle(&mut self, now: Millis, event: Event, effects: &mut Vec<Effect>) {
        Machine::handle(self, now, event, effects);
    }

    fn next_timer(&mut self) -> Option<Millis> {
        Machine::next_timer(self)
    }

    fn check(&mut self) {
        Machine::check(self);
    }

    fn counters(&mut self) -> Counters {
        Machine::counters(self)
    }

    fn unfinished(&mut self) -> usize {
        Machine::unfinished(self).count() + self.queued() + self.publishing()
    }
}
