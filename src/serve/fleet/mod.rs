//! The agents of a server, on its records, and how many of them are how.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kiln_cas::stores::Storage;
use kiln_deploy::fleet::Fleet;
use kiln_deploy::rollouts::parts::Targets;
use kiln_net::causes::chain;
use kiln_net::clock::unix_nanos;
use kiln_net::panics::spawn_resumed;
use tokio::task::JoinHandle;

use crate::telemetry::AgentCounts;

/// How often agents are counted for metrics.
const COUNT_EVERY: Duration = Duration::from_secs(60);
/// After so many counts those are forgotten who were silent for long: about once an hour.
const SWEEP_AFTER: u64 = 60;

pub struct Started {
    pub fleet: Fleet,
    /// Counts of agents, as they were last made.
    pub figures: Arc<Mutex<AgentCounts>>,
    /// The task that counts agents; it never ends by itself.
    pub counting: JoinHandle<()>,
}

impl Started {
    /// The agents as targets of rollouts.
    pub fn targets(&self) -> Arc<dyn Targets> {
        Arc::new(self.fleet.clone())
    }
}

pub fn start(storage: &Storage) -> Started {
    let fleet = Fleet::new(storage.records.clone(), Arc::new(unix_nanos));
    let given = fleet.given();
    let figures = Arc::new(Mutex::new(AgentCounts { given, ..AgentCounts::default() }));
    let (counted, into) = (fleet.clone(), figures.clone());
    let counting =
        spawn_resumed("counting agents", move || keep_counted(counted.clone(), into.clone()));
    Started { fleet, figures, counting }
}

async fn keep_counted(fleet: Fleet, figures: Arc<Mutex<AgentCounts>>) {
    for round in 0_u64.. {
        // Not at once: after a long absence of the server all seem silent.
        if round % SWEEP_AFTER == SWEEP_AFTER - 1 {
            match fleet.sweep().await {
                Ok(0) => {}
                Ok(agents) => {
                    tracing::info!(agents, "agents that were silent for long are forgotten")
                }
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "silent agents cannot be forgotten for now");
                }
            }
        }
        match fleet.conditions().await {
            Ok(counted) => {
                figures.lock().unwrap_or_else(PoisonError::into_inner).conditions = counted;
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "agents cannot be counted for now")
            }
        }
        tokio::time::sleep(COUNT_EVERY).await;
    }
}
