//! Names that go into git's command lines and into keys: checked once, where they come in.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Most bytes of a branch's name.
const MAX_BRANCH: usize = 200;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("{0:?} is no full name of a commit (40 or 64 hexadecimal digits)")]
    Commit(String),
    #[error("{0:?} is no name of a branch")]
    Branch(String),
}

/// A commit's full name: 40 or 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Commit(String);

/// A branch's name without `refs/heads/`, as `git check-ref-format` allows it, and never one that looks like
/// an option or a revision expression.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Branch(String);

impl Commit {
    pub fn new(name: &str) -> Result<Self, NameError> {
        let digit = |it: u8| it.is_ascii_digit() || (b'a'..=b'f').contains(&it);
        match matches!(name.len(), 40 | 64) && name.bytes().all(digit) {
            true => Ok(Self(name.to_owned())),
            false => Err(NameError::Commit(name.chars().take(80).collect())),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl Branch {
    pub fn new(name: &str) -> Result<Self, NameError> {
        match is_branch(name) {
            true => Ok(Self(name.to_owned())),
            false => Err(NameError::Branch(name.chars().take(80).collect())),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The branch's full reference: `refs/heads/NAME`.
    pub fn full(&self) -> String {
        format!("refs/heads/{}", self.0)
    }
}

fn is_branch(name: &str) -> bool {
    let odd =
        |it: char| it.is_control() || it.is_whitespace() || "~^:?*[\\\"'`$&|;<>(){}!#".contains(it);
    let part = |it: &str| !it.is_empty() && !it.starts_with(['.', '-']) && !it.ends_with(".lock");
    !name.is_empty()
        && name.len() <= MAX_BRANCH
        && !name.contains(odd)
        && !name.contains("..")
        && !name.contains('@')
        && !name.ends_with('.')
        && !name.starts_with("refs/")
        && name != "HEAD"
        && name.split('/').all(part)
}

impl TryFrom<String> for Commit {
    type Error = NameError;

    fn try_from(name: String) -> Result<Self, NameError> {
        Self::new(&name)
    }
}

impl TryFrom<String> for Branch {
    type Error = NameError;

    fn try_from(name: String) -> Result<Self, NameError> {
        Self::new(&name)
    }
}

impl From<Commit> for String {
    fn from(it: Commit) -> Self {
        it.0
    }
}

impl From<Branch> for String {
    fn from(it: Branch) -> Self {
        it.0
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Display for Branch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_git_takes_and_never_options() {
        for fine in ["main", "feature/a-b_c.1", "café/ü", "a"] {
            assert!(Branch::new(fine).is_ok(), "{fine}");
        }
        let long = "a".repeat(MAX_BRANCH + 1);
        for odd in [
            "",
            "-x",
            "a/-x",
            "--upload-pack=x",
            "a..b",
            "a b",
            "a\nb",
            "a~1",
            "a^",
            "a:b",
            "@{u}",
            "a.lock",
            "a/.b",
            "/a",
            "a/",
            "a//b",
            "refs/heads/a",
            "HEAD",
            "$(x)",
            "a;b",
            "a.",
            &long,
        ] {
            assert!(Branch::new(odd).is_err(), "{odd}");
        }
        assert!(Commit::new(&"0a".repeat(20)).is_ok());
        for odd in ["", "main", "0A", &"0A".repeat(20), &"0a".repeat(21), &"-a".repeat(20)] {
            assert!(Commit::new(odd).is_err(), "{odd}");
        }
        assert!(serde_json::from_str::<Branch>("\"-x\"").is_err(), "also where it is read back");
    }
}
