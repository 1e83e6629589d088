//! Uploads many small blobs.

use bytes::Bytes;
use kiln_protos::reapi;
use prost::Message;

use super::channel::Channel;
use super::error::CallError;
use super::target::Target;
use super::wire::frame;
use super::works::names::BATCH_UPDATE;

/// Most blobs, and most bytes of blobs, in one batch.
pub const BATCH_BLOBS: usize = 2000;
const BATCH_BYTES: usize = 3 << 20;

/// Uploads blobs in batches, whatever is there already.
pub async fn upload(
    target: &Target,
    blobs: impl Iterator<Item = (reapi::Digest, Bytes)>,
) -> Result<(), CallError> {
    let mut channel = target.channel();
    let mut batch = Vec::new();
    let mut bytes = 0;
    for (digest, data) in blobs {
        if batch.len() == BATCH_BLOBS || bytes + data.len() > BATCH_BYTES {
            send_batch(&mut channel, &target.instance, std::mem::take(&mut batch)).await?;
            bytes = 0;
        }
        bytes += data.len();
        batch.push(reapi::batch_update_blobs_request::Request {
            digest: Some(digest),
            data: data.into(),
            ..Default::default()
        });
    }
    send_batch(&mut channel, &target.instance, batch).await
}

async fn send_batch(
    channel: &mut Channel,
    instance: &str,
    requests: Vec<reapi::batch_update_blobs_request::Request>,
) -> Result<(), CallError> {
    if requests.is_empty() {
        return Ok(());
    }
    let count = requests.len();
    let request = reapi::BatchUpdateBlobsRequest {
        instance_name: instance.to_owned(),
        requests,
        ..Default::default()
    };
    let rpc = channel.rpc(BATCH_UPDATE)?;
    let reply = channel.unary(&rpc, frame(&request)).await?;
    let reply = reapi::BatchUpdateBlobsResponse::decode(reply).map_err(CallError::lost)?;
    let failed = reply.responses.iter().filter_map(|blob| blob.status.as_ref());
    if let Some(status) = failed.into_iter().find(|status| status.code != 0) {
        let message = format!("BatchUpdateBlobs: {}", status.message);
        return Err(CallError::Status { code: status.code.unsigned_abs(), message });
    }
    if reply.responses.len() != count {
        return Err(CallError::wrong("BatchUpdateBlobs did not answer for each blob"));
    }
    Ok(())
}
