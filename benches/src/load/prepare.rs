//! Uploads what the works read. Nothing here is timed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kiln_protos::{bytestream, reapi};
use prost::Message;

use super::error::CallError;
use super::prepared::Hits;
use super::samples::Samples;
use super::target::Target;
use super::upload::{BATCH_BLOBS, upload};
use super::wire::{Framed, frame, frame_write};
use super::works::execute;
use super::works::names::{self, UPDATE_ACTION_RESULT, WRITE};
use crate::sample::{self, Key, LARGE, Pattern};

/// Small blobs that reads and FindMissingBlobs choose from.
pub const SMALL_BLOBS: u64 = 2048;
/// Large blobs that reads choose from.
pub const LARGE_BLOBS: u64 = 4;
/// Actions with a result in the action cache.
pub const ACTIONS: u64 = 64;
/// Fillers belong to the blobs that are the same in every run.
const FILLER_RUN: u64 = 0;

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

/// Makes entries of the action cache, by UpdateActionResult where the target lets this caller,
/// otherwise by executing an action.
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
