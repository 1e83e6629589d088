//! Tokens that were verified lately: a hot look-up costs a hash and no signature.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;

use super::access::Access;

/// Tokens remembered in each part; the least recently used one makes room.
const TOKENS: NonZeroUsize = NonZeroUsize::new(512).unwrap();
/// Parts, each with a lock of its own.
const PARTS: usize = 16;

/// A token's place: a keyed hash, so that neither memory nor time spent tells tokens.
pub type Key = [u8; 32];

struct VerifiedToken {
    access: Arc<Access>,
    /// When the token stops being valid, in seconds since the Unix epoch, exclusive.
    until: i64,
}

pub struct Verified {
    secret: [u8; 32],
    parts: [Mutex<LruCache<Key, VerifiedToken>>; PARTS],
}

impl Verified {
    /// Makes an empty cache; `secret` are random bytes with which tokens are hashed.
    pub fn new(secret: [u8; 32]) -> Self {
        Self { secret, parts: std::array::from_fn(|_| Mutex::new(LruCache::new(TOKENS))) }
    }

    pub fn key(&self, credentials: &[u8]) -> Key {
        *blake3::keyed_hash(&self.secret, credentials).as_bytes()
    }

    pub fn get(&self, key: &Key, now: i64) -> Option<Arc<Access>> {
        let mut part = self.part(key).lock().unwrap_or_else(PoisonError::into_inner);
        let entry = part.get(key)?;
        if entry.until > now {
            return Some(entry.access.clone());
        }
        part.pop(key);
        None
    }

    pub fn insert(&self, key: Key, access: Arc<Access>, until: i64) {
        let mut part = self.part(&key).lock().unwrap_or_else(PoisonError::into_inner);
        part.put(key, VerifiedToken { access, until });
    }

    fn part(&self, key: &Key) -> &Mutex<LruCache<Key, VerifiedToken>> {
        &self.parts[usize::from(key[0]) % PARTS]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_is_bounded() {
        let verified = Verified::new([3; 32]);
        for number in 0..20_000_u32 {
            let key = verified.key(&number.to_le_bytes());
            verified.insert(key, Arc::default(), 1);
        }
        let kept: usize = verified.parts.iter().map(|part| part.lock().unwrap().len()).sum();
        assert_eq!(kept, TOKENS.get() * PARTS);
    }

    proptest! {
        #[test]
        fn nothing_is_found_after_its_time_or_under_another_name(
            tokens in proptest::collection::vec(("[a-c]{1,3}", 0_i64..10), 1..30), now in 0_i64..12,
        ) {
            let verified = Verified::new([3; 32]);
            let mut expected = std::collections::HashMap::new();
            for (token, until) in tokens {
                let access = Access { name: Some(token.as_str().into()), scopes: Vec::new() };
                verified.insert(verified.key(token.as_bytes()), access.into(), until);
                expected.insert(token, until);
            }
            for token in ["a", "b", "c", "ab", "bc", "abc"] {
                let found = verified.get(&verified.key(token.as_bytes()), now);
                let valid = expected.get(token).is_some_and(|until| *until > now);
                prop_assert_eq!(found.is_some(), valid);
                if let Some(found) = found {
                    prop_assert_eq!(found.name.as_deref(), Some(token));
                }
            }
        }
    }
}
