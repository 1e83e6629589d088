//! Says which releases may be rolled out in which environment.

use async_trait::async_trait;

use super::{PartError, Place};
use crate::oci::ContentDigest;
use crate::releases::ReleaseName;

/// What is to be said of a release in an environment, as of now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The release was rejected: by whom and why, in words.
    Refused(String),
    /// The list does not have the release: in words. It may be that of another instance now.
    Unlisted(String),
    /// The release may not be rolled out now: a freeze or a hold, in words.
    Frozen(ContentDigest, String),
    /// Nobody has rejected it, and nothing holds it up. What it has to show is not looked at: see [`Releases::verify`].
    Free(ContentDigest),
}

/// Why a release does not verify, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unverified {
    /// The release itself is not trusted: it was rejected, or the key that signed it was revoked.
    #[error("{0}")]
    Untrusted(String),
    /// As it is set up, the server cannot say that the release is trusted: it has other keys or another policy, or does not
    /// know the release. That speaks against nobody who runs it.
    #[error("{0}")]
    Unconfirmed(String),
}

/// The list of releases with what was promoted, rejected and frozen.
#[async_trait]
pub trait Releases: Send + Sync + 'static {
    async fn standing(
        &self,
        release: &ReleaseName,
        environment: &str,
    ) -> Result<Standing, PartError>;

    /// Verifies everything that a release has to show: signatures, provenance, and, if it has to `stand` in the environment,
    /// that it does. `Ok(Err)`: why not.
    async fn verify(
        &self,
        release: &ReleaseName,
        environment: &str,
        stands: bool,
    ) -> Result<Result<ContentDigest, Unverified>, PartError>;

    /// When the release was made, in Unix milliseconds; `None`: nobody knows it.
    async fn made(&self, release: &ReleaseName) -> Result<Option<u64>, PartError>;

    /// A rollout was reverted because of this release: where it stands in the environment, that returns to what stood
    /// there before. Said again, it changes nothing.
    async fn blame(
        &self,
        release: &ReleaseName,
        place: &Place,
        reason: &str,
    ) -> Result<(), PartError>;
}

/// Unix milliseconds. The clock may jump: whoever drives a rollout takes care of that.
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> u64;
}
