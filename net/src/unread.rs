//! Which of many records cannot be read: each is passed by, and that is said once.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::causes::chain;
use crate::log_limit::LogLimit;

/// Records of which it is remembered at most that it was said. Where there are more, the one that was longest not met is
/// forgotten, and is said again when it is met.
const MAX_KNOWN: usize = 10_000;

/// The keys of records that were said to be unreadable.
#[derive(Debug, Default)]
pub struct Unread(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// At which look each record that was said was met last, by its key.
    met: BTreeMap<String, u64>,
    looks: u64,
    limit: LogLimit,
}

impl Unread {
    /// Says in the log that a record is passed by, unless that was said before; answers whether it was said now. Where too
    /// many are said already it is said when the record is met again.
    pub fn pass_by(&self, key: &str, error: &(dyn Error + 'static)) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = known.is_new(key, Instant::now());
        drop(known);
        if is_new {
            tracing::error!(key, error = chain(error), "a record that cannot be read is passed by");
        }
        is_new
    }

    /// What was read of one record among many. `None`: it cannot be read, which holds up none of the others.
    pub fn readable<T, E: Error + 'static>(&self, key: &str, read: Result<T, E>) -> Option<T> {
        read.inspect_err(|error| {
            self.pass_by(key, error);
        })
        .ok()
    }
}

impl Known {
    fn is_new(&mut self, key: &str, now: Instant) -> bool {
        self.looks += 1;
        if let Some(met) = self.met.get_mut(key) {
            *met = self.looks;
            return false;
        }
        if !self.limit.may_say(now) {
            return false;
        }
        if self.met.len() >= MAX_KNOWN {
            self.forget_one();
        }
        self.met.insert(key.to_owned(), self.looks);
        true
    }

    fn forget_one(&mut self) {
        let oldest = self.met.iter().min_by_key(|(_, met)| **met);
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            self.met.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_limit::{MAX_SAID, SPAN};

    #[test]
    fn each_record_is_said_once() {
        let (unread, error) = (Unread::default(), std::fmt::Error);
        assert!(unread.pass_by("a", &error) && unread.pass_by("b", &error));
        assert!(!unread.pass_by("a", &error) && !unread.pass_by("b", &error), "they were said");
    }

    #[test]
    fn of_very_many_each_is_said_some_at_a_time() {
        let (mut known, mut now) = (Known::default(), Instant::now());
        let keys: Vec<_> = (0..30 * MAX_SAID).map(|key| key.to_string()).collect();
        for span in 1..=30 {
            let said = keys.iter().filter(|key| known.is_new(key, now)).count();
            assert_eq!(said, MAX_SAID, "{span}: the others wait");
            now += SPAN;
        }
        assert!(!keys.iter().any(|key| known.is_new(key, now)), "each was said");
        assert!(known.is_new("another", now));
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let (mut known, now) = (Known::default(), Instant::now());
        known.met = (1..=MAX_KNOWN as u64).map(|met| (met.to_string(), met)).collect();
        known.looks = MAX_KNOWN as u64;
        assert!(!known.is_new("1", now), "it was said, and is met again");
        assert!(known.is_new("another", now));
        assert_eq!(known.met.len(), MAX_KNOWN);
        assert!(known.met.contains_key("1") && !known.met.contains_key("2"));
        assert!(known.is_new("2", now), "it was longest not met");
    }
}
