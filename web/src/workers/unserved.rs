//! What waits in vain: actions with properties that no worker offers.

use std::collections::BTreeMap;

use kiln_scheduler::Snapshot;
use kiln_scheduler::queue::platform::{Offer, Requirement, explain};

/// Why actions wait that no worker can take, by the properties that they require.
pub struct Unserved(BTreeMap<Vec<(String, String)>, (usize, String)>);

impl Unserved {
    pub fn of(queue: &Snapshot) -> Self {
        let offers: Vec<Offer> =
            queue.workers.iter().map(|worker| Offer::new(worker.properties.clone())).collect();
        let offers: Vec<&Offer> = offers.iter().collect();
        let sets = queue.property_sets.iter().filter(|set| !set.served && set.queued > 0);
        let reasons = sets.map(|set| {
            let reason = explain(&Requirement::new(set.properties.clone()), &offers);
            (set.properties.clone(), (set.queued, reason))
        });
        Self(reasons.collect())
    }

    /// `None`: a worker can take what requires these, or nothing of it waits.
    pub fn reason(&self, properties: &[(String, String)]) -> Option<&str> {
        self.0.get(properties).map(|(_, reason)| reason.as_str())
    }

    /// Properties, how many actions wait, and why.
    pub fn iter(&self) -> impl Iterator<Item = (&[(String, String)], usize, &str)> {
        self.0.iter().map(|(set, (queued, reason))| (set.as_slice(), *queued, reason.as_str()))
    }
}
