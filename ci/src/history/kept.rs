//! Fresh attempts in memory, by segment. Whoever looks at the history goes through all of them, so that what is kept
//! makes no room for what comes: of more than fits most would otherwise be read again at each look.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::attempts::Attempt;

/// What fits stays until it is fresh no more.
#[derive(Debug)]
pub struct KeptFresh {
    /// Attempts and cases that there is room for still.
    room: u64,
    kept: HashMap<String, (u64, Arc<Vec<Attempt>>)>,
}

impl KeptFresh {
    /// `room`: attempts and cases that are kept at most.
    pub fn new(room: u64) -> Self {
        Self { room, kept: HashMap::new() }
    }

    pub fn get(&self, name: &str) -> Option<Arc<Vec<Attempt>>> {
        self.kept.get(name).map(|(_, attempts)| attempts.clone())
    }

    /// Keeps a segment of this weight where there is room.
    pub fn keep(&mut self, name: &str, weight: u64, attempts: &Arc<Vec<Attempt>>) {
        if self.kept.contains_key(name) || weight > self.room {
            return;
        }
        self.room -= weight;
        self.kept.insert(name.to_owned(), (weight, attempts.clone()));
    }

    /// Forgets all but these.
    pub fn retain(&mut self, names: &HashSet<&str>) {
        let room = &mut self.room;
        self.kept.retain(|name, (weight, _)| {
            let is_fresh = names.contains(name.as_str());
            *room += if is_fresh { 0 } else { *weight };
            is_fresh
        });
    }
}

#[cfg(test)]
impl KeptFresh {
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_stays_until_it_is_fresh_no_more() {
        let mut kept = KeptFresh::new(10);
        let attempts = Arc::new(Vec::new());
        for (name, weight) in [("a", 6), ("a", 6), ("b", 5), ("c", 4), ("d", 1)] {
            kept.keep(name, weight, &attempts);
        }
        let has = |kept: &KeptFresh| ["a", "b", "c", "d"].map(|name| kept.get(name).is_some());
        assert_eq!(has(&kept), [true, false, true, false]);
        kept.retain(&HashSet::from(["b", "c"]));
        assert_eq!(has(&kept), [false, false, true, false]);
        for name in ["b", "d"] {
            kept.keep(name, 3, &attempts);
        }
        assert_eq!(has(&kept), [false, true, true, true]);
    }
}
