//! For how long something has been there, as far as one process has seen. No clock of another machine has a say in it, nor one
//! that can be set.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Since when each was seen, by its key. Times are those of one clock that never runs backwards, from any origin.
#[derive(Debug, Default)]
pub struct Ages(Mutex<BTreeMap<String, Duration>>);

impl Ages {
    /// The time since this was asked first about a key; nothing at all where it is new. Where whoever asks has begun anew, and
    /// his clock with him, it counts from then.
    pub fn of(&self, key: &str, now: Duration) -> Duration {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = seen.entry(key.to_owned()).or_insert(now);
        *since = (*since).min(now);
        now.saturating_sub(*since)
    }

    /// Forgets all but these.
    pub fn keep(&self, keys: &BTreeSet<String>) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|key, _| keys.contains(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_and_comes_again_is_new() {
        let (ages, at) = (Ages::default(), Duration::from_secs);
        assert_eq!((ages.of("a", at(5)), ages.of("b", at(6))), (at(0), at(0)));
        assert_eq!((ages.of("a", at(8)), ages.of("b", at(8))), (at(3), at(2)));
        ages.keep(&BTreeSet::from(["a".to_owned()]));
        assert_eq!((ages.of("a", at(9)), ages.of("b", at(9))), (at(4), at(0)));
    }
    #[test]
    fn whoever_begins_anew_waits_no_longer_than_others() {
        let (ages, at) = (Ages::default(), Duration::from_secs);
        assert_eq!(ages.of("a", at(9_000)), at(0));
        assert_eq!((ages.of("a", at(2)), ages.of("a", at(5))), (at(0), at(3)));
    }
}
