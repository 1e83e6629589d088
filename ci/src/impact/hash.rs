//! Hashes of what targets are made from.

use std::fmt;

use serde::{Deserialize, Serialize};

/// 128 bits of BLAKE3.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash([u8; 16]);

impl Hash {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{self}")
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl Serialize for Hash {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        let number = u128::from_str_radix(&text, 16).map_err(serde::de::Error::custom)?;
        Ok(Self(number.to_be_bytes()))
    }
}

/// Hashes parts so that no two lists of parts look the same.
#[derive(Clone)]
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// What is hashed, so that a rule is never taken for a file.
    pub fn new(of: &str) -> Self {
        let mut hasher = Self(blake3::Hasher::new());
        hasher.text(of);
        hasher
    }

    pub fn bytes(&mut self, part: &[u8]) -> &mut Self {
        self.count(part.len());
        self.0.update(part);
        self
    }

    pub fn text(&mut self, part: &str) -> &mut Self {
        self.bytes(part.as_bytes())
    }

    pub fn count(&mut self, number: usize) -> &mut Self {
        self.0.update(&(number as u64).to_le_bytes());
        self
    }

    /// Adds bytes of any number, as the last part.
    pub fn rest(&mut self, part: &[u8]) -> &mut Self {
        self.0.update(part);
        self
    }

    pub fn hash(&mut self, part: Hash) -> &mut Self {
        self.0.update(&part.0);
        self
    }

    pub fn finish(&self) -> Hash {
        let mut short = [0; 16];
        short.copy_from_slice(&self.0.finalize().as_bytes()[..16]);
        Hash(short)
    }
}
