//! What goes wrong with things that are looked at again and again: each trouble is said once, and anew where it changes.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Mutex, PoisonError};

use crate::causes::chain;

/// Things of which it is remembered what is wrong with them. Of what comes after them nothing is said: the log would be full
/// of it.
const MAX_KNOWN: usize = 1_000;

/// What was said last to be wrong with each thing, by its key.
#[derive(Debug, Default)]
pub struct Troubles(Mutex<BTreeMap<String, String>>);

impl Troubles {
    /// Whether an error is to be said: of this thing none was said, or another one was said last.
    pub fn is_news(&self, key: &str, error: &(dyn Error + 'static)) -> bool {
        let words = chain(error);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_said = known.get(key).is_some_and(|said| *said == words);
        let has_room = known.contains_key(key) || known.len() < MAX_KNOWN;
        if is_said || !has_room {
            return false;
        }
        known.insert(key.to_owned(), words);
        true
    }

    /// The thing is well: what goes wrong with it from now on is said.
    pub fn end(&self, key: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let said = (0..2 * MAX_KNOWN).filter(|at| troubles.is_news(&at.to_string(), &one));
        assert_eq!(said.count(), MAX_KNOWN - 2);
        assert!(troubles.is_news("a", &other), "there is room for what is known");
    }
}
