//! The small blobs that a process is still to write to the object store, and what became of the
//! attempts.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use crate::digest::Digest;
use crate::error::StoreError;

/// Blobs are numbered as they come.
#[derive(Default)]
pub struct PendingBlobs {
    next: u64,
    by_number: BTreeMap<u64, Digest>,
    data: HashMap<Digest, Bytes>,
    bytes: u64,
    /// Round and error of the latest attempt at a blob that failed.
    failed: BTreeMap<u64, (u64, StoreError)>,
}

/// Why blobs are not in the object store.
#[derive(Debug)]
pub struct Failed {
    pub error: StoreError,
    /// It may be over a little later.
    pub passes: bool,
}

impl PendingBlobs {
    /// Takes a blob on. Returns its number; `None`: it is pending already.
    pub fn admit(&mut self, digest: &Digest, data: &Bytes) -> Option<u64> {
        if self.data.contains_key(digest) {
            return None;
        }
        let number = self.next;
        self.next += 1;
        self.by_number.insert(number, *digest);
        self.bytes += data.len() as u64;
        self.data.insert(*digest, data.clone());
        Some(number)
    }

    /// The bytes of a blob that is pending.
    pub fn get(&self, digest: &Digest) -> Option<Bytes> {
        self.data.get(digest).cloned()
    }

    pub fn len(&self) -> u64 {
        self.by_number.len() as u64
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The number that the next blob will have.
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// Why one of them is not in the object store.
    pub fn first_error(&self) -> Option<&StoreError> {
        self.failed.values().next().map(|(_, error)| error)
    }

    /// The blob is in the object store.
    pub fn done(&mut self, number: u64) {
        self.failed.remove(&number);
        if let Some(digest) = self.by_number.remove(&number)
            && let Some(data) = self.data.remove(&digest)
        {
            self.bytes -= data.len() as u64;
        }
    }

    /// An attempt that began in this round has failed.
    pub fn failed(&mut self, number: u64, round: u64, error: StoreError) {
        self.failed.insert(number, (round, error));
    }

    /// What became of the blobs numbered below `end`: an error where an attempt that began in
    /// `round` or later has failed. `None`: that is not known yet.
    pub fn outcome(&self, end: u64, round: u64) -> Option<Result<(), Failed>> {
        if self.by_number.first_key_value().is_none_or(|(first, _)| *first >= end) {
            return Some(Ok(()));
        }
        let mut failures = self.failed.range(..end);
        let (number, (_, error)) = failures.find(|(_, (tried, _))| *tried >= round)?;
        let digest = self.by_number.get(number)?;
        let passes = matches!(error, StoreError::Unavailable(_));
        let error = StoreError::unavailable(format!(
            "{} small blobs are not in the object store yet, among them {digest}: {error}",
            self.by_number.range(..end).count()
        ));
        Some(Err(Failed { error, passes }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::contract::blob;

    #[test]
    fn a_blob_is_pending_once_until_it_is_done() {
        let mut pending = PendingBlobs::default();
        let (digest, data) = blob(1, 100);
        let number = pending.admit(&digest, &data).unwrap();
        assert_eq!(pending.admit(&digest, &data), None);
        assert_eq!((pending.len(), pending.bytes(), pending.get(&digest)), (1, 100, Some(data)));
        pending.done(number);
        assert_eq!((pending.len(), pending.bytes(), pending.get(&digest)), (0, 0, None));
    }

    #[test]
    fn only_attempts_of_this_round_and_blobs_from_before_count() {
        let mut pending = PendingBlobs::default();
        let numbers: Vec<_> = (0..3)
            .map(|seed| {
                let (digest, data) = blob(seed, 10);
                pending.admit(&digest, &data).unwrap()
            })
            .collect();
        let down = || StoreError::unavailable("down");
        pending.failed(numbers[2], 9, down());
        pending.failed(numbers[1], 4, down());
        assert!(pending.outcome(numbers[2], 5).is_none(), "one is tried, one was before");
        pending.failed(numbers[1], 5, down());
        let Some(Err(failed)) = pending.outcome(numbers[2], 5) else { panic!("it has failed") };
        assert!(failed.passes && failed.error.to_string().contains("2 small blobs"));
        pending.failed(numbers[1], 5, StoreError::denied("no"));
        let Some(Err(failed)) = pending.outcome(numbers[2], 5) else { panic!("it has failed") };
        assert!(!failed.passes);
        pending.done(numbers[0]);
        pending.done(numbers[1]);
        assert!(matches!(pending.outcome(numbers[2], 5), Some(Ok(()))), "the third came later");
    }
}
