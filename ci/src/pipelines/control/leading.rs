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
use crate::pipelines::file::Trigger;
use crate::storage::Expect;

/// How long a lease lasts.
const LEASE: Duration = Duration::from_secs(8);
/// How often it is looked whether it has to be renewed, and whether there is something to drive.
const LOOK: Duration = Duration::from_secs(2);
/// The same while nothing runs, where schedules or releases may begin something.
const TRIGGER_LOOK: Duration = Duration::from_secs(5);
/// How often a frontend looks while nothing goes on anywhere. What begins here wakes it; what began at another, which was
/// lost before this look, goes on after it.
const IDLE_LOOK: Duration = Duration::from_secs(30);
/// How often old runs are removed.
const SWEEP: Duration = Duration::from_secs(3_600);

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Lease {
    holder: String,
    until: Time,
}

/// What there is to drive.
enum Due {
    /// Nothing anywhere, so that nobody has to lead.
    Nothing,
    /// Another frontend drives.
    Elsewhere,
    /// The runs that this one drives.
    Here(Vec<String>),
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
        let mut sweeping: Option<Tied> = None;
        loop {
            let mut woken = std::pin::pin!(self.wake.notified());
            // What begins while it looks is not missed.
            woken.as_mut().enable();
            let mut pause = LOOK;
            sweeping = sweeping.filter(|it| !it.0.is_finished());
            let sweeps = sweeping.is_none() && swept.is_none_or(|it| it.elapsed() >= SWEEP);
            match self.due(sweeps).await {
                Ok(Due::Here(due)) => {
                    if due.is_empty() {
                        pause = TRIGGER_LOOK;
                    }
                    running.retain(|id, task| due.contains(id) && !task.0.is_finished());
                    for id in due {
                        let control = self.clone();
                        let start = || Tied(tokio::spawn(Driver::keep(control, id.clone())));
                        running.entry(id.clone()).or_insert_with(start);
                    }
                    if sweeps {
                        swept = Some(Instant::now());
                        // Beside: it may take longer than the lease lasts, which is to be renewed meanwhile.
                        sweeping = Some(Tied(tokio::spawn(self.clone().sweep_beside())));
                    }
                }
                Ok(Due::Nothing) => {
                    running.clear();
                    pause = IDLE_LOOK;
                }
                // It is looked after for as long as the server runs.
                Ok(Due::Elsewhere) => {
                    running.clear();
                    pause = LEASE / 2;
                    // Whoever drives removes what is old.
                    swept = Some(Instant::now());
                }
                Err(error) => {
                    // Whether the lease still holds is not known. What goes on is fenced.
                    tracing::warn!(error = %chain(&error), "it is not known which pipelines run");
                }
            }
            let _ = tokio::time::timeout(pause, woken).await;
        }
    }

    async fn sweep_beside(self: Arc<Self>) {
        if let Err(error) = self.sweep().await {
            tracing::warn!(error = %chain(&error), "old runs stay");
        }
    }

    /// What this process has to drive, or to remove where it `sweeps`.
    async fn due(&self, sweeps: bool) -> Result<Due, ControlError> {
        if !sweeps && !self.awaits() && self.store.active().await?.is_empty() {
            return Ok(Due::Nothing);
        }
        let now = self.now();
        if !self.lead(now).await? {
            return Ok(Due::Elsewhere);
        }
        self.fire(now).await;
        self.follow().await;
        Ok(Due::Here(self.store.active().await?))
    }

    /// Whether a schedule or a release may begin a run.
    fn awaits(&self) -> bool {
        self.registered().values().any(|it| {
            let begins =
                |it: &Trigger| matches!(it, Trigger::Schedule(_) | Trigger::Release { .. });
            it.declared.triggers.iter().any(begins)
        })
    }
}
