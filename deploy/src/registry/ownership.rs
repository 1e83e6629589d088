//! What may not be pushed, whoever asks. Repositories that releases own are none of this: the store of the registry
//! knows them itself, so that a push and a release never meet.

use std::sync::Arc;

use async_trait::async_trait;
use kiln_cas::records::RecordsError;

use crate::oci::{Repository, Tag};

/// Says what is not for pushes.
#[async_trait]
pub trait Owned: Send + Sync + 'static {
    /// Why a push is refused, in words that follow `is refused: `; `None`: it is not. `tag`: which one the push would
    /// write; `None`: it brings content alone.
    async fn refusal(
        &self,
        repository: &Repository,
        tag: Option<&Tag>,
    ) -> Result<Option<String>, RecordsError>;
}

pub type SharedOwned = Arc<dyn Owned>;

/// The first of them that refuses, decides.
pub async fn refusal(
    owners: &[SharedOwned],
    repository: &Repository,
    tag: Option<&Tag>,
) -> Result<Option<String>, RecordsError> {
    for owner in owners {
        if let Some(why) = owner.refusal(repository, tag).await? {
            return Ok(Some(why));
        }
    }
    Ok(None)
}
