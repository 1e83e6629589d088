//! What a simulated world drives: the state machine in memory, or the same in Redis.

use kiln_scheduler::queue::{Counters, Effect, Event, Machine, Millis};

pub trait Subject {
    /// As [`Machine::handle`].
    fn handle(&mut self, now: Millis, event: Event, effects: &mut Vec<Effect>);

    fn next_timer(&mut self) -> Option<Millis>;

    /// Panics where its state is not consistent.
    fn check(&mut self);

    fn counters(&mut self) -> Counters;

    fn unfinished(&mut self) -> usize;
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
