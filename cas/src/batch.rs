//! Many callers, few round trips: calls that are made while earlier ones are on their way go out
//! together. The index of a fleet ([`crate::stores::indexed`]), the connections to Redis
//! ([`crate::redis`]) and the store on another server ([`crate::stores::RemoteStore`]) batch with it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

type Linger = Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;
type Run<C, O> = Box<dyn Fn(Vec<C>) -> BoxFuture<'static, Vec<O>> + Send + Sync>;

/// How much goes out at a time. Weights are in a unit that the caller chooses: items, or bytes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most that one batch weighs; a single call may be heavier.
    pub batch: usize,
    /// Most that waits; further calls wait to be let in. `None`: whoever calls sees to it.
    pub waiting: Option<usize>,
    /// Batches that are on their way at the same time.
    pub flights: usize,
}

/// How calls are put together.
pub struct Rules<C> {
    limits: Limits,
    /// What a flight waits for before it takes what is there.
    linger: Option<Linger>,
    /// Whether two calls may go out in one batch.
    alike: fn(&C, &C) -> bool,
}

impl<C> From<Limits> for Rules<C> {
    fn from(limits: Limits) -> Self {
        Self { limits, linger: None, alike: |_, _| true }
    }
}

impl<C> Rules<C> {
    /// Has each batch wait for more calls before it goes out: nobody is in a hurry for these.
    pub fn linger(
        self,
        linger: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Self {
        Self { linger: Some(Box::new(linger)), ..self }
    }

    /// A call for which this is false beside the first of a batch begins the next batch.
    pub fn alike(self, alike: fn(&C, &C) -> bool) -> Self {
        Self { alike, ..self }
    }
}

/// The task that carried a call ended before it was answered: its runtime is shut down, or it
/// panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a call was cut off before it was answered")]
pub struct CutOff;

/// Puts calls of type `C` together, each of which is answered with an `O`.
pub struct Batcher<C, O> {
    shared: Arc<Dispatcher<C, O>>,
    room: Option<Arc<Semaphore>>,
    /// Flights must not end with whoever happened to call first.
    runtime: Handle,
}

/// The queue of calls, and what the tasks that carry batches need to work it off.
struct Dispatcher<C, O> {
    run: Run<C, O>,
    rules: Rules<C>,
    queue: Mutex<Queue<C, O>>,
}

struct Queue<C, O> {
    waiting: VecDeque<Waiting<C, O>>,
    flights: usize,
}

struct Waiting<C, O> {
    call: C,
    weight: usize,
    /// Closed: the caller went away.
    answer: oneshot::Sender<O>,
    _room: Option<OwnedSemaphorePermit>,
}

impl<C: Send + 'static, O: Send + 'static> Batcher<C, O> {
    /// `run` answers each call of a batch, in order. It runs on the runtime in which this is called.
    pub fn new(
        rules: impl Into<Rules<C>>,
        run: impl Fn(Vec<C>) -> BoxFuture<'static, Vec<O>> + Send + Sync + 'static,
    ) -> Self {
        let rules = rules.into();
        let room = rules.limits.waiting.map(|waiting| Arc::new(Semaphore::new(waiting)));
        let queue = Queue { waiting: VecDeque::new(), flights: 0 };
        let shared = Dispatcher { run: Box::new(run), rules, queue: queue.into() };
        Self { shared: Arc::new(shared), room, runtime: Handle::current() }
    }

    /// Waits for the answer. Whoever stops to wait before its call goes out takes it back.
    pub async fn call(&self, call: C, weight: usize) -> Result<O, CutOff> {
        let room = match (&self.room, self.shared.rules.limits.waiting) {
            (Some(room), Some(most)) => {
                let units = u32::try_from(weight.min(most)).unwrap_or(u32::MAX);
                Some(room.clone().acquire_many_owned(units).await.map_err(|_| CutOff)?)
            }
            _ => None,
        };
        let (answer, answered) = oneshot::channel();
        if self.shared.push(Waiting { call, weight, answer, _room: room }) {
            self.runtime.spawn(fly(self.shared.clone()));
        }
        answered.await.map_err(|_| CutOff)
    }
}

impl<C, O> Dispatcher<C, O> {
    fn queue(&self) -> MutexGuard<'_, Queue<C, O>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more flight is to begin.
    fn push(&self, waiting: Waiting<C, O>) -> bool {
        let mut queue = self.queue();
        queue.waiting.push_back(waiting);
        let more = queue.flights < self.rules.limits.flights;
        queue.flights += usize::from(more);
        more
    }

    /// The next batch, without calls whose callers went away. `None`: nothing waits, and the
    /// flight that asked has ended.
    fn next(&self) -> Option<Vec<Waiting<C, O>>> {
        let mut queue = self.queue();
        let (mut batch, mut weight) = (Vec::<Waiting<C, O>>::new(), 0);
        while let Some(next) = queue.waiting.pop_front() {
            if next.answer.is_closed() {
                continue;
            }
            weight += next.weight;
            if let Some(first) = batch.first()
                && !(weight <= self.rules.limits.batch
                    && (self.rules.alike)(&first.call, &next.call))
            {
                queue.waiting.push_front(next);
                break;
            }
            batch.push(next);
        }
        if batch.is_empty() {
            queue.flights -= 1;
            return None;
        }
        Some(batch)
    }
}

/// A place among the flights. It is given back also where its task is cut off; when that was the
/// last one, those who wait are told.
struct Flight<C, O> {
    shared: Arc<Dispatcher<C, O>>,
    ended: bool,
}

impl<C, O> Drop for Flight<C, O> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let mut queue = self.shared.queue();
        queue.flights -= 1;
        if queue.flights == 0 {
            queue.waiting.clear();
        }
    }
}

async fn fly<C, O>(shared: Arc<Dispatcher<C, O>>) {
    let mut flight = Flight { shared, ended: false };
    loop {
        let shared = &flight.shared;
        if let Some(linger) = &shared.rules.linger
            && !shared.queue().waiting.is_empty()
        {
            linger().await;
        }
        let Some(batch) = shared.next() else { break };
        let (mut calls, mut callers) =
            (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        for waiting in batch {
            calls.push(waiting.call);
            callers.push(waiting.answer);
        }
        let answers = (shared.run)(calls).await;
        for (caller, answer) in callers.into_iter().zip(answers) {
            // An error means that the caller went away.
            let _ = caller.send(answer);
        }
    }
    flight.ended = true;
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { batch: 10, waiting: Some(20), flights: 1 };

    /// Doubles numbers once the test lets it, and writes down the sizes of its batches.
    struct Doubler {
        batcher: Arc<Batcher<u32, u32>>,
        gate: Arc<Semaphore>,
        sizes: Arc<Mutex<Vec<usize>>>,
    }

    impl Doubler {
        fn new(rules: impl Into<Rules<u32>>) -> Self {
            let (gate, sizes) = (Arc::new(Semaphore::new(0)), Arc::new(Mutex::new(Vec::new())));
            let (open, log) = (gate.clone(), sizes.clone());
            let batcher = Batcher::new(rules, move |items: Vec<u32>| {
                let open = open.clone();
                log.lock().unwrap().push(items.len());
                Box::pin(async move {
                    open.acquire().await.unwrap().forget();
                    assert!(!items.contains(&13), "unlucky");
                    items.into_iter().map(|item| item * 2).collect()
                })
            });
            Self { batcher: Arc::new(batcher), gate, sizes }
        }

        fn call(&self, number: u32) -> tokio::task::JoinHandle<Result<u32, CutOff>> {
            let batcher = self.batcher.clone();
            tokio::spawn(async move { batcher.call(number, 1).await })
        }

        fn sizes(&self) -> Vec<usize> {
            self.sizes.lock().unwrap().clone()
        }
    }

    async fn settle() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_comes_during_a_flight_goes_out_together_within_the_limit() {
        let subject = Doubler::new(LIMITS);
        let mut calls = vec![subject.call(100)];
        settle().await;
        assert_eq!(subject.sizes(), [1], "the first waits for nobody");
        calls.extend((101..124).map(|number| subject.call(number)));
        settle().await;
        assert_eq!(subject.sizes(), [1], "one flight at a time");
        subject.gate.add_permits(100);
        for (call, number) in calls.into_iter().zip(100..) {
            assert_eq!(call.await.unwrap(), Ok(number * 2));
        }
        let sizes = subject.sizes();
        assert_eq!(sizes.iter().sum::<usize>(), 24);
        assert!(sizes.len() <= 5 && sizes.iter().all(|size| *size <= 10), "{sizes:?}");
        // A call that is heavier than a whole batch goes out alone.
        assert_eq!(subject.batcher.call(7, 50).await, Ok(14));
    }

    #[tokio::test]
    async fn flights_overlap_up_to_their_limit() {
        let subject = Doubler::new(Limits { flights: 3, ..LIMITS });
        let mut calls = Vec::new();
        for number in 0..5 {
            calls.push(subject.call(number));
            settle().await;
        }
        assert_eq!(subject.sizes(), [1, 1, 1], "the others wait");
        subject.gate.add_permits(100);
        for call in calls {
            call.await.unwrap().unwrap();
        }
        assert_eq!(subject.sizes(), [1, 1, 1, 2]);
    }

    #[tokio::test]
    async fn only_what_is_alike_goes_out_together() {
        let rules = Rules::from(LIMITS).alike(|one, other| one / 100 == other / 100);
        let subject = Doubler::new(rules);
        let mut calls = vec![subject.call(0)];
        settle().await;
        calls.extend([100, 101, 200, 102].map(|number| subject.call(number)));
        settle().await;
        subject.gate.add_permits(100);
        for call in calls {
            call.await.unwrap().unwrap();
        }
        assert_eq!(subject.sizes(), [1, 2, 1, 1], "in their order");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_not_in_a_hurry_waits_for_company() {
        let second = std::time::Duration::from_secs(1);
        let rules = Rules::from(LIMITS).linger(move || Box::pin(tokio::time::sleep(second)));
        let subject = Doubler::new(rules);
        subject.gate.add_permits(100);
        let first = subject.call(1);
        tokio::time::sleep(second / 2).await;
        let second = subject.call(2);
        assert_eq!((first.await.unwrap(), second.await.unwrap()), (Ok(2), Ok(4)));
        assert_eq!(subject.sizes(), [2]);
    }

    #[tokio::test]
    async fn callers_that_went_away_are_left_out() {
        let subject = Doubler::new(LIMITS);
        let mut calls = vec![subject.call(0)];
        settle().await;
        calls.extend((1..5).map(|number| subject.call(number)));
        settle().await;
        for call in &calls[1..4] {
            call.abort();
        }
        settle().await;
        subject.gate.add_permits(100);
        for call in calls {
            let _ = call.await;
        }
        assert_eq!(subject.sizes(), [1, 1]);
    }

    #[tokio::test]
    async fn whoever_waits_is_told_when_the_flight_is_cut_off_and_the_next_call_flies() {
        let subject = Doubler::new(LIMITS);
        let unlucky = subject.call(13);
        settle().await;
        let waiting = subject.call(1);
        settle().await;
        subject.gate.add_permits(100);
        assert_eq!(unlucky.await.unwrap(), Err(CutOff));
        assert_eq!(waiting.await.unwrap(), Err(CutOff));
        assert_eq!(subject.batcher.call(2, 1).await, Ok(4));
    }
}
