//! A bounded map that keeps what was used recently.

use std::collections::HashMap;
use std::hash::Hash;

/// Two generations: what is used moves to the young one; when that has half of the capacity,
/// it becomes the old one and what the old one still held is forgotten.
pub struct Recent<K, V> {
    young: HashMap<K, (V, usize)>,
    old: HashMap<K, (V, usize)>,
    young_bytes: usize,
    capacity: usize,
}

impl<K: Hash + Eq + Clone, V: Clone> Recent<K, V> {
    /// Keeps at most `capacity` bytes, in the sizes that callers name.
    pub fn new(capacity: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), young_bytes: 0, capacity }
    }

    pub fn get(&mut self, key: &K) -> Option<V> {
        if let Some((value, _)) = self.young.get(key) {
            return Some(value.clone());
        }
        let (value, bytes) = self.old.remove(key)?;
        self.insert(key.clone(), value.clone(), bytes);
        Some(value)
    }

    pub fn insert(&mut self, key: K, value: V, bytes: usize) {
        self.remove(&key);
        let half = self.capacity / 2;
        if bytes > half {
            return;
        }
        if self.young_bytes + bytes > half {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += bytes;
        self.young.insert(key, (value, bytes));
    }

    pub fn remove(&mut self, key: &K) {
        if let Some((_, bytes)) = self.young.remove(key) {
            self.young_bytes -= bytes;
        }
        self.old.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_goes_at_the_limit() {
        let mut recent = Recent::new(100);
        recent.insert("used", 0, 10);
        for round in 0..100 {
            recent.insert(["a", "b", "c", "d", "e", "f", "g", "h"][round % 8], round, 10);
            assert_eq!(recent.get(&"used"), Some(0), "round {round}");
            let held: usize = recent.young.values().chain(recent.old.values()).map(|v| v.1).sum();
            assert!(held <= 100, "{held} bytes are held");
        }
        recent.insert("huge", 1, 51);
        assert_eq!(recent.get(&"huge"), None);
        recent.remove(&"used");
        assert_eq!(recent.get(&"used"), None);
    }
}
