//! One of many frontends drives: whoever has the lease. It ends by itself, so another takes over within seconds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kiln_net::causes::chain;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use super::driver::Driver;
use super::error::ControlError;
use super::store::{Read, put};
use super::{Control, keys};
use crate::rollouts::machine::Millis;

/// How long a lease lasts.
pub const LEASE: Millis = 8_000;
/// How often it is looked whether it has to be renewed, and whether there is something to drive.
const LOOK: Duration = Duration::from_secs(2);
/// How often a frontend looks while nothing is rolled out anywhere. What begins here wakes it; what began at another, which
/// was lost before this look, goes on after it.
const IDLE_LOOK: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Lease {
    holder: String,
    until: Millis,
}

/// A task that ends with this.
struct Running(JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Control {
    /// Takes or renews the lease. `false`: somebody else has it.
    pub(super) async fn lead(&self, now: Millis) -> Result<bool, ControlError> {
        let read: Read<Lease> = self.store.read(keys::LEASE).await?;
        let own = read.value.holder == self.who;
        // A lease that ends after longer than it lasts was written by a clock that has jumped.
        let left = read.value.until.saturating_sub(now);
        if !own && left > 0 && left <= 2 * LEASE {
            return Ok(false);
        }
        // Half of it is left: nothing has to be written.
        if own && left > LEASE / 2 {
            return Ok(true);
        }
        let lease = Lease { holder: self.who.clone(), until: now.saturating_add(LEASE) };
        let write = put(keys::LEASE.to_owned(), read.expect(), &lease)?;
        if self.store.commit(Vec::new(), vec![write]).await? {
            return Ok(true);
        }
        // Not only whoever drives asks: another task of this process may have written it at the same moment.
        let read: Read<Lease> = self.store.read(keys::LEASE).await?;
        Ok(read.value.holder == self.who && now < read.value.until)
    }

    /// Whether this process is the one that acts; it takes the lease where nobody has it.
    pub async fn leads(&self) -> Result<bool, ControlError> {
        self.lead(self.now()).await
    }

    /// Drives rollouts whenever it has the lease. Never returns; drop it to end it.
    pub async fn run(self: Arc<Self>) {
        let mut running: HashMap<String, Running> = HashMap::new();
        loop {
            let mut woken = std::pin::pin!(self.wake.notified());
            // What begins while it looks is not missed.
            woken.as_mut().enable();
            let mut pause = LOOK;
            match self.due().await {
                Ok(None) => {
                    running.clear();
                    pause = IDLE_LOOK;
                }
                Ok(Some(due)) => {
                    running.retain(|id, task| due.contains(id) && !task.0.is_finished());
                    for id in due {
                        let control = self.clone();
                        let start = || Running(tokio::spawn(Driver::keep(control, id.clone())));
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

    /// What this process has to drive; `None`: nothing is rolled out anywhere.
    async fn due(&self) -> Result<Option<Vec<String>>, ControlError> {
        let active = self.store.active().await?;
        if active.is_empty() {
            return Ok(None);
        }
        let leads = self.lead(self.now()).await?;
        Ok(Some(if leads { active } else { Vec::new() }))
    }
}
