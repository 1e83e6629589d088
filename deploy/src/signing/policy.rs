//! The policy of keys: which ones are trusted, and for which time.
//!
//! A signature by a bare key has no witness of its time: what it says of it, it says of itself. While a
//! key is in the right hands that is good enough, and validity is held against it. Once a key
//! is revoked it is not: whoever stole it writes any time he likes. Signatures by a revoked key count only where somebody
//! else wrote down, before that time, that they were there.

use serde::{Deserialize, Serialize};

use super::keys::{KeyError, PublicKey};
use crate::json::{self, JsonError};
use crate::timestamp::Timestamp;

/// How far the clock of a signer may be ahead.
const MAX_SKEW_SECONDS: i64 = 300;
const MAX_POLICY_BYTES: usize = 1 << 20;
/// Keys of one policy.
const MAX_KEYS: usize = 256;

/// A key with the time in which it signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedKey {
    /// The name that people give the key.
    pub name: String,
    pub key: PublicKey,
    /// The first moment at which it signs; none: always.
    pub not_before: Option<Timestamp>,
    /// The first moment at which it signs no more. Two keys may overlap.
    pub not_after: Option<Timestamp>,
    /// The time from which on somebody else may have the key; `None`: it was not revoked.
    pub revoked_from: Option<Timestamp>,
}

/// How it is known when something was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// What was signed says so itself.
    Claimed(Timestamp),
    /// A record that the signer could not change says that it was there at that time.
    Recorded(Timestamp),
    /// Nothing is known: only a key without any bounds is accepted.
    None,
}

/// Why a signature does not count although the key is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefused {
    #[error("the key {key:?} signs from {from} on, and this was signed at {signed}")]
    TooEarly { key: String, from: Timestamp, signed: Timestamp },
    #[error("the key {key:?} signs until {until}, and this was signed at {signed}")]
    TooLate { key: String, until: Timestamp, signed: Timestamp },
    #[error("this was signed at {signed}, which is yet to come")]
    Future { signed: Timestamp },
    #[error("the key {key:?} was revoked from {from} on, and this was signed at {signed}")]
    Revoked { key: String, from: Timestamp, signed: Timestamp },
    #[error(
        "the key {key:?} was revoked from {from} on, and nothing but the signature itself says \
         that it is older"
    )]
    RevokedWithoutRecord { key: String, from: Timestamp },
    #[error("the key {key:?} signs for a time only, and nothing says when this was signed")]
    NoTime { key: String },
}

/// The keys that somebody trusts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyRing {
    keys: Vec<TrustedKey>,
}

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyRingError {
    #[error("the policy of keys cannot be read")]
    Json(#[from] JsonError),
    #[error("the key {name:?} cannot be read")]
    Key {
        name: String,
        #[source]
        source: KeyError,
    },
    #[error("the policy has {0} keys; 1 to {MAX_KEYS} are allowed")]
    Count(usize),
    #[error("two keys are called {0:?}")]
    Twice(String),
    #[error("{0:?} and {1:?} are the same key: what holds for one would not for the other")]
    Same(String, String),
    #[error("the key {0:?} ends before it begins")]
    Empty(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Policy {
    keys: Vec<KeyEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KeyEntry {
    name: String,
    public_key: String,
    #[serde(default)]
    not_before: Option<Timestamp>,
    #[serde(default)]
    not_after: Option<Timestamp>,
    #[serde(default)]
    revoked_from: Option<Timestamp>,
}

impl KeyRefused {
    /// Whether the key was revoked: then the signature may be somebody else's. Whatever else there is says no more than that
    /// the policy is another one.
    pub fn is_revoked(&self) -> bool {
        matches!(self, Self::Revoked { .. } | Self::RevokedWithoutRecord { .. })
    }
}

impl TrustedKey {
    /// A key that is trusted at any time.
    pub fn always(name: &str, key: PublicKey) -> Self {
        let name = name.to_owned();
        Self { name, key, not_before: None, not_after: None, revoked_from: None }
    }

    /// Whether a signature by this key counts, as of `now`.
    pub fn accepts(&self, evidence: Evidence, now: Timestamp) -> Result<(), KeyRefused> {
        let (Evidence::Claimed(signed) | Evidence::Recorded(signed)) = evidence else {
            return self.accepts_without_time();
        };
        if signed > now.plus(MAX_SKEW_SECONDS) {
            return Err(KeyRefused::Future { signed });
        }
        self.check_revoked(evidence, signed)?;
        self.check_interval(signed)
    }

    fn accepts_without_time(&self) -> Result<(), KeyRefused> {
        let key = self.name.clone();
        match (self.revoked_from, self.not_before.or(self.not_after)) {
            (Some(from), _) => Err(KeyRefused::RevokedWithoutRecord { key, from }),
            (None, Some(_)) => Err(KeyRefused::NoTime { key }),
            (None, None) => Ok(()),
        }
    }

    fn check_revoked(&self, evidence: Evidence, signed: Timestamp) -> Result<(), KeyRefused> {
        let Some(from) = self.revoked_from else { return Ok(()) };
        let key = self.name.clone();
        match evidence {
            Evidence::Recorded(_) if signed < from => Ok(()),
            _ if signed >= from => Err(KeyRefused::Revoked { key, from, signed }),
            _ => Err(KeyRefused::RevokedWithoutRecord { key, from }),
        }
    }

    fn check_interval(&self, signed: Timestamp) -> Result<(), KeyRefused> {
        let key = || self.name.clone();
        match (self.not_before, self.not_after) {
            (Some(from), _) if signed < from => {
                Err(KeyRefused::TooEarly { key: key(), from, signed })
            }
            (_, Some(until)) if signed >= until => {
                Err(KeyRefused::TooLate { key: key(), until, signed })
            }
            _ => Ok(()),
        }
    }
}

impl KeyRing {
    pub fn new(keys: Vec<TrustedKey>) -> Result<Self, KeyRingError> {
        if keys.is_empty() || keys.len() > MAX_KEYS {
            return Err(KeyRingError::Count(keys.len()));
        }
        for (index, key) in keys.iter().enumerate() {
            let mut earlier = keys.iter().take(index);
            if earlier.clone().any(|it| it.name == key.name) {
                return Err(KeyRingError::Twice(key.name.clone()));
            }
            if let Some(same) = earlier.find(|it| it.key == key.key) {
                return Err(KeyRingError::Same(same.name.clone(), key.name.clone()));
            }
            if key.not_before.zip(key.not_after).is_some_and(|(from, until)| from >= until) {
                return Err(KeyRingError::Empty(key.name.clone()));
            }
        }
        Ok(Self { keys })
    }

    /// A policy that trusts one key at any time.
    pub fn single(name: &str, key: PublicKey) -> Self {
        Self { keys: vec![TrustedKey::always(name, key)] }
    }

    /// Reads what a user hands over: a public key in PEM, or a policy in JSON.
    pub fn read(name: &str, text: &str) -> Result<Self, KeyRingError> {
        if !text.trim_ascii_start().starts_with('{') {
            let key = PublicKey::from_pem(text);
            let key = key.map_err(|source| KeyRingError::Key { name: name.to_owned(), source })?;
            return Ok(Self::single(name, key));
        }
        let policy: Policy = json::read(text.as_bytes(), MAX_POLICY_BYTES)?;
        Self::new(policy.keys.into_iter().map(KeyEntry::read).collect::<Result<_, _>>()?)
    }

    /// The keys that a signature with this name of its key can be by; without a name all of them.
    pub(super) fn named(&self, name: Option<&str>) -> impl Iterator<Item = &TrustedKey> {
        let is = move |key: &&TrustedKey| {
            name.is_none_or(|it| it == key.key.id() || it == key.key.cosign_hint())
        };
        self.keys.iter().filter(is)
    }

    pub fn keys(&self) -> &[TrustedKey] {
        &self.keys
    }
}

impl KeyEntry {
    fn read(self) -> Result<TrustedKey, KeyRingError> {
        let key = PublicKey::from_pem(&self.public_key)
            .map_err(|source| KeyRingError::Key { name: self.name.clone(), source })?;
        let Self { name, not_before, not_after, revoked_from, .. } = self;
        Ok(TrustedKey { name, key, not_before, not_after, revoked_from })
    }
}
