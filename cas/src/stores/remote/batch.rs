//! Many small requests become few calls: what waits while calls are under way goes together.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::oneshot;

use crate::digest::DigestFunction;
use crate::error::StoreError;

/// Calls under way at the same time.
const CALLS: usize = 4;
/// Requests in one call.
const MAX_ITEMS: usize = 1_000;
/// Bytes of blobs in one call: less than the usual limit of 4 MiB a message.
const MAX_BYTES: u64 = 3 << 20;

#[async_trait]
pub trait BatchCall: Send + Sync + 'static {
    type Item: Send + 'static;
    type Answer: Send + 'static;

    /// Bytes that the item adds to the call or to its answer.
    fn bytes(item: &Self::Item) -> u64;

    /// All items of one call share it.
    fn function(item: &Self::Item) -> DigestFunction;

    /// One answer for each item, in order.
    async fn call(&self, items: Vec<Self::Item>) -> Vec<Result<Self::Answer, StoreError>>;
}

pub struct Batcher<C: BatchCall> {
    call: Arc<C>,
    queue: Arc<Mutex<Queue<C>>>,
}

struct Queue<C: BatchCall> {
    waiting: VecDeque<Waiting<C>>,
    calls: usize,
}

struct Waiting<C: BatchCall> {
    item: C::Item,
    answer: oneshot::Sender<Result<C::Answer, StoreError>>,
}

impl<C: BatchCall> Batcher<C> {
    pub fn new(call: C) -> Self {
        let queue = Queue { waiting: VecDeque::new(), calls: 0 };
        Self { call: Arc::new(call), queue: Arc::new(Mutex::new(queue)) }
    }

    /// The queue is bounded by the callers: each waits for its one answer.
    pub async fn ask(&self, item: C::Item) -> Result<C::Answer, StoreError> {
        let (answer, answered) = oneshot::channel();
        if lock(&self.queue).add(Waiting { item, answer }) {
            // Not in the caller's own task: it may be dropped, and others wait for the call.
            tokio::spawn(serve(self.call.clone(), self.queue.clone()));
        }
        answered.await.unwrap_or_else(|_| {
            Err(StoreError::Unavailable("the call that carried the request was lost".to_owned()))
        })
    }
}

fn lock<C: BatchCall>(queue: &Mutex<Queue<C>>) -> MutexGuard<'_, Queue<C>> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes calls until nothing waits.
async fn serve<C: BatchCall>(call: Arc<C>, queue: Arc<Mutex<Queue<C>>>) {
    // Whoever asked first often asks for more in the same breath.
    tokio::task::yield_now().await;
    loop {
        let Some(batch) = lock(&queue).next_batch() else { return };
        let (items, answers): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|waiting| (waiting.item, waiting.answer)).unzip();
        let results = call.call(items).await;
        for (answer, result) in answers.into_iter().zip(results) {
            // Whoever asked may be gone.
            let _ = answer.send(result);
        }
    }
}

impl<C: BatchCall> Queue<C> {
    /// Whether another task should [`serve`].
    fn add(&mut self, waiting: Waiting<C>) -> bool {
        self.waiting.push_back(waiting);
        let start = self.calls < CALLS;
        self.calls += usize::from(start);
        start
    }

    /// `None` ends the task that asks.
    fn next_batch(&mut self) -> Option<Vec<Waiting<C>>> {
        let Some(first) = self.waiting.front() else {
            self.calls -= 1;
            return None;
        };
        let function = C::function(&first.item);
        let mut bytes = 0;
        let mut batch = Vec::new();
        while let Some(next) = self.waiting.front() {
            bytes += C::bytes(&next.item);
            let full = batch.len() == MAX_ITEMS || bytes > MAX_BYTES;
            if !batch.is_empty() && (full || C::function(&next.item) != function) {
                break;
            }
            batch.extend(self.waiting.pop_front());
        }
        Some(batch)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;

    use super::*;

    struct Doubler(Arc<AtomicUsize>);

    #[async_trait]
    impl BatchCall for Doubler {
        type Item = u64;
        type Answer = u64;

        fn bytes(_: &u64) -> u64 {
            MAX_BYTES / 100
        }

        fn function(item: &u64) -> DigestFunction {
            if *item < 1_000 { DigestFunction::Sha256 } else { DigestFunction::Blake3 }
        }

        async fn call(&self, items: Vec<u64>) -> Vec<Result<u64, StoreError>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            assert!(items.len() <= 100);
            assert!(items.iter().all(|item| Self::function(item) == Self::function(&items[0])));
            tokio::task::yield_now().await;
            items.into_iter().map(|item| Ok(2 * item)).collect()
        }
    }

    #[tokio::test]
    async fn everyone_gets_the_own_answer_and_calls_are_few() {
        let calls = Arc::new(AtomicUsize::new(0));
        let batcher = Batcher::new(Doubler(calls.clone()));
        let answers = join_all((500..1_500).map(|item| batcher.ask(item))).await;
        for (item, answer) in (500..1_500).zip(answers) {
            assert_eq!(answer.unwrap(), 2 * item);
        }
        let calls = calls.load(Ordering::Relaxed);
        assert!((10..40).contains(&calls), "{calls} calls");
        assert_eq!(lock(&batcher.queue).calls, 0);
    }
}
