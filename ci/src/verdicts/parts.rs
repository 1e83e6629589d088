//! What verdicts stand on, and how they are configured.

use std::sync::Arc;
use std::time::Duration;

use super::ledger::{Ledger, Owners, Teller};
use super::reruns::Reruns;
use crate::events::EventLog;
use crate::flakes::Limits;
use crate::history::History;
use crate::quarantine::Policy;
use crate::services::Clock;
use crate::storage::Records;

#[derive(Clone, Debug)]
pub struct VerdictOptions {
    /// What shadow runs may spend. Without runs for a failure there are none.
    pub limits: Limits,
    pub policy: Policy,
    /// Failures that begin within this time are looked at together.
    pub window: Duration,
}

impl Default for VerdictOptions {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            policy: Policy::default(),
            window: Duration::from_secs(60),
        }
    }
}

#[derive(Clone)]
pub struct VerdictParts {
    pub records: Arc<dyn Records>,
    pub ledger: Arc<dyn Ledger>,
    /// The history to which shadow runs are committed, as all attempts are.
    pub history: Arc<History>,
    /// What build events say of an invocation.
    pub streams: Arc<EventLog>,
    pub reruns: Arc<dyn Reruns>,
    pub owners: Arc<dyn Owners>,
    /// Who is told of changes of the quarantine; `None`: nobody.
    pub teller: Option<Arc<dyn Teller>>,
    pub clock: Arc<dyn Clock>,
    /// What this process calls itself among all servers, now and before.
    pub name: String,
}
