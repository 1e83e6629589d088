//! Runs that take turns. Every run that enters leaves: it had its turn, or was told who took it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::pipelines::file::Busy;

/// Runs that wait for one group.
pub const MAX_QUEUE: usize = 1_000;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Group {
    pub name: String,
    /// The id of the run whose turn it is; `None`: nobody's.
    pub holder: Option<String>,
    /// Runs that wait for their turn, in the order in which they came.
    pub queue: Vec<String>,
    /// Runs that are to end, with the run that took their place.
    pub superseded: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_QUEUE} runs wait for this group already")]
pub struct GroupFull;

impl Group {
    /// Notes that a run wants its turn. It is no error where it is there already.
    pub fn enter(&mut self, run: &str, busy: Busy) -> Result<(), GroupFull> {
        if self.has(run) {
            return Ok(());
        }
        if self.holder.is_none() {
            self.holder = Some(run.to_owned());
            return Ok(());
        }
        if self.queue.len() >= MAX_QUEUE {
            return Err(GroupFull);
        }
        if busy == Busy::Supersede {
            for other in self.holder.iter().chain(&self.queue) {
                self.superseded.entry(other.clone()).or_insert_with(|| run.to_owned());
            }
        }
        self.queue.push(run.to_owned());
        Ok(())
    }

    /// A run has ended: the next one has its turn.
    pub fn leave(&mut self, run: &str) {
        self.superseded.remove(run);
        self.queue.retain(|it| it != run);
        if self.holder.as_deref() == Some(run) {
            self.holder = (!self.queue.is_empty()).then(|| self.queue.remove(0));
        }
    }

    /// Whether a run has its turn, or waits for it.
    pub fn has(&self, run: &str) -> bool {
        self.has_turn(run) || self.queue.iter().any(|it| it == run)
    }

    pub fn has_turn(&self, run: &str) -> bool {
        self.holder.as_deref() == Some(run)
    }

    /// The run that took the place of this one, if one did.
    pub fn superseded(&self, run: &str) -> Option<&str> {
        self.superseded.get(run).map(String::as_str)
    }

    pub fn is_empty(&self) -> bool {
        self.holder.is_none()
    }
}
