//! Checks in the background: a sample of what builds have executed, while workers are idle.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kiln_cas::events::Events;
use kiln_protos::events::Execution;
use kiln_protos::events::execution::Origin;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::select::{is_comparable, is_sampled};
use super::{Checker, HermeticityConfig};
use crate::journal::action_of;

/// Sampled executions that wait; more are dropped, and counted.
const MAX_WAITING: usize = 1_000;
/// How often it is looked whether workers are idle, while something waits.
const LOOK: Duration = Duration::from_secs(1);
/// How long after an execution its check begins, at least: a time stamp in an output can only
/// differ in another second.
const AGE: Duration = Duration::from_secs(2);

impl Checker {
    /// Checks some of what is executed from now on, while workers have nothing else to do. Call
    /// within a Tokio runtime. `None`: the rate is zero.
    pub fn sample(&self, events: &Events, config: HermeticityConfig) -> Option<JoinHandle<()>> {
        let runs = config.rate > 0.0;
        runs.then(|| tokio::spawn(run(self.clone(), events.subscribe(), config)))
    }
}

/// Runs until nobody publishes events any more.
async fn run(checker: Checker, mut events: Receiver<Arc<Execution>>, config: HermeticityConfig) {
    let mut waiting: VecDeque<(Instant, Arc<Execution>)> = VecDeque::new();
    let mut checks = JoinSet::new();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let room = checks.len() < config.concurrency.max(1);
        tokio::select! {
            event = events.recv() => match event {
                Ok(execution) if is_wanted(&execution, config.rate) => {
                    if waiting.len() < MAX_WAITING {
                        waiting.push_back((Instant::now(), execution));
                    } else {
                        checker.inner.history.dropped.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            _ = checks.join_next(), if !checks.is_empty() => {}
            _ = look.tick(), if room && !waiting.is_empty() => {
                let is_due = waiting.front().is_some_and(|(since, _)| since.elapsed() >= AGE);
                if is_due && is_idle(&checker).await
                    && let Some((_, execution)) = waiting.pop_front()
                {
                    let checker = checker.clone();
                    checks.spawn(async move { checker.check(&execution).await });
                }
            }
        }
    }
}

fn is_wanted(execution: &Execution, rate: f64) -> bool {
    execution.origin() == Origin::Executed
        && is_comparable(execution)
        && action_of(execution).is_some_and(|action| is_sampled(&action, rate))
}

/// Whether no action waits and a slot would stay free for a build that comes next.
async fn is_idle(checker: &Checker) -> bool {
    let snapshot = checker.core().queue.snapshot().await;
    snapshot.is_ok_and(|snapshot| {
        let running = snapshot.running_count as u64;
        snapshot.queue_depth == 0 && running < snapshot.slots
    })
}
