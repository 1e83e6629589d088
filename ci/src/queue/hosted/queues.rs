//! The queues of a server, and what they stand on.

use std::error::Error;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};

use kiln_net::Unread;

use super::head::Totals;
use crate::queue::serving::{Kept, LaneName};
use crate::services::Clock;
use crate::storage::Records;

/// The queues of a server. Clones share them.
#[derive(Clone)]
pub struct Queues {
    pub(super) records: Arc<dyn Records>,
    pub(super) clock: Arc<dyn Clock>,
    /// Names this process among all that share the records.
    pub(super) who: Arc<str>,
    /// What this process has taken in since it began.
    pub(super) counts: Arc<Mutex<Totals>>,
    unread: Arc<Unread>,
}

impl Queues {
    pub fn new(records: Arc<dyn Records>, clock: Arc<dyn Clock>) -> Self {
        let process = std::process::id();
        let who = format!("{process}-{:016x}", RandomState::new().hash_one(process)).into();
        Self { records, clock, who, counts: Arc::default(), unread: Arc::default() }
    }

    /// A record that cannot be read must not hold up others. That is said once of each.
    pub(super) fn pass_by(&self, key: &str, error: &(dyn Error + 'static)) {
        self.unread.pass_by(key, error);
    }

    pub(super) fn kept(&self, queue: &LaneName) -> Kept {
        Kept { records: self.records.clone(), name: queue.clone() }
    }
}
