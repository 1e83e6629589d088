//! The environments in which something happens by itself just now.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Semaphore;

/// Environments that are gone on with at once: each may run the program of a check.
const AT_ONCE: usize = 8;

pub struct Sweeps {
    /// Environments that are gone on with, and those that wait for their turn.
    open: Mutex<HashSet<String>>,
    /// Turns, of which whoever goes on with an environment holds one. It is never closed.
    pub turns: Semaphore,
}

/// Keeps others from going on with an environment until it is dropped.
pub struct Taken<'a> {
    sweeps: &'a Sweeps,
    environment: &'a str,
}

impl Default for Sweeps {
    fn default() -> Self {
        Self { open: Mutex::default(), turns: Semaphore::new(AT_ONCE) }
    }
}

impl Sweeps {
    /// `None`: an earlier sweep is not done with this environment.
    pub fn take<'a>(&'a self, environment: &'a str) -> Option<Taken<'a>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // Made only where it is new: what is made gives the environment back when it is dropped.
        open.insert(environment.to_owned()).then(|| Taken { sweeps: self, environment })
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut open = self.sweeps.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(self.environment);
    }
}
