//! The order of a stream: which event is next, which are durable, and what may be acknowledged.

use std::collections::BTreeMap;

use thiserror::Error;

/// What of a stream is held until it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderLimits {
    /// Events that came before those that they follow.
    pub early: usize,
    /// Bytes of events that came before those that they follow.
    pub early_bytes: usize,
    /// Events in a stream.
    pub events: u64,
}

impl Default for OrderLimits {
    fn default() -> Self {
        Self { early: 1024, early_bytes: 8 << 20, events: 20_000_000 }
    }
}

/// What became of an event that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The event is new. It, and perhaps some that waited for it, can be taken: [`Order::take`].
    Taken,
    /// The event waits for earlier ones.
    Early,
    /// The event came before: acknowledge it when it is durable, which it may be already.
    Again,
}

/// Why an event is not taken. The stream cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error("event {0} has no place in a stream: numbers begin with 1")]
    Number(i64),
    #[error("event {got} comes too early: event {expected} is missing, and too much waits for it")]
    Gap { expected: u64, got: u64 },
    #[error("event {got} comes after event {last}, which was the last one")]
    AfterEnd { last: u64, got: u64 },
    #[error("a stream has at most {0} events")]
    Events(u64),
}

/// Events of one stream. Numbers begin with 1; `T` is whatever is to be kept of an event.
#[derive(Clone, Debug)]
pub struct Order<T> {
    limits: OrderLimits,
    /// The number of the event up to which all are durable.
    durable: u64,
    /// The number of the event up to which all were received without a gap.
    received: u64,
    /// The number of the last event, when that is known.
    last: Option<u64>,
    ready: Vec<T>,
    early: BTreeMap<u64, (T, usize, bool)>,
    early_bytes: usize,
}

impl<T> Order<T> {
    /// A stream of which so many events are durable, from an earlier connection or another server.
    pub fn new(limits: OrderLimits, durable: u64, is_finished: bool) -> Self {
        Self {
            limits,
            durable,
            received: durable,
            last: is_finished.then_some(durable),
            ready: Vec::new(),
            early: BTreeMap::new(),
            early_bytes: 0,
        }
    }

    /// An event of so many bytes; whether it is the last one is said by itself.
    pub fn receive(
        &mut self,
        number: i64,
        event: T,
        bytes: usize,
        is_last: bool,
    ) -> Result<Step, Refusal> {
        let got = u64::try_from(number).ok().filter(|it| *it > 0).ok_or(Refusal::Number(number))?;
        if got <= self.received || self.early.contains_key(&got) {
            return Ok(Step::Again);
        }
        if let Some(last) = self.last {
            return Err(Refusal::AfterEnd { last, got });
        }
        if got > self.limits.events {
            return Err(Refusal::Events(self.limits.events));
        }
        if got > self.received + 1 {
            return self.wait(got, event, bytes, is_last);
        }
        self.accept(event, is_last);
        self.accept_early();
        Ok(Step::Taken)
    }

    /// Accepts the events that came early and have waited for what is here now.
    fn accept_early(&mut self) {
        while let Some(entry) = self.early.first_entry().filter(|it| *it.key() == self.received + 1)
        {
            let (event, bytes, is_last) = entry.remove();
            self.early_bytes -= bytes;
            self.accept(event, is_last);
        }
    }

    fn wait(&mut self, got: u64, event: T, bytes: usize, is_last: bool) -> Result<Step, Refusal> {
        let full = self.early.len() >= self.limits.early
            || self.early_bytes.saturating_add(bytes) > self.limits.early_bytes;
        if full {
            return Err(Refusal::Gap { expected: self.received + 1, got });
        }
        self.early_bytes += bytes;
        self.early.insert(got, (event, bytes, is_last));
        Ok(Step::Early)
    }

    fn accept(&mut self, event: T, is_last: bool) {
        self.received += 1;
        self.ready.push(event);
        if is_last {
            self.last = Some(self.received);
            self.early.clear();
            self.early_bytes = 0;
        }
    }

    /// The events that are in order and not taken yet, with the number of the first one.
    pub fn take(&mut self) -> (u64, Vec<T>) {
        let ready = std::mem::take(&mut self.ready);
        (self.received - ready.len() as u64 + 1, ready)
    }

    /// Notes that all events up to this one are durable.
    pub fn committed(&mut self, number: u64) {
        self.durable = self.durable.max(number.min(self.received));
    }

    /// Somebody else made all up to this event durable, perhaps more than were received here.
    pub fn advance(&mut self, durable: u64, is_finished: bool) {
        if durable > self.received {
            self.received = durable;
            self.ready.clear();
            self.early = self.early.split_off(&(durable + 1));
            self.early_bytes = self.early.values().map(|(_, bytes, _)| bytes).sum();
            self.accept_early();
        }
        self.durable = self.durable.max(durable);
        if is_finished {
            self.last = Some(self.durable);
        }
    }

    /// The number of the event up to which all are durable, and may be acknowledged.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    pub fn received(&self) -> u64 {
        self.received
    }

    /// Bytes of events that came before those that they follow.
    pub fn held_bytes(&self) -> usize {
        self.early_bytes
    }

    /// Whether everything up to the last event is durable.
    pub fn is_finished(&self) -> bool {
        self.last.is_some_and(|last| last <= self.durable)
    }

    /// The first event that is missing, where others wait for it.
    pub fn missing(&self) -> Option<u64> {
        (!self.early.is_empty()).then_some(self.received + 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn order() -> Order<i64> {
        Order::new(OrderLimits { early: 4, early_bytes: 100, events: 50 }, 0, false)
    }

    fn receive(order: &mut Order<i64>, number: i64) -> Result<Step, Refusal> {
        order.receive(number, number, 10, false)
    }

    #[test]
    fn events_in_order_are_taken_and_durable_when_said_so() {
        let mut order = order();
        for number in 1..=3 {
            assert_eq!(receive(&mut order, number), Ok(Step::Taken));
        }
        assert_eq!(order.take(), (1, vec![1, 2, 3]));
        assert_eq!((order.durable(), order.take()), (0, (4, vec![])));
        order.committed(2);
        assert_eq!(order.durable(), 2);
        // An event that was not received never counts as durable.
        order.committed(9);
        assert_eq!(order.durable(), 3);
    }

    #[test]
    fn what_comes_again_is_not_taken_twice() {
        let mut order = Order::new(OrderLimits::default(), 5, false);
        assert_eq!(order.receive(5, 5, 1, false), Ok(Step::Again));
        assert_eq!(order.receive(6, 6, 1, false), Ok(Step::Taken));
        assert_eq!(order.receive(6, 6, 1, false), Ok(Step::Again));
        assert_eq!(order.take(), (6, vec![6]));
    }

    #[test]
    fn what_comes_early_waits_and_what_is_too_early_is_refused() {
        let mut order = order();
        for number in [3, 2, 3, 5] {
            let expected =
                if number == 3 && order.missing().is_some() { Step::Again } else { Step::Early };
            assert_eq!(receive(&mut order, number), Ok(expected));
        }
        assert_eq!(order.missing(), Some(1));
        assert_eq!(receive(&mut order, 1), Ok(Step::Taken));
        assert_eq!(order.take(), (1, vec![1, 2, 3]));
        for number in [6, 7, 8] {
            assert_eq!(receive(&mut order, number), Ok(Step::Early));
        }
        assert_eq!(receive(&mut order, 9), Err(Refusal::Gap { expected: 4, got: 9 }));
        assert_eq!(receive(&mut order, 4), Ok(Step::Taken));
        assert_eq!(order.missing(), None);
    }

    #[test]
    fn early_ones_are_bounded_by_bytes_too() {
        let mut order = order();
        assert_eq!(order.receive(2, 2, 90, false), Ok(Step::Early));
        assert_eq!(order.receive(3, 3, 11, false), Err(Refusal::Gap { expected: 1, got: 3 }));
    }

    #[test]
    fn nothing_comes_after_the_last_event() {
        let mut order = order();
        assert_eq!(order.receive(1, 1, 1, true), Ok(Step::Taken));
        assert_eq!(receive(&mut order, 2), Err(Refusal::AfterEnd { last: 1, got: 2 }));
        assert_eq!(receive(&mut order, 1), Ok(Step::Again));
        assert!(!order.is_finished());
        order.committed(1);
        assert!(order.is_finished());
        let mut later = Order::new(OrderLimits::default(), 7, true);
        assert_eq!(later.receive(8, (), 1, false), Err(Refusal::AfterEnd { last: 7, got: 8 }));
        assert_eq!(later.receive(7, (), 1, true), Ok(Step::Again));
    }

    #[test]
    fn what_others_made_durable_is_skipped() {
        let mut order = order();
        for number in [1, 2, 5] {
            receive(&mut order, number).unwrap();
        }
        order.advance(4, false);
        assert_eq!((order.durable(), order.received()), (4, 5));
        assert_eq!(order.take(), (5, vec![5]));
        order.advance(3, false);
        assert_eq!(order.durable(), 4);
        order.advance(9, true);
        assert!(order.is_finished());
        assert_eq!(receive(&mut order, 9), Ok(Step::Again));
    }

    #[test]
    fn numbers_begin_with_1_and_end_somewhere() {
        let mut order = order();
        for number in [0, -1, i64::MIN] {
            assert_eq!(receive(&mut order, number), Err(Refusal::Number(number)));
        }
        assert_eq!(receive(&mut order, 51), Err(Refusal::Events(50)));
        assert_eq!(receive(&mut order, i64::MAX), Err(Refusal::Events(50)));
    }

    proptest! {
        /// Events may come in whatever order and however often: each is taken once and in order.
        #[test]
        fn every_event_is_taken_once_in_order(mut numbers in proptest::collection::vec(1_i64..20, 0..80)) {
            numbers.extend(1..20);
            let mut order = Order::new(OrderLimits::default(), 0, false);
            let mut taken = Vec::new();
            for number in numbers {
                order.receive(number, number, 1, false).unwrap();
                let (first, events) = order.take();
                prop_assert!(events.is_empty() || first == taken.len() as u64 + 1);
                taken.extend(events);
            }
            prop_assert_eq!(taken, (1..20).collect::<Vec<_>>());
        }
    }
}
