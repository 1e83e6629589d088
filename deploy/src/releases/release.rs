//! What a release is: a name for content that never changes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::oci::{ContentDigest, Descriptor, NameError, Repository, Tag};
use crate::timestamp::Timestamp;

/// The name of a release, as clients of registries write it: `team/app:1.4.2`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReleaseName {
    pub repository: Repository,
    pub version: Tag,
}

/// Why a text names no release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseNameError {
    #[error("{0:?} is no name such as team/app:1.4.2")]
    NoVersion(String),
    #[error(transparent)]
    Part(#[from] NameError),
}

/// Content with a name, and what was signed about it. Nothing of it changes: what is decided later, such as a
/// rejection, is kept beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    pub name: ReleaseName,
    /// The manifest that people pull.
    pub subject: Descriptor,
    /// Manifests about the subject: signatures, provenance, bills of materials, the closure's list.
    pub attestations: Vec<Descriptor>,
    pub invocation: String,
    pub target: String,
    pub created: Timestamp,
}

impl FromStr for ReleaseName {
    type Err = ReleaseNameError;

    fn from_str(text: &str) -> Result<Self, ReleaseNameError> {
        let no_version = || ReleaseNameError::NoVersion(text.chars().take(400).collect());
        let (repository, version) = text.rsplit_once(':').ok_or_else(no_version)?;
        Ok(Self { repository: repository.parse()?, version: version.parse()? })
    }
}

impl TryFrom<String> for ReleaseName {
    type Error = ReleaseNameError;

    fn try_from(text: String) -> Result<Self, ReleaseNameError> {
        text.parse()
    }
}

impl From<ReleaseName> for String {
    fn from(name: ReleaseName) -> Self {
        name.to_string()
    }
}

impl fmt::Display for ReleaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.repository, self.version)
    }
}

impl Release {
    /// The digest that people pull by.
    pub fn digest(&self) -> &ContentDigest {
        &self.subject.digest
    }
}
