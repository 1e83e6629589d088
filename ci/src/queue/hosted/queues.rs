//! The queues of a server, and what they stand on.

use std::collections::BTreeSet;
use std::error::Error;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use kiln_net::causes::chain;

use super::head::Totals;
use crate::queue::serving::{Kept, LaneName};
use crate::services::Clock;
use crate::storage::Records;

/// Records that cannot be read of which it is remembered that this was said.
const MAX_UNREAD: usize = 1_000;

/// The queues of a server. Clones share them.
#[derive(Clone)]
pub struct Queues {
    pub(super) records: Arc<dyn Records>,
    pub(super) clock: Arc<dyn Clock>,
    /// Names this process among all that share the records.
    pub(super) who: Arc<str>,
    /// What this process has taken in since it began.
    pub(super) counts: Arc<Mutex<Totals>>,
    unread: Arc<Mutex<BTreeSet<String>>>,
}

impl Queues {
    pub fn new(records: Arc<dyn Records>, clock: Arc<dyn Clock>) -> Self {
        let process = std::process::id();
        let who = format!("{process}-{:016x}", RandomState::new().hash_one(process)).into();
        Self { records, clock, who, counts: Arc::default(), unread: Arc::default() }
    }

    /// A record that cannot be read is left out where it would hold up others. That is said once of each.
    pub(super) fn leave_out(&self, key: &str, error: &(dyn Error + 'static)) {
        let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        if unread.len() < MAX_UNREAD && unread.insert(key.to_owned()) {
            tracing::error!(key, error = chain(error), "a record of a merge queue is left out");
        }
    }

    pub(super) fn kept(&self, queue: &LaneName) -> Kept {
        Kept { records: self.records.clone(), name: queue.clone() }
    }
}
