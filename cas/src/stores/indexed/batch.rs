//! Many callers, few round trips: what is asked for while earlier calls are on their way goes
//! out together. Nobody waits for company, unless there is no hurry.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::error::StoreError;

type Answer<O> = Result<Vec<O>, StoreError>;
type Linger = Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;
type Run<I, O> = Box<dyn Fn(Vec<I>) -> BoxFuture<'static, Answer<O>> + Send + Sync>;

/// Weights are whatever the caller counts: items or bytes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most that goes out at once; a single call may be heavier.
    pub batch: usize,
    /// Most that waits; further calls wait to be let in.
    pub waiting: usize,
    /// Batches on their way at the same time.
    pub flights: usize,
}

pub struct Batcher<I, O> {
    shared: Arc<Shared<I, O>>,
    room: Arc<Semaphore>,
    runtime: Handle,
}

struct Shared<I, O> {
    run: Run<I, O>,
    /// What a flight waits for before it takes what is there.
    linger: Option<Linger>,
    limits: Limits,
    queue: Mutex<Queue<I, O>>,
}

struct Queue<I, O> {
    waiting: VecDeque<Call<I, O>>,
    flights: usize,
}

struct Call<I, O> {
    items: Vec<I>,
    weight: usize,
    answer: oneshot::Sender<Answer<O>>,
    _room: OwnedSemaphorePermit,
}

impl<I: Send + 'static, O: Send + 'static> Batcher<I, O> {
    /// `run` answers each item, in order. It runs on the runtime in which this is called.
    pub fn new(
        limits: Limits,
        run: impl Fn(Vec<I>) -> BoxFuture<'static, Answer<O>> + Send + Sync + 'static,
    ) -> Self {
        Self::with(limits, None, run)
    }

    /// The same for calls that nobody is in a hurry for: each flight waits for company first.
    pub fn lingering(
        limits: Limits,
        linger: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static,
        run: impl Fn(Vec<I>) -> BoxFuture<'static, Answer<O>> + Send + Sync + 'static,
    ) -> Self {
        Self::with(limits, Some(Box::new(linger)), run)
    }

    fn with(
        limits: Limits,
        linger: Option<Linger>,
        run: impl Fn(Vec<I>) -> BoxFuture<'static, Answer<O>> + Send + Sync + 'static,
    ) -> Self {
        let queue = Queue { waiting: VecDeque::new(), flights: 0 };
        let shared = Shared { run: Box::new(run), linger, limits, queue: queue.into() };
        let room = Arc::new(Semaphore::new(limits.waiting));
        Self { shared: Arc::new(shared), room, runtime: Handle::current() }
    }

    pub async fn call(&self, items: Vec<I>, weight: usize) -> Answer<O> {
        let room = u32::try_from(weight.min(self.shared.limits.waiting)).unwrap_or(u32::MAX);
        let room = self.room.clone().acquire_many_owned(room).await.map_err(|_| cut_off())?;
        let (answer, answered) = oneshot::channel();
        let call = Call { items, weight, answer, _room: room };
        if self.shared.push(call) {
            self.runtime.spawn(fly(self.shared.clone()));
        }
        answered.await.map_err(|_| cut_off())?
    }

    /// [`Batcher::call`] for a single item.
    pub async fn one(&self, item: I, weight: usize) -> Result<O, StoreError> {
        let mut answers = self.call(vec![item], weight).await?;
        answers.pop().ok_or_else(cut_off)
    }
}

impl<I, O> Shared<I, O> {
    fn queue(&self) -> MutexGuard<'_, Queue<I, O>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more flight is to begin.
    fn push(&self, call: Call<I, O>) -> bool {
        let mut queue = self.queue();
        queue.waiting.push_back(call);
        let more = queue.flights < self.limits.flights;
        queue.flights += usize::from(more);
        more
    }

    /// The calls of the next batch, without those whose callers went away. `None`: there are
    /// none, and the flight that asked has ended.
    fn next(&self) -> Option<Vec<Call<I, O>>> {
        let mut queue = self.queue();
        let (mut batch, mut weight) = (Vec::new(), 0);
        while let Some(call) = queue.waiting.pop_front() {
            if call.answer.is_closed() {
                continue;
            }
            if weight > 0 && weight + call.weight > self.limits.batch {
                queue.waiting.push_front(call);
                break;
            }
            weight += call.weight;
            batch.push(call);
        }
        if batch.is_empty() {
            queue.flights -= 1;
            return None;
        }
        Some(batch)
    }
}

/// A place among the flights. It is given back also where the task is cut off.
struct Flight<I, O> {
    shared: Arc<Shared<I, O>>,
    ended: bool,
}

impl<I, O> Drop for Flight<I, O> {
    fn drop(&mut self) {
        if !self.ended {
            self.shared.queue().flights -= 1;
        }
    }
}

async fn fly<I, O>(shared: Arc<Shared<I, O>>) {
    let mut flight = Flight { shared, ended: false };
    loop {
        if let Some(linger) = &flight.shared.linger
            && !flight.shared.queue().waiting.is_empty()
        {
            linger().await;
        }
        let Some(calls) = flight.shared.next() else { break };
        let (mut items, mut waiting) = (Vec::new(), Vec::with_capacity(calls.len()));
        for call in calls {
            waiting.push((call.items.len(), call.answer));
            items.extend(call.items);
        }
        let asked = items.len();
        let answers = match (flight.shared.run)(items).await {
            Ok(answers) if answers.len() != asked => Err(StoreError::Corrupt(format!(
                "{asked} questions to the index got {} answers",
                answers.len()
            ))),
            answers => answers,
        };
        hand_out(waiting, answers);
    }
    flight.ended = true;
}

fn hand_out<O>(waiting: Vec<(usize, oneshot::Sender<Answer<O>>)>, answers: Answer<O>) {
    match answers {
        Ok(answers) => {
            let mut answers = answers.into_iter();
            for (count, answer) in waiting {
                let _ = answer.send(Ok(answers.by_ref().take(count).collect()));
            }
        }
        Err(error) => {
            for (_, answer) in waiting {
                let _ = answer.send(Err(error.clone()));
            }
        }
    }
}

fn cut_off() -> StoreError {
    StoreError::Unavailable("a call to the index was cut off: its process is ending".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { batch: 10, waiting: 20, flights: 1 };

    /// Doubles numbers once the test lets it, and writes down the sizes of its batches.
    struct Doubler {
        batcher: Arc<Batcher<u32, u32>>,
        gate: Arc<Semaphore>,
        sizes: Arc<Mutex<Vec<usize>>>,
    }

    fn doubler() -> Doubler {
        let (gate, sizes) = (Arc::new(Semaphore::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (open, log) = (gate.clone(), sizes.clone());
        let batcher = Batcher::new(LIMITS, move |items: Vec<u32>| {
            let open = open.clone();
            log.lock().unwrap().push(items.len());
            Box::pin(async move {
                open.acquire().await.unwrap().forget();
                match items.contains(&13) {
                    true => Err(StoreError::Unavailable("unlucky".to_owned())),
                    false => Ok(items.into_iter().map(|item| item * 2).collect()),
                }
            })
        });
        Doubler { batcher: Arc::new(batcher), gate, sizes }
    }

    async fn settle() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_comes_during_a_flight_goes_out_together_within_the_limit() {
        let subject = doubler();
        let call = |number| {
            let batcher = subject.batcher.clone();
            tokio::spawn(async move { batcher.one(number, 1).await.unwrap() })
        };
        let mut calls = vec![call(100)];
        settle().await;
        assert_eq!(*subject.sizes.lock().unwrap(), [1], "the first waits for nobody");
        calls.extend((101..124).map(call));
        settle().await;
        assert_eq!(*subject.sizes.lock().unwrap(), [1], "one flight at a time");
        subject.gate.add_permits(100);
        for (call, number) in calls.into_iter().zip(100..) {
            assert_eq!(call.await.unwrap(), number * 2);
        }
        let sizes = subject.sizes.lock().unwrap().clone();
        assert_eq!(sizes.iter().sum::<usize>(), 24);
        assert!(sizes.len() <= 5 && sizes.iter().all(|size| *size <= 10), "{sizes:?}");
        // One that is heavier than a batch goes alone.
        let many: Vec<_> = (200..250).collect();
        let answers = subject.batcher.call(many.clone(), 50).await.unwrap();
        assert!(answers.iter().zip(many).all(|(answer, number)| *answer == number * 2));
    }

    #[tokio::test]
    async fn an_error_is_told_to_all_of_its_batch_and_the_next_batch_goes_on() {
        let subject = doubler();
        subject.gate.add_permits(100);
        assert!(subject.batcher.call(vec![1, 13], 2).await.is_err());
        assert_eq!(subject.batcher.call(vec![1, 2], 2).await.unwrap(), [2, 4]);
    }

    #[tokio::test]
    async fn callers_that_went_away_are_left_out() {
        let subject = doubler();
        let call = |number| {
            let batcher = subject.batcher.clone();
            tokio::spawn(async move { batcher.one(number, 1).await })
        };
        let mut calls = vec![call(0)];
        settle().await;
        calls.extend((1..5).map(call));
        settle().await;
        for call in &calls[1..4] {
            call.abort();
        }
        settle().await;
        subject.gate.add_permits(100);
        for call in calls {
            let _ = call.await;
        }
        assert_eq!(*subject.sizes.lock().unwrap(), [1, 1]);
    }
}
