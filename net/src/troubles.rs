//! What goes wrong with things that are looked at again and again: each trouble is said once, and anew where it changes.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::causes::chain;
use crate::log_limit::LogLimit;

/// Things of which it is remembered at most what is wrong with them: more than are looked at by one who looks. Where there
/// are as many all the same, the one that was longest not heard of is forgotten, and is said anew.
const MAX_KNOWN: usize = 4_000;
/// A trouble that does not come again for so long is forgotten. Whoever looks again does so much more often.
const FORGET: Duration = Duration::from_secs(600);

/// What was said last to be wrong with each thing, by its key.
#[derive(Debug, Default)]
pub struct Troubles(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    by_key: BTreeMap<String, Trouble>,
    limit: LogLimit,
}

#[derive(Debug)]
struct Trouble {
    words: String,
    /// When it came last.
    heard: Instant,
}

impl Troubles {
    /// Whether an error is to be said: of this thing none was said lately, or another one was said last. Where too many
    /// are said already it is not to be said now, but when it comes again.
    pub fn is_news(&self, key: &str, error: &(dyn Error + 'static)) -> bool {
        self.known().is_news(key, chain(error), Instant::now())
    }

    /// The thing is well: what goes wrong with it from now on is said.
    pub fn end(&self, key: &str) {
        self.known().by_key.remove(key);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn is_news(&mut self, key: &str, words: String, now: Instant) -> bool {
        if let Some(said) = self.by_key.get_mut(key)
            && said.words == words
            && said.is_fresh(now)
        {
            said.heard = now;
            return false;
        }
        if !self.limit.may_say(now) {
            return false;
        }
        self.by_key.retain(|_, it| it.is_fresh(now));
        if self.by_key.len() >= MAX_KNOWN && !self.by_key.contains_key(key) {
            self.forget_one();
        }
        self.by_key.insert(key.to_owned(), Trouble { words, heard: now });
        true
    }

    fn forget_one(&mut self) {
        let oldest = self.by_key.iter().min_by_key(|(_, it)| it.heard);
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            self.by_key.remove(&key);
        }
    }
}

impl Trouble {
    fn is_fresh(&self, now: Instant) -> bool {
        now.duration_since(self.heard) < FORGET
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_limit::{MAX_SAID, SPAN};

    /// Says what is wrong with things that have numbers for keys. Returns of how many that is news.
    fn said(known: &mut Known, keys: std::ops::Range<usize>, now: Instant) -> usize {
        keys.filter(|key| known.is_news(&key.to_string(), "cut".to_owned(), now)).count()
    }

    #[test]
    fn a_trouble_is_said_once_until_it_changes_or_ends() {
        let troubles = Troubles::default();
        let (one, other) = (std::fmt::Error, std::io::Error::other("cut"));
        assert!(troubles.is_news("a", &one) && troubles.is_news("b", &one));
        assert!(!troubles.is_news("a", &one), "it was said");
        assert!(troubles.is_news("a", &other) && !troubles.is_news("a", &other));
        assert!(troubles.is_news("a", &one), "it is as before");
        troubles.end("a");
        assert!(troubles.is_news("a", &one) && !troubles.is_news("b", &one));
    }

    #[test]
    fn what_does_not_come_again_is_forgotten() {
        let (mut known, mut now) = (Known::default(), Instant::now());
        assert_eq!(said(&mut known, 0..10, now), 10);
        for _ in 0..30 {
            now += FORGET / 10;
            assert_eq!(said(&mut known, 0..1, now), 0, "it goes on");
        }
        assert_eq!(said(&mut known, 10..11, now), 1);
        assert_eq!(known.by_key.keys().collect::<Vec<_>>(), ["0", "10"]);
        now += FORGET;
        assert_eq!(said(&mut known, 0..1, now), 1, "it ended, and comes anew");
    }

    #[test]
    fn new_troubles_are_always_said_some_at_a_time() {
        let (mut known, mut now) = (Known::default(), Instant::now());
        let all = 10 * MAX_SAID;
        for span in 1..=10 {
            assert_eq!(said(&mut known, 0..all, now), MAX_SAID, "{span}");
            assert_eq!(said(&mut known, 0..all, now), 0, "{span}: the others wait");
            now += SPAN;
        }
        assert_eq!(said(&mut known, 0..all, now), 0, "each was said");
        assert_eq!(said(&mut known, all..all + 1, now), 1, "another one");
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let (mut known, began) = (Known::default(), Instant::now());
        let now = began + Duration::from_secs(1);
        for key in 0..MAX_KNOWN {
            let heard = if key == 7 { began } else { now };
            known.by_key.insert(key.to_string(), Trouble { words: "cut".to_owned(), heard });
        }
        assert_eq!(said(&mut known, MAX_KNOWN..MAX_KNOWN + 1, now), 1);
        assert_eq!(known.by_key.len(), MAX_KNOWN);
        assert!(!known.by_key.contains_key("7"), "it was longest not heard of");
    }
}
