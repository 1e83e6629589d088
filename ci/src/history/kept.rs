//! What is in fresh segments, in memory. Whoever looks at the history goes through all of them, so that what is kept
//! makes no room for what comes: of more than fits most would otherwise be read again at each look.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// What was made of segments, by their names. What fits stays until it is fresh no more.
#[derive(Debug)]
pub struct KeptFresh<T> {
    /// The weight that there is room for still.
    room: u64,
    /// Whether something was made that did not fit.
    has_refused: bool,
    kept: HashMap<String, (u64, Arc<T>)>,
}

impl<T> KeptFresh<T> {
    /// `room`: the weight that is kept at most.
    pub fn new(room: u64) -> Self {
        Self { room, has_refused: false, kept: HashMap::new() }
    }

    pub fn get(&self, name: &str) -> Option<Arc<T>> {
        self.kept.get(name).map(|(_, made)| made.clone())
    }

    /// Keeps what was made of a segment, of this weight, where there is room.
    pub fn keep(&mut self, name: &str, weight: u64, made: &Arc<T>) {
        if self.kept.contains_key(name) {
            return;
        }
        if weight > self.room {
            self.has_refused = true;
            return;
        }
        self.room -= weight;
        self.kept.insert(name.to_owned(), (weight, made.clone()));
    }

    /// Forgets all but these, and says whether anything went since the last time: what was kept, or what did not fit.
    pub fn retain(&mut self, names: &HashSet<&str>) -> bool {
        let before = self.kept.len();
        let room = &mut self.room;
        self.kept.retain(|name, (weight, _)| {
            let is_fresh = names.contains(name.as_str());
            *room += if is_fresh { 0 } else { *weight };
            is_fresh
        });
        std::mem::take(&mut self.has_refused) || self.kept.len() < before
    }
}

#[cfg(test)]
impl<T> KeptFresh<T> {
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
        let made = Arc::new(());
        for (name, weight) in [("a", 6), ("a", 6), ("b", 5), ("c", 4), ("d", 1)] {
            kept.keep(name, weight, &made);
        }
        let has = |kept: &KeptFresh<()>| ["a", "b", "c", "d"].map(|name| kept.get(name).is_some());
        assert_eq!(has(&kept), [true, false, true, false]);
        assert!(kept.retain(&HashSet::from(["b", "c"])));
        assert!(!kept.retain(&HashSet::from(["b", "c"])));
        assert_eq!(has(&kept), [false, false, true, false]);
        for name in ["b", "d"] {
            kept.keep(name, 3, &made);
        }
        assert_eq!(has(&kept), [false, true, true, true]);
        // A name that did not fit counts as gone, too, although nothing that was kept is.
        kept.keep("a", 1, &made);
        let fresh = HashSet::from(["b", "c", "d"]);
        assert_eq!([kept.retain(&fresh), kept.retain(&fresh)], [true, false]);
    }
}
