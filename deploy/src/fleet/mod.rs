//! The hosts that run services, as their agents say it: who there is, what each was told, and what it was seen to run.
//! All of it is records, so any frontend answers any agent.
//!
//! | file | what it does |
//! | --- | --- |
//! | `names.rs` | what may name a service, a host, a label |
//! | `keys.rs` | where records are |
//! | `kept.rs` | what is kept of an agent, and of what it was told |
//! | `store.rs` | reads and writes it |
//! | `reports.rs` | an agent says how it is |
//! | `orders.rs` | what an agent is to run, told once and heard soon |
//! | `waking.rs` | wakes the questions for orders that are open |
//! | `condition.rs` | what follows from all that, in a word |
//! | `forgetting.rs` | agents that are no more |
//! | `sharing/` | which agents give each other the pieces of a release |
//! | `listing.rs` | agents for people, and figures |
//! | `targets.rs` | agents as the targets of a rollout |

mod condition;
mod error;
mod forgetting;
mod kept;
mod keys;
mod limits;
mod listing;
mod names;
mod orders;
mod reports;
mod sharing;
mod store;
mod targets;
#[cfg(test)]
mod tests;
mod waking;

use std::sync::Arc;

use kiln_cas::records::SharedRecords;

use self::sharing::Sharing;
use self::store::Store;
use self::waking::Waking;
use crate::executions::Clock;

pub use condition::Condition;
pub use error::FleetError;
pub use kept::{KeptAgent, KeptOrder};
pub use limits::{FORGOTTEN, MAX_AGENTS, SILENT};
pub use listing::{Filter, Listed};
pub use names::{NameProblem, check_address, check_label, check_name};
pub use orders::MAX_WAIT;
pub use reports::HEARTBEAT;
pub use sharing::KeptPeer;

/// The agents of a server. Clones share it.
#[derive(Clone)]
pub struct Fleet {
    store: Store,
    waking: Arc<Waking>,
    sharing: Arc<Sharing>,
    clock: Clock,
}

impl Fleet {
    pub fn new(records: SharedRecords, clock: Clock) -> Self {
        Self { store: Store::new(records), waking: Arc::default(), sharing: Arc::default(), clock }
    }

    /// The server ends: questions that are open are answered, and no new one is kept open.
    pub fn close(&self) {
        self.waking.close();
    }

    /// The time in Unix milliseconds.
    fn now(&self) -> u64 {
        u64::try_from((self.clock)().div_euclid(1_000_000)).unwrap_or(0)
    }
}
