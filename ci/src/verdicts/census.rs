//! How many tests each instance has: so many of them may be in its quarantine.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Instances that are counted; in others as few tests as always may be in quarantine.
const MAX_INSTANCES: usize = 10_000;

/// Names of instances may be long, and are hashed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Census(BTreeMap<String, u64>);

impl Census {
    pub fn add(&mut self, instance: &str) {
        let key = key(instance);
        if self.0.len() < MAX_INSTANCES || self.0.contains_key(&key) {
            let count = self.0.entry(key).or_default();
            *count = count.saturating_add(1);
        }
    }

    pub fn remove(&mut self, instance: &str) {
        let key = key(instance);
        if let Some(count) = self.0.get_mut(&key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.0.remove(&key);
            }
        }
    }

    pub fn of(&self, instance: &str) -> usize {
        let count = self.0.get(&key(instance)).copied().unwrap_or(0);
        usize::try_from(count).unwrap_or(usize::MAX)
    }

    pub fn all(&self) -> u64 {
        self.0.values().fold(0, |sum, it| sum.saturating_add(*it))
    }
}

fn key(instance: &str) -> String {
    blake3::hash(instance.as_bytes()).to_hex()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_instance_counts_its_own() {
        let mut it = Census::default();
        for instance in ["a", "a", "b"] {
            it.add(instance);
        }
        assert_eq!((it.of("a"), it.of("b"), it.of("c"), it.all()), (2, 1, 0, 3));
        it.remove("b");
        it.remove("b");
        assert_eq!((it.of("b"), it.all()), (0, 2));
        it.0.extend((0..MAX_INSTANCES).map(|it| (it.to_string(), 1)));
        it.add("z");
        it.add("a");
        assert_eq!((it.of("z"), it.of("a")), (0, 3));
    }
}
