//! The hermeticity check: actions run again under changed conditions, where their outputs should be
//! the same.
//!
//! `outputs` and `content` compare, `rerun` has an action run once more, `examine` finds the cause,
//! `select` says which actions, `sample` checks some of all builds in the background, `history` keeps
//! what was found.

mod content;
mod examine;
mod history;
mod outputs;
mod rerun;
mod sample;
mod select;

use std::sync::Arc;

use futures_util::{Stream, StreamExt, stream};
use kiln_cas::records::{RecordsError, SharedRecords};
use kiln_protos::events::Execution;
use kiln_protos::hermeticity::Checked;

pub use history::{HermeticityStats, MAX_KEPT};
pub use select::{Wanted, matches};

use crate::Scheduler;
use crate::journal::Journal;
use crate::shared::Core;
use history::History;

/// Actions that one request has checked at the same time.
const PARALLEL: usize = 4;
/// The number of actions that one request may have checked, at most.
pub const MAX_ACTIONS: usize = 10_000;

/// Checks in the background.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HermeticityConfig {
    /// The part of executed actions that is checked, from 0 (none) to 1.
    pub rate: f64,
    /// Actions checked at the same time, at least 1.
    pub concurrency: usize,
}

impl Default for HermeticityConfig {
    fn default() -> Self {
        Self { rate: 0.0, concurrency: 1 }
    }
}

/// Clones share one check and its history.
#[derive(Clone)]
pub struct Checker {
    inner: Arc<Inner>,
}

struct Inner {
    core: Arc<Core>,
    journal: Journal,
    history: History,
}

/// Actions to check, and how many there were to choose from.
pub(crate) struct Plan {
    pub executions: Vec<Execution>,
    pub known: usize,
}

impl Checker {
    pub fn new(scheduler: &Scheduler, journal: Journal, records: SharedRecords) -> Self {
        let core = scheduler.core().clone();
        Self { inner: Arc::new(Inner { core, journal, history: History::new(records) }) }
    }

    /// The results of checks, newest first, at most [`MAX_KEPT`].
    pub async fn newest(&self, limit: usize) -> Result<Vec<Checked>, RecordsError> {
        self.inner.history.newest(limit).await
    }

    pub fn stats(&self) -> HermeticityStats {
        self.inner.history.stats()
    }

    pub(crate) fn core(&self) -> &Core {
        &self.inner.core
    }

    /// The executions to check: of those that are wanted the part `rate` (0 to 1), and at most
    /// `max`.
    pub(crate) async fn plan(
        &self,
        instance: &str,
        wanted: &Wanted,
        rate: f64,
        max: usize,
    ) -> Result<Plan, RecordsError> {
        let mut executions = select::select(&self.inner.journal, instance, wanted).await?;
        let known = executions.len();
        executions.retain(|execution| {
            let action = crate::journal::action_of(execution);
            action.is_some_and(|action| select::is_sampled(&action, rate))
        });
        executions.truncate(max);
        Ok(Plan { executions, known })
    }

    /// The checks of `executions`, as they end. Dropping the stream ends what runs.
    pub(crate) fn checks(
        self,
        executions: Vec<Execution>,
    ) -> impl Stream<Item = Checked> + Send + 'static {
        stream::iter(executions)
            .map(move |execution| {
                let checker = self.clone();
                async move { checker.check(&execution).await }
            })
            .buffer_unordered(PARALLEL)
    }

    async fn check(&self, execution: &Execution) -> Checked {
        let checked = examine::examine(&self.inner.core, execution).await;
        self.inner.history.add(&checked).await;
        checked
    }
}
