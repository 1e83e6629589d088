//! Uploads what the works read. Nothing here is timed.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kiln_protos::{bytestream, reapi};
use prost::Message;

use super::channel::Channel;
use super::error::CallError;
use super::target::Target;
use super::wire::{Framed, frame, frame_write};
use super::works::execute;
use super::works::names::{self, BATCH_UPDATE, UPDATE_ACTION_RESULT, WRITE};
use crate::sample::{self, Key, LARGE, Pattern, SMALL};

/// Small blobs that reads and FindMissingBlobs choose from.
pub const SMALL_BLOBS: u64 = 2048;
/// Large blobs that reads choose from.
pub const LARGE_BLOBS: u64 = 4;
/// Actions with a result in the action cache.
pub const ACTIONS: u64 = 64;
/// Bytes of a blob that only fills the store.
const FILLER: usize = 128;
/// Most blobs, and most bytes of blobs, in one batch.
const BATCH_BLOBS: usize = 2000;
const BATCH_BYTES: usize = 3 << 20;
/// Fillers belong to the blobs that are the same in every run.
const FILLER_RUN: u64 = 0;

/// The blobs of all works; made once.
pub struct Samples {
    pub small: Pattern,
    pub filler: Pattern,
    large: OnceLock<Pattern>,
    /// Tells this run's writes from those of other runs.
    pub run: u64,
}

impl Samples {
    pub fn new(run: u64) -> Self {
        Self {
            small: Pattern::new(SMALL),
            filler: Pattern::new(FILLER),
            large: OnceLock::new(),
            run,
        }
    }

    /// 64 MiB: made when first asked for.
    pub fn large(&self) -> &Pattern {
        self.large.get_or_init(|| Pattern::new(LARGE))
    }
}

/// What a target holds already.
#[derive(Default)]
pub struct Prepared {
    small: bool,
    large: bool,
    filled: u64,
    hits: Option<Arc<Hits>>,
    pub execution: execute::State,
}

/// Actions with a result in the cache, and the result that each of them must have.
pub struct Hits {
    pub actions: Vec<reapi::Digest>,
    pub expected: reapi::ActionResult,
}

pub async fn small_blobs(target: &mut Target, samples: &Samples) -> Result<(), CallError> {
    if !target.prepared.small {
        let blobs = (0..SMALL_BLOBS).map(|index| {
            let key = Key { run: 0, index };
            (samples.small.digest(key), samples.small.blob(key))
        });
        upload(target, blobs).await?;
        target.prepared.small = true;
    }
    Ok(())
}

pub async fn large_blobs(
    target: &mut Target,
    samples: &Samples,
    chunk: usize,
) -> Result<(), CallError> {
    if !target.prepared.large {
        for index in 0..LARGE_BLOBS {
            let key = Key { run: 0, index };
            let name =
                names::upload(&target.instance, samples.run, index, &samples.large().digest(key));
            let mut channel = target.channel();
            let reply = channel
                .client_stream(&channel.rpc(WRITE)?, writes(samples.large(), key, &name, chunk))
                .await?;
            check_committed(reply, LARGE)?;
        }
        target.prepared.large = true;
    }
    Ok(())
}

/// The messages of one ByteStream.Write.
pub fn writes(
    pattern: &Pattern,
    key: Key,
    resource_name: &str,
    chunk: usize,
) -> impl ExactSizeIterator<Item = Framed> + Send + Sync + use<> {
    let pieces = pattern.pieces(key, chunk);
    let last = pieces.len() - 1;
    let mut offset = 0;
    let messages: Vec<_> = pieces
        .into_iter()
        .enumerate()
        .map(|(n, piece)| {
            let name = if n == 0 { resource_name } else { "" };
            let size = piece.len() as u64;
            let message = frame_write(name, offset, piece, n == last);
            offset += size;
            message
        })
        .collect();
    messages.into_iter()
}

pub fn check_committed(reply: Bytes, size: usize) -> Result<(), CallError> {
    let reply = bytestream::WriteResponse::decode(reply).map_err(CallError::lost)?;
    if usize::try_from(reply.committed_size) == Ok(size) {
        return Ok(());
    }
    Err(CallError::wrong(format!("committed_size {} for {size} bytes", reply.committed_size)))
}

/// Action cache entries, by UpdateActionResult where the target lets this caller, otherwise
/// by executing an action.
pub async fn hits(
    target: &mut Target,
    samples: &Samples,
    notes: &mut Vec<String>,
) -> Result<Arc<Hits>, CallError> {
    if let Some(hits) = &target.prepared.hits {
        return Ok(hits.clone());
    }
    small_blobs(target, samples).await?;
    let hits = match written_hits(target, samples).await {
        Err(refused) if refused.is_unsupported() => {
            notes.push(format!(
                "{}: UpdateActionResult is refused ({refused}); its hits come from one executed \
                 action",
                target.name
            ));
            execute::executed_hit(target, samples).await?
        }
        written => written?,
    };
    let hits = Arc::new(hits);
    target.prepared.hits = Some(hits.clone());
    Ok(hits)
}

async fn written_hits(target: &Target, samples: &Samples) -> Result<Hits, CallError> {
    let expected = sample::action_result(&samples.small);
    let (command, command_data) = sample::encode(&reapi::Command {
        arguments: vec!["/usr/bin/gcc".to_owned(), "-c".to_owned(), "main.c".to_owned()],
        ..Default::default()
    });
    let (root, root_data) = sample::encode(&reapi::Directory::default());
    let mut blobs = vec![(command.clone(), command_data), (root.clone(), root_data)];
    let mut actions = Vec::new();
    for salt in 0..ACTIONS {
        let (digest, data) = sample::encode(&reapi::Action {
            command_digest: Some(command.clone()),
            input_root_digest: Some(root.clone()),
            salt: salt.to_le_bytes().to_vec(),
            ..Default::default()
        });
        blobs.push((digest.clone(), data));
        actions.push(digest);
    }
    upload(target, blobs.into_iter()).await?;
    let mut channel = target.channel();
    let rpc = channel.rpc(UPDATE_ACTION_RESULT)?;
    for action in &actions {
        let request = reapi::UpdateActionResultRequest {
            instance_name: target.instance.to_string(),
            action_digest: Some(action.clone()),
            action_result: Some(expected.clone()),
            ..Default::default()
        };
        channel.unary(&rpc, frame(&request)).await?;
    }
    Ok(Hits { actions, expected })
}

/// Brings the store to at least `count` small blobs. Answers how long that took.
pub async fn fill(
    target: &mut Target,
    samples: &Samples,
    count: u64,
    patience: Duration,
) -> Result<Duration, CallError> {
    let start = Instant::now();
    while target.prepared.filled < count {
        let first = target.prepared.filled;
        let end = count.min(first + BATCH_BLOBS as u64);
        let blobs = (first..end).map(|index| {
            let key = filler_key(index);
            (samples.filler.digest(key), samples.filler.blob(key))
        });
        upload(target, blobs).await?;
        target.prepared.filled = end;
        if start.elapsed() > patience {
            return Err(CallError::TimedOut(patience.as_secs()));
        }
    }
    Ok(start.elapsed())
}

pub fn filler_key(index: u64) -> Key {
    Key { run: FILLER_RUN, index }
}

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
