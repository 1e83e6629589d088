//! One of many frontends drives: whoever has the lease. It ends by itself, so another takes over within seconds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kiln_net::causes::chain;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Control;
use super::attempt::Tied;
use super::driver::Driver;
use super::error::ControlError;
use super::keys;
use super::store::put;
use crate::model::Time;
use crate::storage::Expect;

/// How long a lease lasts.
const LEASE: Duration = Duration::from_secs(8);
/// How often it is looked whether it has to be renewed, and whether there is something to drive.
const LOOK: Duration = Duration::from_secs(2);
/// The same while nothing goes on. What begins here wakes it.
const IDLE_LOOK: Duration = Duration::from_secs(10);
/// How often old runs are removed.
const SWEEP: Duration = Duration::from_secs(3_600);

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Lease {
    holder: String,
    until: Time,
}

impl Control {
    /// Takes or renews the lease. `false`: somebody else has it.
    async fn lead(&self, now: Time) -> Result<bool, ControlError> {
        let found = self.store.get::<Lease>(keys::LEASE).await?;
        let expect = found.as_ref().map_or(Expect::Absent, |(_, it)| Expect::Version(*it));
        let lease = found.map(|(lease, _)| lease).unwrap_or_default();
        let own = lease.holder == self.who;
        // A lease that ends after longer than it lasts was written by a clock that has jumped.
        let holds = now < lease.until && lease.until.since(now) <= LEASE * 2;
        if !own && holds {
            return Ok(false);
        }
        // Half of it is left: nothing has to be written.
        if own && now.plus(LEASE / 2) < lease.until {
            return Ok(true);
        }
        let lease = Lease { holder: self.who.clone(), until: now.plus(LEASE) };
        self.store.commit(Vec::new(), vec![put(keys::LEASE.to_owned(), expect, &lease)?]).await
    }

    /// Drives runs whenever it has the lease. Never returns; drop it to end it: what runs goes on, and whoever drives next
    /// takes it over.
    pub async fn run(self: Arc<Self>) {
        let mut running: HashMap<String, Tied> = HashMap::new();
        let mut swept: Option<Instant> = None;
        loop {
            let mut woken = std::pin::pin!(self.wake.notified());
            // What begins while it looks is not missed.
            woken.as_mut().enable();
            let mut pause = LOOK;
            match self.due().await {
                Ok(Some(due)) => {
                    if due.is_empty() {
                        pause = IDLE_LOOK;
                    }
                    running.retain(|id, task| due.contains(id) && !task.0.is_finished());
                    for id in due {
                        let control = self.clone();
                        let start = || Tied(tokio::spawn(Driver::keep(control, id.clone())));
                        running.entry(id.clone()).or_insert_with(start);
                    }
                    if swept.is_none_or(|it| it.elapsed() >= SWEEP) {
                        swept = Some(Instant::now());
                        if let Err(error) = self.sweep().await {
                            tracing::warn!(error = %chain(&error), "old runs stay");
                        }
                    }
                }
                // Somebody else drives, and is looked after for as long as the server runs.
                Ok(None) => {
                    running.clear();
                    pause = LEASE / 2;
                }
                Err(error) => {
                    // Whether the lease still holds is not known. What goes on is fenced.
                    tracing::warn!(error = %chain(&error), "it is not known which pipelines run");
                }
            }
            let _ = tokio::time::timeout(pause, woken).await;
        }
    }

    /// What this process has to drive; `None`: another one does.
    async fn due(&self) -> Result<Option<Vec<String>>, ControlError> {
        let now = self.now();
        if !self.lead(now).await? {
            return Ok(None);
        }
        self.fire(now).await;
        self.follow().await;
        Ok(Some(self.store.active().await?))
    }
}
