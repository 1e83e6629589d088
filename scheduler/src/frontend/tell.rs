//! Tells the engine, and does what follows outside of the locks.

use std::sync::Arc;

use kiln_net::panics::caught;

use crate::api::Unavailable;
use crate::completion::Record;
use crate::job::{Finished, Outcome, Run};
use crate::queue::{Ending, Event, LeaseId, TaskId};

use super::engine::{Call, Engine};
use super::go_on::go_on;
use super::inner::Inner;
use super::local::Running;
use super::react::{FollowUp, Own};
use super::told::Told;

impl<E: Engine> Inner<E> {
    /// Makes a call of the engine and reacts to what follows.
    pub(super) async fn tell(self: &Arc<Self>, call: Call, own: Own) -> Result<(), Unavailable> {
        let after = self.engine.call(call, |told| self.react(told, own)).await?;
        self.follow_up(after);
        Ok(())
    }

    /// An answer is durable, or is all that there will be.
    async fn tell_answer(
        self: &Arc<Self>,
        task: TaskId,
        lease: LeaseId,
        answer: Arc<Finished>,
    ) -> Result<(), Unavailable> {
        let call = Call::Published { task, lease, answer: answer.clone() };
        self.tell(call, Own { answer: Some(answer), ..Own::default() }).await
    }

    /// Ends the task with an error where a worker's answer under this lease was lost to a fault of
    /// this server. Where the engine knows of another end, whoever waits hears that one.
    pub(super) async fn lose_answer(self: &Arc<Self>, task: TaskId, lease: LeaseId, run: &Run) {
        let lose = async {
            let answer = Arc::new(self.completion.failed(run, &Ending::Published));
            self.tell_answer(task, lease, answer).await?;
            self.tell(Call::Look(task), Own::default()).await
        };
        if let Err(error) = caught(lose).await.map_err(Unavailable::from).flatten() {
            tracing::error!(%error, operation = %run.operation, "a task whose answer is lost goes on");
        }
    }

    /// Asks for all that somebody waits for here, after a fault with which news may have been lost.
    pub async fn look_again(self: &Arc<Self>) {
        let waits = self.lock().waits();
        let mut failed = 0;
        for (task, _) in waits {
            let looked = caught(self.tell(Call::Look(task), Own::default())).await;
            failed += usize::from(!matches!(looked, Ok(Ok(()))));
        }
        if failed > 0 {
            tracing::error!(failed, "it is not known of all tasks what became of them");
        }
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
    let published = async {
        let (answer, publication) = inner.completion.complete(&run, outcome).await;
        let answer = Arc::new(answer);
        (inner.tell_answer(task, lease, answer.clone()).await, answer, publication)
    };
    let told = match caught(published).await {
        Ok((told, answer, publication)) => {
            // The queue may have been told at another Redis than the action cache. A fault here is none of the answer's,
            // which was given.
            inner.completion.keep(&run, &answer, publication).await;
            told
        }
        Err(panicked) => {
            inner.lose_answer(task, lease, &run).await;
            Err(panicked.into())
        }
    };
    let mut local = inner.lock();
    local.publishing.remove(&lease);
    inner.count_busy(&local);
    drop(local);
    if let Err(error) = told {
        tracing::error!(%error, operation = %run.operation, "an answer was not published");
    }
}
