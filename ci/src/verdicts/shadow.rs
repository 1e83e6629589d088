//! Shadow runs as they go on: started where slots are idle, ended when real work waits.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::Instant;

use super::error::VerdictError;
use super::heard::{self, Heard};
use super::leading::Leading;
use super::reruns::{RerunError, Reruns, Wanted};
use crate::attempts::Attempt;
use crate::flakes::{Rerun, RerunId};

/// How a shadow run ended.
pub struct Ended {
    rerun: Rerun,
    took: Duration,
    result: Result<Attempt, RerunError>,
}

/// A run that has not ended yet.
struct Running {
    rerun: Rerun,
    started: Instant,
    handle: AbortHandle,
}

/// What runs. Dropping it ends all of it.
#[derive(Default)]
pub struct Runs {
    tasks: JoinSet<Ended>,
    running: HashMap<Id, Running>,
}

impl Runs {
    /// The next run that has ended; waits for ever where none runs.
    pub async fn ended(&mut self) -> Option<Ended> {
        match self.tasks.join_next_with_id().await {
            Some(Ok((task, ended))) => {
                self.running.remove(&task);
                Some(ended)
            }
            Some(Err(error)) => self.broken_off(&error),
            None => std::future::pending().await,
        }
    }

    /// A run that panicked has ended like any other, and has shown nothing. `None`: it was stopped, which is known.
    fn broken_off(&mut self, error: &JoinError) -> Option<Ended> {
        let Running { rerun, started, .. } = self.running.remove(&error.id())?;
        let result = Err(RerunError::Failed(error.to_string()));
        Some(Ended { rerun, took: started.elapsed(), result })
    }

    fn start(&mut self, reruns: &Arc<dyn Reruns>, rerun: Rerun, wanted: Wanted) {
        let reruns = reruns.clone();
        let (started, own) = (Instant::now(), rerun.clone());
        let handle = self.tasks.spawn(async move {
            let result = reruns.run(&wanted).await;
            Ended { rerun: own, took: started.elapsed(), result }
        });
        self.running.insert(handle.id(), Running { rerun, started, handle });
    }

    fn stop(&mut self, id: RerunId) {
        let task = self.running.iter().find(|(_, it)| it.rerun.id == id).map(|(task, _)| *task);
        if let Some(run) = task.and_then(|task| self.running.remove(&task)) {
            run.handle.abort();
        }
    }
}

impl Leading {
    /// Starts and stops what the workers have room for.
    pub async fn shadow(&mut self, runs: &mut Runs) -> Result<(), VerdictError> {
        if !self.mind.has_work() {
            return Ok(());
        }
        let room = match self.parts.reruns.room().await {
            Ok(room) => room,
            Err(error) => {
                tracing::debug!(%error, "it is not known whether workers are idle");
                return Ok(());
            }
        };
        if room.waiting > 0 {
            self.mind.preempt(room.waiting).into_iter().for_each(|id| runs.stop(id));
            return Ok(());
        }
        let now = self.parts.clock.now();
        // Where nobody does anything, not even a machine with one slot keeps all of them free.
        let least = if room.all_idle { self.mind.reserve() + 1 } else { 0 };
        for rerun in self.mind.next(now, room.idle.max(least)) {
            self.start(rerun, runs).await?;
        }
        Ok(())
    }

    async fn start(&mut self, rerun: Rerun, runs: &mut Runs) -> Result<(), VerdictError> {
        let (evidence, _) = self.store.test(&rerun.subject.test).await?;
        let known = evidence.repeatable(rerun.identity).map(|it| it.action.clone());
        let Some(action) = known.or_else(|| self.pending_action(rerun.identity)) else {
            self.not_run(&rerun);
            return Ok(());
        };
        let test = &rerun.subject.test;
        let wanted = Wanted {
            instance: test.instance.clone(),
            target: test.label.clone(),
            action,
            avoid: rerun.avoid.clone(),
        };
        runs.start(&self.parts.reruns, rerun, wanted);
        Ok(())
    }

    /// Ends a run that cannot be started, since it is not known how.
    fn not_run(&mut self, rerun: &Rerun) {
        let now = self.parts.clock.now();
        self.mind.ended(rerun.id, None, Duration::ZERO, now);
        self.mind.give_up(rerun);
    }

    /// What a shadow run showed is committed as what it was, and judged.
    pub async fn ended(&mut self, ended: Ended) -> Result<(), VerdictError> {
        let Ended { rerun, took, result } = ended;
        let now = self.parts.clock.now();
        let (target, purpose) = (&rerun.subject.test.label, rerun.purpose);
        match result {
            Ok(mut attempt) if attempt.identity == Some(rerun.identity) => {
                let outcome = attempt.outcome;
                heard::mark(&mut attempt, purpose, rerun.id.0);
                attempt.test = rerun.subject.test.clone();
                self.parts.history.commit(now, std::slice::from_ref(&attempt)).await?;
                self.mind.ended(rerun.id, Heard::of(&attempt).as_ref(), took, now);
                tracing::info!(target, ?purpose, ?outcome, ?took, "a shadow run has ended");
            }
            Ok(_) => self.mind.ended(rerun.id, None, took, now),
            Err(RerunError::Gone(reason)) => {
                tracing::info!(target, reason, "a failure cannot be run again");
                self.mind.ended(rerun.id, None, took, now);
                self.mind.give_up(&rerun);
            }
            Err(RerunError::Failed(reason)) => {
                tracing::debug!(target, reason, "a shadow run did not come to an end");
                self.mind.ended(rerun.id, None, took, now);
            }
        }
        Ok(())
    }
}
