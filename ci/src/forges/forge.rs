//! Kinds of forges, names, and which branch of which repository a queue lands on.

use std::fmt;
use std::path::PathBuf;

use kiln_net::Url;

use crate::queue::Branch;
use crate::queue::serving::LaneName;

/// People that rules name.
pub const MAX_PEOPLE: usize = 1_000;
/// Bytes of a forge's name.
const MAX_NAME: usize = 40;
/// Bytes of a repository's path.
const MAX_REPOSITORY: usize = 200;

/// The make of a forge, which says how its webhooks and its API look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    GitHub,
    GitLab,
    /// Gitea, and Forgejo as well.
    Gitea,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::GitHub, Self::GitLab, Self::Gitea];

    /// The make as configuration names it.
    pub fn word(self) -> &'static str {
        match self {
            Self::GitHub => "github",
            Self::GitLab => "gitlab",
            Self::Gitea => "gitea",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForgeError {
    #[error("{0:?} is no name of a forge: lower-case letters and `-`, a letter first, at most 40")]
    Name(String),
    #[error("{0:?} is no repository: write its path, as in owner/name or group/subgroup/project")]
    Repository(String),
}

/// What a forge is called here: in the address of its webhook, and in records.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForgeName(String);

impl ForgeName {
    pub fn new(name: &str) -> Result<Self, ForgeError> {
        let begins = name.starts_with(|it: char| it.is_ascii_lowercase());
        let fine = |it: u8| it.is_ascii_lowercase() || it == b'-';
        match begins && name.len() <= MAX_NAME && name.bytes().all(fine) {
            true => Ok(Self(name.to_owned())),
            false => Err(ForgeError::Name(name.chars().take(80).collect())),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ForgeName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// The path of a repository at a forge. Forges do not tell upper from lower case in it.
#[derive(Clone, Debug)]
pub struct Repository(String);

impl Repository {
    pub fn new(path: &str) -> Result<Self, ForgeError> {
        let fine = |it: u8| it.is_ascii_alphanumeric() || b"-_.".contains(&it);
        let part = |it: &str| !matches!(it, "" | "." | "..") && it.bytes().all(fine);
        let parts = path.split('/').count();
        match parts >= 2 && path.len() <= MAX_REPOSITORY && path.split('/').all(part) {
            true => Ok(Self(path.to_owned())),
            false => Err(ForgeError::Repository(path.chars().take(80).collect())),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the path in a payload means this repository.
    pub fn is(&self, path: &str) -> bool {
        self.0.eq_ignore_ascii_case(path)
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// Which queue lands changes on a branch.
#[derive(Clone, Debug)]
pub struct Binding {
    pub repository: Repository,
    pub branch: Branch,
    pub queue: LaneName,
}

/// Who may ask for what, and how.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    pub bindings: Vec<Binding>,
    /// Asks for what has it to be queued; `None`: no label does.
    pub label: Option<String>,
    /// Who may ask. Empty: whoever may push, where the forge can be asked for that; else who may label, and in comments
    /// whom GitHub calls owner, member or collaborator.
    pub people: Vec<String>,
    /// Whether the forge can be asked who may push.
    pub roles: bool,
    /// The priority of changes that are queued without one.
    pub priority: u8,
}

impl Rules {
    /// The queue that lands on a branch of a repository.
    pub fn binding(&self, repository: &str, branch: &str) -> Option<&Binding> {
        self.bindings.iter().find(|it| it.repository.is(repository) && it.branch.as_str() == branch)
    }

    pub fn knows(&self, repository: &str) -> bool {
        self.bindings.iter().any(|it| it.repository.is(repository))
    }

    pub fn names(&self, person: &str) -> bool {
        self.people.iter().any(|it| it.eq_ignore_ascii_case(person))
    }
}

/// A forge as an operator configures it.
#[derive(Clone, Debug)]
pub struct Forge {
    pub name: ForgeName,
    pub kind: Kind,
    /// The root of its API, without a slash at the end.
    pub api: Url,
    pub rules: Rules,
    /// Whether pushes that it tells of begin pipelines that wait for them.
    pub pushes: bool,
    /// The file of the secret of its webhook.
    pub secret_file: PathBuf,
    /// The file of the token for its API; `None`: it is told nothing, and asked nothing.
    pub token_file: Option<PathBuf>,
    /// Authorities (PEM) that vouch for it instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Whether a rejection is told in a comment as well.
    pub comment: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_are_plain() {
        for fine in ["github", "our-gitlab", "a"] {
            assert!(ForgeName::new(fine).is_ok(), "{fine}");
        }
        for odd in ["", "-a", "A", "a/b", "a_b", "a1", &"a".repeat(41)] {
            assert!(ForgeName::new(odd).is_err(), "{odd}");
        }
        for fine in ["owner/name", "group/sub/project.rs", "a-b/c_d"] {
            assert!(Repository::new(fine).is_ok(), "{fine}");
        }
        for odd in
            ["", "name", "/name", "owner/", "a//b", "../b", "a/..", "a/b?c", "a/b c", "a/%2e%2e"]
        {
            assert!(Repository::new(odd).is_err(), "{odd}");
        }
        assert!(Repository::new("Owner/Name").unwrap().is("owner/name"));
        assert!(!Repository::new("owner/name").unwrap().is("owner/names"));
    }
}
