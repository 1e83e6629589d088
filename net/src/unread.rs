//! Which of many records cannot be read: each is passed by, and that is said once.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::{Mutex, PoisonError};

use crate::causes::chain;

/// Records of which it is remembered that it was said. Of what comes after them nothing is said: the log would be full of it.
const MAX_SAID: usize = 1_000;

/// The keys of records that were said to be unreadable.
#[derive(Debug, Default)]
pub struct Unread(Mutex<BTreeSet<String>>);

impl Unread {
    /// Says in the log that a record is passed by, unless that was said before; answers whether it was said now.
    pub fn pass_by(&self, key: &str, error: &(dyn Error + 'static)) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = said.len() < MAX_SAID && said.insert(key.to_owned());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_record_is_said_once_and_there_is_an_end_to_it() {
        let (unread, error) = (Unread::default(), std::fmt::Error);
        assert!(unread.pass_by("a", &error));
        assert!(!unread.pass_by("a", &error), "it was said");
        let said = (0..2 * MAX_SAID).filter(|at| unread.pass_by(&at.to_string(), &error));
        assert_eq!(said.count(), MAX_SAID - 1);
    }
}
