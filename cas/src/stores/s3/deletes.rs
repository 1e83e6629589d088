//! Deleting many objects.

use aws_sdk_s3::error::{DisplayErrorContext, SdkError};
use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use futures_util::TryStreamExt;

use super::bucket::Bucket;
use crate::error::{Reason, StoreError};

/// Keys of one DeleteObjects request: as many as S3 allows.
pub const DELETE_BATCH: usize = 1000;
/// Single deletions at the same time, where a store knows no DeleteObjects.
pub const DELETES_IN_FLIGHT: usize = 16;

impl Bucket {
    /// Deletes objects by their keys, at most [`DELETE_BATCH`] of them; what is gone is no error.
    pub async fn delete_batch(&self, keys: &[String]) -> Result<(), StoreError> {
        let identify = |key: &String| ObjectIdentifier::builder().key(key).build();
        let objects = keys.iter().map(identify).collect::<Result<Vec<_>, _>>();
        let delete = objects
            .and_then(|objects| Delete::builder().set_objects(Some(objects)).quiet(true).build());
        let delete = delete.map_err(|error| StoreError::invalid(Reason::of(error)))?;
        let request = self.clients.usual.delete_objects().bucket(&self.site.bucket).delete(delete);
        let answer = {
            let _permit = self.permit().await?;
            Box::pin(request.send()).await
        };
        let answer = match answer {
            Err(SdkError::ServiceError(error))
                if refuses_batches(error.raw().status().as_u16()) =>
            {
                let error = DisplayErrorContext(error.err());
                tracing::debug!(%error, "objects are deleted one by one");
                return self.delete_each(keys).await;
            }
            answer => answer.map_err(|error| self.site.failure("delete objects", error))?,
        };
        let failed = answer.errors.unwrap_or_default();
        let failed = failed.iter().find(|error| error.code.as_deref() != Some("NoSuchKey"));
        failed.map_or(Ok(()), |error| {
            let (code, key) = (error.code.as_deref(), error.key.as_deref());
            let message = error.message.as_deref().unwrap_or("no reason given");
            Err(StoreError::unavailable(format!(
                "S3: cannot delete {} in {}: {message} ({})",
                key.unwrap_or("an object"),
                self.site,
                code.unwrap_or_default()
            )))
        })
    }

    async fn delete_each(&self, keys: &[String]) -> Result<(), StoreError> {
        futures_util::stream::iter(keys.iter().map(Ok))
            .try_for_each_concurrent(DELETES_IN_FLIGHT, |key| self.delete(key))
            .await
    }
}

/// Some stores have no DeleteObjects, others want a checksum that the SDK no longer sends.
fn refuses_batches(status: u16) -> bool {
    matches!(status, 400 | 405 | 501)
}
