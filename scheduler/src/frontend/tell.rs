//! Tells the engine, and does what follows outside of the locks.

use std::sync::Arc;

use crate::api::Unavailable;
use crate::completion::Record;
use crate::job::Outcome;
use crate::queue::{Event, LeaseId, TaskId};

use super::engine::{Call, Engine};
use super::go_on::go_on;
use super::inner::Inner;
use super::local::Running;
use super::react::{FollowUp, Own};
use super::told::Told;

impl<E: Engine> Inner<E> {
    /// Tells what happened, and reacts to what follows.
    pub(super) async fn tell(self: &Arc<Self>, call: Call, own: Own) -> Result<(), Unavailable> {
        let after = self.engine.call(call, |told| self.react(told, own)).await?;
        self.follow_up(after);
        Ok(())
    }

    /// Asks, and reacts to what happens to come with the answers.
    pub(super) async fn ask(self: &Arc<Self>, call: Call) -> Result<Vec<Told>, Unavailable> {
        let (answers, after) = self
            .engine
            .call(call, |told| {
                let (answers, news) = told.into_iter().partition(Told::is_answer);
                (answers, self.react(news, Own::default()))
            })
            .await?;
        self.follow_up(after);
        Ok(answers)
    }

    /// Tells an event whose loss does little harm.
    pub(super) async fn report(self: &Arc<Self>, event: Event) {
        if let Err(error) = self.tell(Call::Event(event), Own::default()).await {
            tracing::warn!(%error, "the queue was not told of an event");
            // What it was about may be over here all the same.
            self.count_busy(&self.lock());
        }
    }

    /// Reacts to what a call of another frontend led to.
    pub fn hear(self: &Arc<Self>, told: Vec<Told>) {
        let mut after = Vec::new();
        let mut local = self.lock();
        for told in told {
            self.react_to(&mut local, told, None, &mut after);
        }
        self.count_busy(&local);
        drop(local);
        self.follow_up(after);
    }

    pub fn follow_up(self: &Arc<Self>, after: Vec<FollowUp>) {
        for after in after {
            match after {
                FollowUp::Publish { task, lease, running, outcome } => {
                    tokio::spawn(publish(self.clone(), task, lease, running, outcome));
                }
                FollowUp::Record { id, job, request, origin, finished } => {
                    self.completion.record(Record {
                        id,
                        key: &job.key,
                        facts: &job.facts,
                        request: &request,
                        origin,
                        expected_ms: job.expected_ms.unwrap_or(0),
                        finished: &finished,
                        together: None,
                    });
                }
                FollowUp::Lost(worker) => {
                    let inner = self.clone();
                    let _ = go_on(async move { inner.report(Event::WorkerLeft { worker }).await });
                }
                FollowUp::Detach(id) => E::left(self, id, false),
            }
        }
    }
}

/// Makes an answer durable and says so. Only the lease that led here is believed: when another
/// run has taken the task over meanwhile, nothing happens.
async fn publish<E: Engine>(
    inner: Arc<Inner<E>>,
    task: TaskId,
    lease: LeaseId,
    running: Running,
    outcome: Outcome,
) {
    let run = running.run();
    let answer = Arc::new(inner.completion.complete(&run, outcome).await);
    let call = Call::Published { task, lease, answer: answer.clone() };
    let told = inner.tell(call, Own { answer: Some(answer), ..Own::default() }).await;
    let mut local = inner.lock();
    local.publishing.remove(&lease);
    inner.count_busy(&local);
    drop(local);
    if let Err(error) = told {
        tracing::error!(%error, operation = %run.operation, "an answer was not published");
    }
}
