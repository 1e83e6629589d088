//! Runs whose histories were read. The last few are kept, so that only what is new of a history has to be read.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;

use super::kept::Run;
use crate::model::Time;
use crate::pipelines::machine::{Logged, RunState, Spec};
use crate::pipelines::stage::Stage;

/// Runs that are kept: the texts of one have 16 MB at most.
const KEPT: NonZeroUsize = NonZeroUsize::new(8).expect("it is not 0");

/// A run whose history was read.
#[derive(Clone)]
pub struct Open {
    pub run: Arc<Run>,
    pub state: RunState,
    /// The version of the run's head, which the next write expects.
    pub version: u64,
    /// Time of the last event: a clock that goes back is not followed.
    pub last: Time,
}

impl Open {
    /// The state of a run before anything happened.
    pub fn new(run: Run, stages: Vec<Stage>) -> Self {
        let timeout = Duration::from_millis(run.timeout_ms);
        let spec = Spec::new(stages, &run.by, timeout, run.most);
        let state = RunState::new(Arc::new(spec));
        Self { state, version: 0, last: run.at, run: Arc::new(run) }
    }

    pub fn take(&mut self, logged: &Logged) {
        self.state.apply(logged);
        self.last = logged.at;
    }

    /// The time, which never goes back.
    pub fn time(&self, now: Time) -> Time {
        now.max(self.last)
    }
}

/// The last few that were asked for, by their ids.
pub struct Opened(Mutex<LruCache<String, Arc<Open>>>);

impl Default for Opened {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(KEPT)))
    }
}

impl Opened {
    pub fn get(&self, id: &str) -> Option<Arc<Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    pub fn put(&self, id: &str, open: Arc<Open>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(id.to_owned(), open);
    }
}
