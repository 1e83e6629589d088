//! The order in which changes are taken: worked out once for all that is said of them, for a queue may be long.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::Time;
use crate::queue::{ChangeId, Lane};

/// The order of a queue at one moment.
#[derive(Debug)]
pub struct Line(BTreeMap<ChangeId, Before>);

/// How many changes are before one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    pub all: usize,
    /// How many of them are not in runs. Those that are will soon leave the order.
    pub untested: usize,
}

impl Line {
    pub fn of(lane: &Lane, now: Time) -> Self {
        let members = lane.runs.values().flat_map(|run| run.members.iter());
        let tested: BTreeSet<ChangeId> = members.map(|it| it.id).collect();
        let (mut places, mut untested) = (BTreeMap::new(), 0);
        for (all, id) in lane.order(now).into_iter().enumerate() {
            places.insert(id, Before { all, untested });
            untested += usize::from(!tested.contains(&id));
        }
        Self(places)
    }

    /// Nothing for a change that is held, or that is not there.
    pub fn before(&self, id: ChangeId) -> Option<Before> {
        self.0.get(&id).copied()
    }
}
