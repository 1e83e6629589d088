//! What was read of rollouts before, so that only what is new of a log has to be read.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;

use super::kept::Rollout;
use crate::rollouts::machine::{Logged, Millis, RolloutState};

/// Rollouts of which something is kept: one of 20,000 targets is some 10 MB.
const KEPT: NonZeroUsize = NonZeroUsize::new(16).expect("it is not 0");

/// A log up to some event.
#[derive(Debug, Clone)]
pub struct Fold {
    pub rollout: Arc<Rollout>,
    pub state: RolloutState,
    /// Time of the last event.
    pub last: Millis,
}

impl Fold {
    pub fn new(rollout: Rollout) -> Self {
        Self { state: RolloutState::new(rollout.spec.clone()), rollout: Arc::new(rollout), last: 0 }
    }

    pub fn take(&mut self, logged: &Logged) {
        self.state.apply(logged);
        self.last = logged.at;
    }
}

/// The last few that were asked for, by the ids of their rollouts.
pub struct Kept<T>(Mutex<LruCache<String, Arc<T>>>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(KEPT)))
    }
}

impl<T> Kept<T> {
    pub fn get(&self, id: &str) -> Option<Arc<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    pub fn put(&self, id: &str, value: Arc<T>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(id.to_owned(), value);
    }
}
