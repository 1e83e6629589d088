//! Small blobs travel in batches: what waits while calls are under way goes together.

use std::collections::HashMap;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use kiln_protos::reapi::{
    BatchReadBlobsRequest, BatchUpdateBlobsRequest, batch_update_blobs_request,
};
use kiln_protos::rpc;
use tonic::{Code, Status};

use super::calls::{retrying, store_error};
use super::client::Client;
use crate::batch::{Batcher, Limits, Rules};
use crate::digest::Digest;
use crate::error::StoreError;

/// Bytes in one call, which is less than the usual limit of 4 MiB a message, and calls under way
/// at the same time. Callers bound what waits: each waits for its own blob.
const LIMITS: Limits = Limits { batch: 3 << 20, waiting: None, flights: 4 };
/// What a blob weighs beside its bytes: some 1,000 empty ones fill a call.
const ITEM: usize = (3 << 20) / 1000;

/// What became of one blob of a batch.
type BlobResult<T> = Result<T, StoreError>;

/// BatchReadBlobs and BatchUpdateBlobs.
pub struct SmallBlobs {
    reads: Batcher<Digest, BlobResult<Bytes>>,
    updates: Batcher<(Digest, Bytes), BlobResult<()>>,
}

impl SmallBlobs {
    pub fn new(client: &Client) -> Self {
        let (reader, updater) = (client.clone(), client.clone());
        // All blobs of one call have the same digest function.
        let reads: Rules<Digest> = eager().alike(|one, other| one.function == other.function);
        let updates: Rules<(Digest, Bytes)> =
            eager().alike(|(one, _), (other, _)| one.function == other.function);
        Self {
            reads: Batcher::new(reads, move |digests: Vec<Digest>| {
                let client = reader.clone();
                Box::pin(async move {
                    let answers = read(&client, &digests).await;
                    in_order(digests.iter(), &answers)
                })
            }),
            updates: Batcher::new(updates, move |blobs: Vec<(Digest, Bytes)>| {
                let client = updater.clone();
                Box::pin(async move {
                    let answers = update(&client, &blobs).await;
                    in_order(blobs.iter().map(|(digest, _)| digest), &answers)
                })
            }),
        }
    }

    /// The whole blob, verified.
    pub async fn read(&self, digest: &Digest) -> BlobResult<Bytes> {
        let weight = usize::try_from(digest.size).unwrap_or(usize::MAX).saturating_add(ITEM);
        self.reads.call(*digest, weight).await.map_err(|_| lost())?
    }

    pub async fn write(&self, digest: &Digest, data: Bytes) -> BlobResult<()> {
        let weight = data.len() + ITEM;
        self.updates.call((*digest, data), weight).await.map_err(|_| lost())?
    }
}

/// Rules of both batchers. A batch waits for one turn of the runtime: whoever asks first often asks for
/// more in the same breath.
fn eager<C>() -> Rules<C> {
    Rules::from(LIMITS).linger(|| -> BoxFuture<'static, ()> { Box::pin(tokio::task::yield_now()) })
}

fn lost() -> StoreError {
    StoreError::unavailable("the call that carried the request was lost")
}

/// What became of each blob of one call. Errors: of the call as a whole.
type BatchResult<T> = Result<HashMap<Digest, BlobResult<T>>, StoreError>;

/// The answer to each blob that was asked after.
fn in_order<'a, T: Clone>(
    asked: impl Iterator<Item = &'a Digest>,
    answers: &BatchResult<T>,
) -> Vec<BlobResult<T>> {
    let answer = |digest| match answers {
        Ok(answers) => answers.get(digest).cloned().unwrap_or_else(|| Err(incomplete())),
        Err(error) => Err(error.clone()),
    };
    asked.map(answer).collect()
}

fn incomplete() -> StoreError {
    StoreError::unavailable("the server left a blob out of its answer to a batch")
}

async fn read(client: &Client, asked: &[Digest]) -> BatchResult<Bytes> {
    let Some(function) = asked.first().map(|digest| digest.function) else {
        return Ok(HashMap::new());
    };
    let mut digests = asked.to_vec();
    digests.sort_unstable();
    digests.dedup();
    let request = BatchReadBlobsRequest {
        instance_name: client.instance.to_string(),
        digests: digests.iter().map(Digest::to_wire).collect(),
        digest_function: function.to_wire().into(),
        ..Default::default()
    };
    let answer = retrying("read blobs", client.failures(), || {
        let (mut cas, request) = (client.cas(), request.clone());
        async move { cas.batch_read_blobs(request).await }
    })
    .await?;
    let answers = answer.responses.into_iter().filter_map(|response| {
        let digest = Digest::from_wire(response.digest.as_ref()?, function).ok()?;
        let data = check("read", &digest, response.status)
            .and_then(|()| verified(digest, response.data.into()));
        if data.is_ok() {
            client.transfers.fetched(digest.size);
        }
        Some((digest, data))
    });
    Ok(answers.collect())
}

fn verified(digest: Digest, data: Bytes) -> BlobResult<Bytes> {
    match digest.function.digest(&data) {
        actual if actual == digest => Ok(data),
        actual => Err(StoreError::DigestMismatch { expected: digest, actual }),
    }
}

async fn update(client: &Client, blobs: &[(Digest, Bytes)]) -> BatchResult<()> {
    let Some(function) = blobs.first().map(|(digest, _)| digest.function) else {
        return Ok(HashMap::new());
    };
    let requests = blobs.iter().map(|(digest, data)| batch_update_blobs_request::Request {
        digest: Some(digest.to_wire()),
        data: data.to_vec(),
        ..Default::default()
    });
    let request = BatchUpdateBlobsRequest {
        instance_name: client.instance.to_string(),
        requests: requests.collect(),
        digest_function: function.to_wire().into(),
    };
    let answer = retrying("write blobs", client.failures(), || {
        let (mut cas, request) = (client.cas(), request.clone());
        async move { cas.batch_update_blobs(request).await }
    })
    .await?;
    let answers = answer.responses.into_iter().filter_map(|response| {
        let digest = Digest::from_wire(response.digest.as_ref()?, function).ok()?;
        let taken = check("write", &digest, response.status);
        if taken.is_ok() {
            client.transfers.uploaded(digest.size);
        }
        Some((digest, taken))
    });
    Ok(answers.collect())
}

fn check(what: &str, digest: &Digest, status: Option<rpc::Status>) -> Result<(), StoreError> {
    let Some(status) = status.filter(|status| status.code != 0) else { return Ok(()) };
    match Code::from_i32(status.code) {
        Code::NotFound => Err(StoreError::NotFound(*digest)),
        code => Err(store_error(&format!("{what} {digest}"), &Status::new(code, status.message))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::contract::blob;

    #[test]
    fn each_digest_gets_its_own_answer_also_where_two_differ_in_their_size_alone() {
        let (digest, data) = blob(1, 5);
        let wrong = Digest { size: 7, ..digest };
        let answers: BatchResult<Bytes> = Ok(HashMap::from([
            (digest, verified(digest, data.clone())),
            (wrong, verified(wrong, data.clone())),
        ]));
        let asked = [wrong, digest, blob(2, 5).0];
        let answered = in_order(asked.iter(), &answers);
        assert!(matches!(answered[0], Err(StoreError::DigestMismatch { .. })), "{answered:?}");
        assert_eq!(answered[1].as_ref().unwrap(), &data);
        assert!(matches!(answered[2], Err(StoreError::Unavailable(_))), "{answered:?}");
        let failed = in_order(asked.iter(), &BatchResult::<()>::Err(StoreError::denied("x")));
        assert!(failed.len() == 3 && failed.iter().all(Result::is_err));
    }
}
