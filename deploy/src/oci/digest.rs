//! Digests as registries write them: `sha256:` or `sha512:` with lowercase hexadecimal digits.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha512};

use crate::encoding::{hex, is_hex};
use crate::resource::DigestSet;

/// Characters of the hash in a tag that stands for a digest.
const MAX_TAG_HASH: usize = 64;

/// A hash function that is computed here. The specification registers more; content that is named by them alone cannot be
/// verified and is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    Sha256,
    Sha512,
}

/// The name of content: a hash function and its value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContentDigest {
    algorithm: Algorithm,
    hex: String,
}

/// Why a text is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    #[error("{0:?} is no digest such as sha256: with 64 lowercase hexadecimal digits")]
    Malformed(String),
    #[error("the digest {0:?} is by a hash function that is not known here")]
    Algorithm(String),
}

/// A hash that is being computed.
pub enum Hashing {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Algorithm {
    /// The word before the colon.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// How many hexadecimal digits a digest has.
    fn digits(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }

    pub fn hashing(self) -> Hashing {
        match self {
            Self::Sha256 => Hashing::Sha256(Sha256::new()),
            Self::Sha512 => Hashing::Sha512(Sha512::new()),
        }
    }

    /// The digest of `data`.
    pub fn digest(self, data: &[u8]) -> ContentDigest {
        let mut hashing = self.hashing();
        hashing.update(data);
        hashing.finish()
    }
}

impl Hashing {
    pub fn update(&mut self, data: &[u8]) {
        match self {
            Self::Sha256(state) => state.update(data),
            Self::Sha512(state) => state.update(data),
        }
    }

    pub fn finish(self) -> ContentDigest {
        let (algorithm, hex) = match self {
            Self::Sha256(state) => (Algorithm::Sha256, hex(&state.finalize())),
            Self::Sha512(state) => (Algorithm::Sha512, hex(&state.finalize())),
        };
        ContentDigest { algorithm, hex }
    }
}

impl ContentDigest {
    /// The SHA-256 of `data`: what Kiln names its own documents by.
    pub fn of(data: &[u8]) -> Self {
        Algorithm::Sha256.digest(data)
    }

    /// The digest with a SHA-256 hash that was computed elsewhere.
    pub fn sha256(hash: [u8; 32]) -> Self {
        Self { algorithm: Algorithm::Sha256, hex: hex(&hash) }
    }

    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The value, in lowercase hexadecimal digits.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// The digest as in-toto writes it: by the name of its algorithm.
    pub fn set(&self) -> DigestSet {
        DigestSet::from([(self.algorithm.name().to_owned(), self.hex.clone())])
    }

    /// The tag that stands for this digest where an older client, or a registry without referrers, looks for what
    /// refers to it. Two digests of SHA-512 can have the same: whoever reads what is there compares the subject.
    pub fn fallback_tag(&self) -> String {
        let hash = self.hex.get(..MAX_TAG_HASH).unwrap_or(&self.hex);
        format!("{}-{hash}", self.algorithm.name())
    }
}

impl fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

impl fmt::Debug for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The grammar of names of hash functions: words of lowercase letters and digits, with one separator between two.
fn is_algorithm(text: &str) -> bool {
    let word = |it: &str| {
        !it.is_empty() && it.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit())
    };
    text.split(['+', '.', '_', '-']).all(word)
}

impl FromStr for ContentDigest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let malformed = || DigestError::Malformed(text.chars().take(160).collect());
        let (algorithm, hex) = text.split_once(':').ok_or_else(malformed)?;
        let algorithm = match algorithm {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            other if is_algorithm(other) && !hex.is_empty() => {
                return Err(DigestError::Algorithm(text.chars().take(160).collect()));
            }
            _ => return Err(malformed()),
        };
        let digest = Self { algorithm, hex: hex.to_owned() };
        is_hex(hex, algorithm.digits()).then_some(digest).ok_or_else(malformed)
    }
}

impl TryFrom<String> for ContentDigest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<ContentDigest> for String {
    fn from(digest: ContentDigest) -> Self {
        digest.to_string()
    }
}
