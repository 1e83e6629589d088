//! Who shares which list of pieces, as one frontend remembers it.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::kept::Card;
use crate::fleet::limits::MAX_AGENTS;
use crate::oci::ContentDigest;
use crate::rollouts::machine::Millis;
use crate::rollouts::parts::Place;
use crate::swarm::pass::PassKeys;
use crate::swarm::tracker::Swarm;

/// Lists of pieces whose agents are remembered.
const MAX_SWARMS: usize = 512;
/// How many of these may be of one place: an agent that names many makes others of its own service forgotten, and
/// nobody else's.
const MAX_OF_PLACE: usize = 16;
/// What an agent says is written when it is so old, or it has an eighth of all more.
const WRITE_EVERY: Millis = 15_000;
const PARTS: u32 = 8;

/// A list of a version that is shared at a place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    pub place: Place,
    pub version: ContentDigest,
    pub list: ContentDigest,
    pub pieces: u32,
}

pub struct Group {
    pub swarm: Swarm<Card>,
    /// When somebody asked last about the group's list.
    asked: Millis,
    /// What is written of each agent: when, and which part it had.
    written: HashMap<String, (Millis, u32)>,
}

#[derive(Default)]
pub struct Sharing {
    groups: Mutex<HashMap<Key, Group>>,
    /// When it was read what others said, for each place.
    pub read: Mutex<HashMap<Place, Millis>>,
    pub keys: Mutex<Option<PassKeys>>,
    /// Bytes of pieces that agents were given.
    pub given: Arc<AtomicU64>,
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sharing {
    /// An agent is no more.
    pub fn forget(&self, place: &Place, name: &str) {
        let mut groups = lock(&self.groups);
        for (_, group) in groups.iter_mut().filter(|(key, _)| key.place == *place) {
            group.swarm.crowd.remove(name);
            group.written.remove(name);
        }
    }

    /// Does work with the group of a list, which is made where there is none.
    pub fn with<T>(&self, key: &Key, now: Millis, work: impl FnOnce(&mut Group) -> T) -> T {
        let mut groups = lock(&self.groups);
        if !groups.contains_key(key) {
            let is_own = |it: &Key| it.place == key.place;
            let is_full = groups.keys().filter(|it| is_own(it)).count() >= MAX_OF_PLACE;
            if is_full || groups.len() >= MAX_SWARMS {
                let others = groups.iter().filter(|(it, _)| !is_full || is_own(it));
                let oldest = others.min_by_key(|(_, it)| it.asked).map(|(it, _)| it.clone());
                if let Some(oldest) = oldest {
                    groups.remove(&oldest);
                }
            }
        }
        let group = groups.entry(key.clone()).or_insert_with(|| Group {
            swarm: Swarm::new(key.pieces),
            asked: now,
            written: HashMap::new(),
        });
        group.asked = now;
        work(group)
    }
}

impl Group {
    /// Whether others should hear of this.
    pub fn is_news(&mut self, name: &str, has: u32, pieces: u32, now: Millis) -> bool {
        let part = has.saturating_mul(PARTS) / pieces.max(1);
        let is_known = self
            .written
            .get(name)
            .is_some_and(|(at, before)| *before == part && now.saturating_sub(*at) < WRITE_EVERY);
        if !is_known {
            if self.written.len() >= MAX_AGENTS as usize {
                self.written.clear();
            }
            self.written.insert(name.to_owned(), (now, part));
        }
        !is_known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_names_many_lists_makes_none_of_another_service_forgotten() {
        let sharing = Sharing::default();
        let key = |service: &str, list: u32| Key {
            place: Place { service: service.to_owned(), environment: "prod".to_owned() },
            version: ContentDigest::of(b"version"),
            list: ContentDigest::of(&list.to_le_bytes()),
            pieces: 1,
        };
        sharing.with(&key("api", 0), 0, |_| {});
        for list in 0..1_000 {
            sharing.with(&key("other", list), 1 + Millis::from(list), |_| {});
        }
        let groups = lock(&sharing.groups);
        assert!(groups.contains_key(&key("api", 0)) && groups.contains_key(&key("other", 999)));
        assert_eq!(groups.len(), 1 + MAX_OF_PLACE);
    }
}
