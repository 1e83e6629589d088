//! Whether what was signed about a release still counts. A key may be revoked in the middle, so it is asked again and again,
//! beside the rounds: a slow store holds up none of them.

use std::sync::Arc;

use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::task::JoinHandle;

use super::kept::Rollout;
use crate::rollouts::machine::Millis;
use crate::rollouts::parts::Releases;

/// How often it is asked.
const EACH: Millis = 60_000;

/// What is known of the signatures of one release while somebody drives its rollout.
#[derive(Default)]
pub struct Checking {
    begun: Millis,
    running: Option<Running>,
}

/// A question that goes on for as long as this is there.
struct Running {
    task: JoinHandle<()>,
    answer: oneshot::Receiver<Option<String>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Running {
    fn begin(releases: Arc<dyn Releases>, rollout: &Rollout) -> Self {
        let (answered, answer) = oneshot::channel();
        let (id, release) = (rollout.id.clone(), rollout.release.clone());
        let environment = rollout.place.environment.clone();
        let task = tokio::spawn(async move {
            // Where the release stands is for promotion to say.
            let refused = match releases.verify(&release, &environment, false).await {
                Ok(verified) => verified.err(),
                Err(error) => {
                    tracing::warn!(rollout = id, %error, "it is not known whether the release is still signed");
                    None
                }
            };
            // Whoever asked may be gone.
            let _ = answered.send(refused);
        });
        Self { task, answer }
    }
}

impl Checking {
    /// Returns why the release does not count any more, and asks anew where that was long ago. `None`: it counts, or nobody
    /// has said anything yet.
    pub fn refused(
        &mut self,
        releases: &Arc<dyn Releases>,
        rollout: &Rollout,
        now: Millis,
    ) -> Option<String> {
        let refused = match self.running.as_mut().map(|it| it.answer.try_recv()) {
            Some(Err(TryRecvError::Empty)) => return None,
            Some(answered) => {
                self.running = None;
                answered.ok().flatten()
            }
            None => None,
        };
        if refused.is_none() && now >= self.begun.saturating_add(EACH) {
            self.begun = now;
            self.running = Some(Running::begin(releases.clone(), rollout));
        }
        refused
    }
}
