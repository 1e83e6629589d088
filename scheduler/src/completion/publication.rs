//! Results go into the action cache once all that they name is durable, and once more where the cache, and
//! the index of the blobs with it, has failed meanwhile: what was asked and told before is void then.

use bytes::Bytes;
use kiln_cas::promises::on_behalf;
use kiln_cas::stores::{ClosureError, closure};
use kiln_cas::{Digest, StoreError};
use kiln_protos::reapi;
use kiln_protos::rpc::Status;
use prost::Message;
use tonic::Code;

use crate::config::Parts;
use crate::job::{Request, Run};
use crate::status::{status, store_status};

/// How often a result is put at most, where the cache fails each time since its outputs were found.
const PUTS: usize = 4;

/// A result that is in the action cache, as far as is known.
pub struct Publication {
    /// Failures of the cache that were known before the result's outputs were looked for.
    failures: u64,
}

/// Makes what the result names durable, and puts the result, which is `encoded`, where others find it.
pub(super) async fn publish(
    parts: &Parts,
    run: &Run,
    result: &reapi::ActionResult,
    encoded: &Bytes,
) -> Result<Publication, Status> {
    let not_durable =
        |error: StoreError| store_status("the result could not be made durable", &error);
    for _ in 0..PUTS {
        let failures = parts.actions.failures();
        promise_outputs(parts, run, result).await?;
        parts.blobs.sync().await.map_err(not_durable)?;
        let put = parts.actions.put(&run.job.key, encoded.clone());
        put.await.map_err(not_durable)?;
        // Otherwise who has the result now need not know of the outputs that were found.
        if parts.actions.failures() == failures {
            return Ok(Publication { failures });
        }
    }
    Err(not_durable(StoreError::unavailable("the action cache has failed too often meanwhile")))
}

/// Publishes a result again when the cache has failed since: whoever waited for it has an answer, so that
/// nobody would make it again before somebody asks for it.
pub(super) async fn keep(parts: &Parts, run: &Run, encoded: &Bytes, publication: &Publication) {
    if parts.actions.failures() == publication.failures {
        return;
    }
    let Ok(result) = reapi::ActionResult::decode(encoded.clone()) else { return };
    if let Err(status) = publish(parts, run, &result, encoded).await {
        let (action, error) = (&run.job.key.action, &status.message);
        tracing::warn!(%action, error, "a result was lost with a failure of the action cache");
    }
}

/// The worker may have stored its outputs through another frontend. Where they are asked
/// for, `sync` answers for them here as well, and what never came is found before anybody
/// relies on it.
async fn promise_outputs(
    parts: &Parts,
    run: &Run,
    result: &reapi::ActionResult,
) -> Result<(), Status> {
    let blobs = &*parts.blobs;
    let present = parts.invocations.begin(invocation(&run.job.request));
    let missing = match closure(result, run.job.key.action.function, blobs).await {
        Ok(outputs) => on_behalf(present.as_ref(), blobs.find_missing(&outputs)).await,
        Err(ClosureError::Missing(tree)) => Ok(vec![tree]),
        Err(ClosureError::Store(error)) => Err(error),
        Err(error) => {
            let message = format!("the worker's result is not valid: {error}");
            return Err(status(Code::Internal, message));
        }
    };
    let missing =
        missing.map_err(|error| store_status("the outputs could not be looked up", &error))?;
    match missing.first() {
        None => Ok(()),
        Some(first) => Err(lost_outputs(missing.len(), first)),
    }
}

/// The id of the invocation that a request belongs to, as promises are attributed to it.
pub fn invocation(request: &Request) -> &[u8] {
    request.metadata.tool_invocation_id.as_bytes()
}

/// The status UNAVAILABLE, which clients try again, for an action whose outputs were lost from the
/// store.
fn lost_outputs(count: usize, first: &Digest) -> Status {
    let message = format!(
        "outputs of the action are not in the store ({count}, among them {first}); execute it again"
    );
    status(Code::Unavailable, message)
}
