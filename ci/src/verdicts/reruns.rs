//! How an action is run again. Whoever has workers implements it.

use async_trait::async_trait;

use crate::attempts::{Attempt, BlobName};

/// An action that ran before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub instance: String,
    /// The label, for people.
    pub target: String,
    pub action: BlobName,
    /// The worker that it is kept from where others can run it.
    pub avoid: Option<String>,
}

/// What workers could take up now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Slots that have nothing to do.
    pub idle: usize,
    /// Whether no slot has anything to do.
    pub all_idle: bool,
    /// Actions of builds that wait for one.
    pub waiting: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RerunError {
    /// The action cannot run again, now or later.
    #[error("{0}")]
    Gone(String),
    /// The action could not be run this time.
    #[error("{0}")]
    Failed(String),
}

/// Runs actions again as they were, on workers that are idle, and writes their results nowhere.
#[async_trait]
pub trait Reruns: Send + Sync + 'static {
    async fn room(&self) -> Result<Room, RerunError>;

    /// The attempt that it was this time. Dropping the future ends the run.
    async fn run(&self, wanted: &Wanted) -> Result<Attempt, RerunError>;
}
