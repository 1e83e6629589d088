//! Lets one of many frontends drive runs: the one that has the lease. The lease ends by itself, so another takes over
//! within seconds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kiln_net::causes::chain;
use kiln_net::lease::Standing;
use kiln_net::panics::caught;
use tokio::time::Instant;

use super::Control;
use super::attempt::Tied;
use super::error::ControlError;
use super::faults;
use crate::pipelines::file::Trigger;

/// How often it is looked whether it has to be renewed, and whether there is something to drive.
const LOOK: Duration = Duration::from_secs(2);
/// How often it is looked while nothing runs, where schedules, releases or pushes may begin something.
const TRIGGER_LOOK: Duration = Duration::from_secs(5);
/// How often a frontend looks while nothing goes on anywhere. What begins here wakes it; what began at another, which was
/// lost before this look, goes on after it.
const IDLE_LOOK: Duration = Duration::from_secs(30);
/// How often old runs are removed.
const SWEEP: Duration = Duration::from_secs(3_600);

/// What there is to drive.
pub(super) enum Due {
    /// There is nothing to drive anywhere, so that nobody has to lead.
    Nothing,
    /// Another frontend drives; it makes no sense to look again for so long.
    Elsewhere(Duration),
    /// Ids of the runs that this frontend drives.
    Here(Vec<String>),
}

impl Control {
    /// Drives runs whenever it has the lease. Never returns; drop it to end it: what runs goes on, and whoever drives next
    /// takes it over.
    pub async fn run(self: Arc<Self>) {
        let mut running: HashMap<String, Tied> = HashMap::new();
        let mut swept: Option<Instant> = None;
        let mut sweeping: Option<Tied> = None;
        let mut drove = false;
        loop {
            let mut woken = std::pin::pin!(self.wake.notified());
            // What begins while it looks is not missed.
            woken.as_mut().enable();
            let mut pause = LOOK;
            sweeping = sweeping.filter(|it| !it.0.is_finished());
            let sweeps = sweeping.is_none() && swept.is_none_or(|it| it.elapsed() >= SWEEP);
            let due = caught(self.due(sweeps)).await;
            match due.unwrap_or_else(|panicked| Err(panicked.into())) {
                Ok(Due::Here(due)) => {
                    drove = true;
                    if due.is_empty() {
                        pause = TRIGGER_LOOK;
                    }
                    running.retain(|id, task| due.contains(id) && !task.0.is_finished());
                    for id in due {
                        let control = self.clone();
                        let start = || Tied(tokio::spawn(faults::keep(control, id.clone())));
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
                    if sweeping.is_none() && std::mem::take(&mut drove) {
                        self.let_go().await;
                    }
                    pause = IDLE_LOOK;
                }
                // It is looked after for as long as the server runs.
                Ok(Due::Elsewhere(time)) => {
                    running.clear();
                    (drove, pause) = (false, time);
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

    /// Whoever begins the next run need not wait until the lease is over.
    async fn let_go(&self) {
        if let Err(error) = self.turn.give_up().await {
            tracing::info!(error = %chain(&error), "other servers drive no run for some seconds");
        }
    }

    async fn sweep_beside(self: Arc<Self>) {
        if let Err(error) = self.sweep().await {
            tracing::warn!(error = %chain(&error), "old runs stay");
        }
    }

    /// What this process has to drive, or to remove where it `sweeps`.
    pub(super) async fn due(&self, sweeps: bool) -> Result<Due, ControlError> {
        if !sweeps && !self.awaits() && self.store.active().await?.is_empty() {
            return Ok(Due::Nothing);
        }
        let standing = self.turn.take().await?;
        // A run is begun once whoever does it, and whoever leads need not have the same pipelines declared.
        self.fire(self.now()).await;
        if let Standing::Elsewhere(time) = standing {
            return Ok(Due::Elsewhere(time));
        }
        self.follow().await;
        self.follow_pushes().await;
        Ok(Due::Here(self.store.active().await?))
    }

    /// Whether a schedule, a release or a push of which a forge tells may begin a run.
    fn awaits(&self) -> bool {
        let begins = |it: &Trigger| match it {
            Trigger::Schedule(_) | Trigger::Release { .. } => true,
            Trigger::Push { origin, .. } => origin.is_some(),
            Trigger::Webhook => false,
        };
        self.registered().values().any(|it| it.declared.triggers.iter().any(begins))
    }
}
