//! How the index lies in Redis.

use std::time::Duration;

use super::seconds;
use crate::digest::{Digest, DigestFunction};
use crate::error::StoreError;
use crate::redis::Redis;
use crate::stores::indexed::{Generation, IndexEntry, Place};

/// Buckets, which are numbered by the first byte of the hash.
pub(super) const BUCKETS: usize = 256;

/// Keys of one bucket.
pub(super) struct Bucket {
    pub(super) entries: Vec<u8>,
    pub(super) pending: Vec<u8>,
    pub(super) queue: Vec<u8>,
    pub(super) bytes: Vec<u8>,
    pub(super) random: Vec<u8>,
    small: Vec<u8>,
}

impl Bucket {
    pub(super) fn new(redis: &Redis, number: usize) -> Self {
        let key = |rest: &str| redis.key(&format!("b{number:02x}"), rest);
        Self {
            entries: key("e"),
            pending: key("p"),
            queue: key("q"),
            bytes: key("b"),
            random: key("r"),
            small: key("s"),
        }
    }

    /// The key of a small blob's bytes.
    pub(super) fn small(&self, field: &Field) -> Vec<u8> {
        [&self.small[..], field].concat()
    }
}

const FIELD: usize = 41;

/// Function, hash and size (big-endian) of a digest.
pub(super) type Field = [u8; FIELD];

pub(super) fn field(digest: &Digest) -> Field {
    let mut field = [0; FIELD];
    field[0] = digest.function as u8;
    field[1..33].copy_from_slice(&digest.hash);
    field[33..].copy_from_slice(&digest.size.to_be_bytes());
    field
}

pub(super) fn parse_field(field: &[u8]) -> Result<Digest, StoreError> {
    let damaged = || StoreError::corrupt("a field of the index is no digest");
    let field: &Field = field.try_into().map_err(|_| damaged())?;
    let function = DigestFunction::ALL.into_iter().find(|function| *function as u8 == field[0]);
    let (mut hash, mut size) = ([0; 32], [0; 8]);
    hash.copy_from_slice(&field[1..33]);
    size.copy_from_slice(&field[33..]);
    let function = function.ok_or_else(damaged)?;
    Ok(Digest { hash, size: u64::from_be_bytes(size), function })
}

pub(super) fn parse_generation(bytes: &[u8]) -> Result<Generation, StoreError> {
    let damaged = |_| StoreError::corrupt("a generation in the index is damaged");
    Ok(Generation(u64::from_be_bytes(bytes.try_into().map_err(damaged)?)))
}

/// The value of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stored {
    /// The second by the server's clock in which the lease is over.
    pub(super) ends: u32,
    pub(super) place: Place,
}

impl Stored {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, StoreError> {
        let Some((ends, generation)) = bytes.split_first_chunk() else {
            return Err(StoreError::corrupt("an entry of the index is too short"));
        };
        let place = match generation {
            [] => Place::Index,
            generation => Place::Object(parse_generation(generation)?),
        };
        Ok(Self { ends: u32::from_be_bytes(*ends), place })
    }

    /// `now` is a whole second that may be all but over.
    pub(super) fn entry(self, now: u32) -> IndexEntry {
        let left = self.ends.saturating_sub(now).saturating_sub(1);
        IndexEntry { place: self.place, lease: Duration::from_secs(left.into()) }
    }

    pub(super) fn expired(self, now: u32) -> Duration {
        Duration::from_secs(now.saturating_sub(self.ends).into())
    }
}

/// Whole seconds, at most ten years: leases end within 32 bits of seconds.
pub(super) fn lease_seconds(lease: Duration) -> u64 {
    const MOST: u64 = 10 * 366 * 24 * 3600;
    seconds(lease).min(MOST)
}

/// Where a scan goes on: a bucket, and the server's cursor within it (0: its beginning).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) bucket: usize,
    pub(super) within: u64,
}

/// Bits of the server's cursor: it is less than the size of the hash's table.
const WITHIN_BITS: u32 = 56;

impl Cursor {
    pub(super) fn from_u64(cursor: u64) -> Option<Self> {
        let bucket = (cursor >> WITHIN_BITS) as usize;
        let within = cursor & ((1 << WITHIN_BITS) - 1);
        (bucket < BUCKETS).then_some(Self { bucket, within })
    }

    pub(super) fn to_u64(self) -> Result<u64, StoreError> {
        if self.within >> WITHIN_BITS != 0 {
            return Err(StoreError::corrupt("the server's cursor has too many bits"));
        }
        Ok((self.bucket as u64) << WITHIN_BITS | self.within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_cursors_round_trip() {
        for function in DigestFunction::ALL {
            let digest = Digest { size: u64::MAX - 5, ..function.digest(b"kiln") };
            assert_eq!(parse_field(&field(&digest)).unwrap(), digest);
        }
        assert!(parse_field(&[1; 40]).is_err());
        assert!(parse_field(&[7; 41]).is_err());
        let cursor = Cursor { bucket: 255, within: (1 << 56) - 1 };
        assert_eq!(Cursor::from_u64(cursor.to_u64().unwrap()), Some(cursor));
        assert!(Cursor { bucket: 0, within: 1 << 56 }.to_u64().is_err());
    }

    #[test]
    fn a_promise_is_never_rounded_up() {
        let stored = Stored::parse(&[0, 0, 1, 0]).unwrap();
        assert_eq!(
            stored.entry(200),
            IndexEntry { place: Place::Index, lease: Duration::from_secs(55) }
        );
        assert_eq!(stored.entry(256).lease, Duration::ZERO);
        assert_eq!(stored.expired(256), Duration::ZERO);
        assert_eq!(stored.expired(258), Duration::from_secs(2));
        let placed = Stored::parse(&[0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 9]).unwrap();
        assert_eq!(placed.place, Place::Object(Generation(9)));
        assert!(Stored::parse(&[1, 2, 3]).is_err());
        assert!(Stored::parse(&[1, 2, 3, 4, 5]).is_err());
    }
}
