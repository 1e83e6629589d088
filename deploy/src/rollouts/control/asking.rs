//! How targets are, asked while rounds go on: whoever answers slowly holds up none.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::rollouts::machine::{Millis, TargetId};
use crate::rollouts::parts::{Observation, PartError, Place, Targets};

/// What is known of each target that was asked about; errors: nothing is known anew.
pub type Found = Result<Vec<Option<Observation>>, PartError>;

/// A question that is on its way, for as long as this is there.
pub struct Asking {
    /// The targets that are asked about.
    pub ids: Vec<TargetId>,
    /// Since when the question is on its way. What was told then or later may not be seen by it.
    pub since: Millis,
    /// All targets are asked about, so that those count that were told nothing yet.
    pub all: bool,
    task: JoinHandle<()>,
    answer: oneshot::Receiver<Found>,
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Asking {
    pub fn begin(
        from: Arc<dyn Targets>,
        place: Place,
        named: Vec<(TargetId, String)>,
        (all, since): (bool, Millis),
    ) -> Self {
        let (ids, names): (Vec<TargetId>, Vec<String>) = named.into_iter().unzip();
        let (answered, answer) = oneshot::channel();
        let task = tokio::spawn(async move {
            // Whoever asked may be gone.
            let _ = answered.send(from.observe(&place, &names).await);
        });
        Self { ids, since, all, task, answer }
    }

    /// The answer, if there is one within this time.
    pub async fn answer(&mut self, within: Duration) -> Option<Found> {
        match tokio::time::timeout(within, &mut self.answer).await {
            Ok(Ok(found)) => Some(found),
            Ok(Err(_)) => Some(Err("whoever was asked broke off".into())),
            Err(_) => None,
        }
    }
}
