//! What the queue counts.

/// The number of events of each kind since the queue began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counters {
    pub submitted: u64,
    pub merged: u64,
    pub refused: u64,
    pub dispatched: u64,
    pub published: u64,
    pub cancelled: u64,
    pub abandoned: u64,
    pub unsatisfiable: u64,
    pub retries_exhausted: u64,
    pub poisoned: u64,
    pub retries: u64,
    pub workers_joined: u64,
    pub workers_lost: u64,
    pub leases_expired: u64,
    pub stale_results: u64,
    pub returned: u64,
    /// Leases that workers did not take.
    pub leases_refused: u64,
}

impl Counters {
    /// The counter of this name; `None`: another version of Kiln counts it.
    pub fn by_name(&mut self, name: &str) -> Option<&mut u64> {
        Some(match name {
            "submitted" => &mut self.submitted,
            "merged" => &mut self.merged,
            "refused" => &mut self.refused,
            "dispatched" => &mut self.dispatched,
            "published" => &mut self.published,
            "cancelled" => &mut self.cancelled,
            "abandoned" => &mut self.abandoned,
            "unsatisfiable" => &mut self.unsatisfiable,
            "retries_exhausted" => &mut self.retries_exhausted,
            "poisoned" => &mut self.poisoned,
            "retries" => &mut self.retries,
            "workers_joined" => &mut self.workers_joined,
            "workers_lost" => &mut self.workers_lost,
            "leases_expired" => &mut self.leases_expired,
            "stale_results" => &mut self.stale_results,
            "returned" => &mut self.returned,
            "leases_refused" => &mut self.leases_refused,
            _ => return None,
        })
    }
}
