//! Lets one of many frontends drive rollouts: the one that has the lease. The lease ends by itself, so another takes
//! over within seconds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kiln_net::causes::chain;
use kiln_net::lease::Standing;
use kiln_net::panics::caught;
use tokio::task::JoinHandle;

use super::Control;
use super::error::ControlError;
use super::faults;

/// How often it is looked whether it has to be renewed, and whether there is something to drive.
const LOOK: Duration = Duration::from_secs(2);
/// How often a frontend looks while nothing is rolled out anywhere. What begins here wakes it; what began at another, which
/// was lost before this look, goes on after it.
const IDLE_LOOK: Duration = Duration::from_secs(30);

/// What there is to drive.
enum Due {
    /// There is nothing to drive anywhere.
    Nothing,
    /// Another frontend drives; it makes no sense to look again for so long.
    Elsewhere(Duration),
    /// Ids of the rollouts that this frontend drives.
    Here(Vec<String>),
}

/// A task that ends with this.
struct Running(JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Control {
    /// Whether this process is the one that acts; it takes the lease where nobody has it.
    pub async fn leads(&self) -> Result<bool, ControlError> {
        Ok(self.turn.is_mine().await?)
    }

    /// Drives rollouts whenever it has the lease. Never returns; drop it to end it.
    pub async fn run(self: Arc<Self>) {
        let mut running: HashMap<String, Running> = HashMap::new();
        let mut drove = false;
        loop {
            let mut woken = std::pin::pin!(self.wake.notified());
            // What begins while it looks is not missed.
            woken.as_mut().enable();
            let mut pause = LOOK;
            let due = caught(self.due()).await;
            match due.unwrap_or_else(|panicked| Err(panicked.into())) {
                Ok(Due::Nothing) => {
                    running.clear();
                    if std::mem::take(&mut drove) {
                        self.let_go().await;
                    }
                    pause = IDLE_LOOK;
                }
                Ok(Due::Elsewhere(time)) => {
                    running.clear();
                    (drove, pause) = (false, time);
                }
                Ok(Due::Here(due)) => {
                    drove = true;
                    running.retain(|id, task| due.contains(id) && !task.0.is_finished());
                    for id in due {
                        let control = self.clone();
                        let start = || Running(tokio::spawn(faults::keep(control, id.clone())));
                        running.entry(id.clone()).or_insert_with(start);
                    }
                }
                Err(error) => {
                    // Whether the lease still holds is not known. What goes on is fenced.
                    tracing::warn!(error = %chain(&error), "it is not known what is rolled out");
                }
            }
            let _ = tokio::time::timeout(pause, woken).await;
        }
    }

    /// Whoever begins the next rollout need not wait until the lease is over.
    async fn let_go(&self) {
        if let Err(error) = self.turn.give_up().await {
            tracing::info!(error = %chain(&error), "other servers drive no rollout for some seconds");
        }
    }

    /// What there is for this process to drive.
    async fn due(&self) -> Result<Due, ControlError> {
        let active = self.store.active().await?;
        if active.is_empty() {
            return Ok(Due::Nothing);
        }
        Ok(match self.turn.take().await? {
            Standing::Held(_) => Due::Here(active),
            Standing::Elsewhere(time) => Due::Elsewhere(time),
        })
    }
}
