//! Names of repositories, tags and references, by the grammar of the distribution specification.

use std::fmt;
use std::str::FromStr;

use super::digest::ContentDigest;

/// Clients refuse longer ones, with the name of the registry counted in.
const MAX_REPOSITORY: usize = 255;
const MAX_TAG: usize = 128;

/// Why a text names nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error(
        "{0:?} is no name of a repository: lowercase words with one of . _ __ - between, and / between parts"
    )]
    Repository(String),
    #[error("{0:?} is no tag: up to 128 letters, digits, and . _ - behind the first")]
    Tag(String),
    #[error("{0:?} is neither a tag nor a digest")]
    Reference(String),
}

/// A repository, such as `team/app`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository(String);

/// A name for a manifest that can be moved.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

/// What stands at the end of the address of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reference {
    Tag(Tag),
    Digest(ContentDigest),
}

/// Bounded, for errors: names come from requests.
fn shown(text: &str) -> String {
    text.chars().take(MAX_REPOSITORY).collect()
}

/// Lowercase letters and digits with separators between them: `.`, `_`, `__`, or any number of `-`.
fn is_component(text: &str) -> bool {
    let mut rest = text;
    loop {
        let word = rest.bytes().take_while(|it| it.is_ascii_lowercase() || it.is_ascii_digit());
        let (word, behind) = rest.split_at(word.count());
        if word.is_empty() {
            return false;
        }
        if behind.is_empty() {
            return true;
        }
        let Some(next) = behind_separator(behind) else { return false };
        rest = next;
    }
}

fn behind_separator(text: &str) -> Option<&str> {
    let dashes = text.trim_start_matches('-');
    if dashes.len() < text.len() {
        return Some(dashes);
    }
    ["__", "_", "."].iter().find_map(|it| text.strip_prefix(it))
}

impl FromStr for Repository {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let fits = text.len() <= MAX_REPOSITORY && text.split('/').all(is_component);
        fits.then(|| Self(text.to_owned())).ok_or_else(|| NameError::Repository(shown(text)))
    }
}

impl FromStr for Tag {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let word = |it: u8| it.is_ascii_alphanumeric() || it == b'_';
        let fits = text.len() <= MAX_TAG
            && text.bytes().next().is_some_and(word)
            && text.bytes().all(|it| word(it) || it == b'.' || it == b'-');
        fits.then(|| Self(text.to_owned())).ok_or_else(|| NameError::Tag(shown(text)))
    }
}

impl FromStr for Reference {
    type Err = NameError;

    /// A tag has no colon, a digest has one.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::Reference(shown(text));
        match text.contains(':') {
            true => text.parse().map(Self::Digest).map_err(|_| wrong()),
            false => text.parse().map(Self::Tag).map_err(|_| wrong()),
        }
    }
}

impl Repository {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Tag {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
