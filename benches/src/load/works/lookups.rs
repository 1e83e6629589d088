//! Look-ups: GetActionResult and FindMissingBlobs.

use std::sync::Arc;

use bytes::Bytes;
use kiln_protos::reapi;
use prost::Message;

use super::names::{FIND_MISSING, GET_ACTION_RESULT};
use crate::load::burst::Operation;
use crate::load::channel::{Channel, Rpc};
use crate::load::error::{CallError, NOT_FOUND};
use crate::load::prepared::Hits;
use crate::load::target::Numbers;
use crate::load::wire::{Framed, frame};
use crate::sample::MISS_MARK;

/// One in this many answers is decoded and compared; of the others status and size are checked.
const SAMPLE: u64 = 64;

/// Requests that are encoded once and sent again and again, in turn.
#[derive(Clone)]
pub struct Requests {
    requests: Arc<[Framed]>,
    numbers: Numbers,
}

impl Requests {
    pub fn new(requests: Vec<Framed>, numbers: Numbers) -> Self {
        Self { requests: requests.into(), numbers }
    }

    fn next(&self) -> (u64, Framed) {
        let number = self.numbers.next();
        let place = (number % self.requests.len() as u64) as usize;
        let (fields, data) = (&self.requests[place], self.requests[place].last_ref());
        (number, bytes::Buf::chain(fields.first_ref().clone(), data.clone()))
    }
}

pub fn hit_requests(hits: &Hits, instance: &str) -> Vec<Framed> {
    let encode = |action: &reapi::Digest| frame(&get_request(instance, action.clone()));
    hits.actions.iter().map(encode).collect()
}

fn get_request(instance: &str, action: reapi::Digest) -> reapi::GetActionResultRequest {
    reapi::GetActionResultRequest {
        instance_name: instance.to_owned(),
        action_digest: Some(action),
        ..Default::default()
    }
}

pub struct Hit {
    channel: Channel,
    rpc: Rpc,
    requests: Requests,
    hits: Arc<Hits>,
    least: usize,
}

impl Hit {
    pub fn new(channel: Channel, requests: Requests, hits: Arc<Hits>) -> Result<Self, CallError> {
        let rpc = channel.rpc(GET_ACTION_RESULT)?;
        let least = hits.expected.encoded_len();
        Ok(Self { channel, rpc, requests, hits, least })
    }

    fn check(&self, reply: Bytes) -> Result<(), CallError> {
        let reply = reapi::ActionResult::decode(reply).map_err(CallError::lost)?;
        let expected = &self.hits.expected;
        let files = |result: &reapi::ActionResult| -> Vec<_> {
            let file = |f: &reapi::OutputFile| (f.path.clone(), f.digest.clone());
            result.output_files.iter().map(file).collect()
        };
        if files(&reply) != files(expected) || reply.stdout_digest != expected.stdout_digest {
            return Err(CallError::wrong("GetActionResult names other outputs than were stored"));
        }
        Ok(())
    }
}

impl Operation for Hit {
    async fn once(&mut self) -> Result<u64, CallError> {
        let (number, request) = self.requests.next();
        let reply = self.channel.unary(&self.rpc, request).await?;
        if reply.len() < self.least {
            return Err(CallError::wrong("GetActionResult answers less than was stored"));
        }
        if number.is_multiple_of(SAMPLE) {
            self.check(reply)?;
        }
        Ok(0)
    }
}

pub struct Miss {
    channel: Channel,
    rpc: Rpc,
    instance: Arc<str>,
    numbers: Numbers,
}

impl Miss {
    pub fn new(channel: Channel, instance: Arc<str>, numbers: Numbers) -> Result<Self, CallError> {
        let rpc = channel.rpc(GET_ACTION_RESULT)?;
        Ok(Self { channel, rpc, instance, numbers })
    }
}

impl Operation for Miss {
    async fn once(&mut self) -> Result<u64, CallError> {
        // The number at the end keeps a server from answering out of one cached refusal.
        let hash = format!("{MISS_MARK}{:056x}", self.numbers.next());
        let action = reapi::Digest { hash, size_bytes: 140 };
        let request = frame(&get_request(&self.instance, action));
        match self.channel.unary(&self.rpc, request).await {
            Err(CallError::Status { code: NOT_FOUND, .. }) => Ok(0),
            Err(other) => Err(other),
            Ok(_) => Err(CallError::wrong("a result for an action that was never run")),
        }
    }
}

pub fn find_request(instance: &str, blob_digests: Vec<reapi::Digest>) -> Framed {
    frame(&reapi::FindMissingBlobsRequest {
        instance_name: instance.to_owned(),
        blob_digests,
        ..Default::default()
    })
}

/// Asks for blobs that are all there.
pub struct FindMissing {
    channel: Channel,
    rpc: Rpc,
    requests: Requests,
}

impl FindMissing {
    pub fn new(channel: Channel, requests: Requests) -> Result<Self, CallError> {
        let rpc = channel.rpc(FIND_MISSING)?;
        Ok(Self { channel, rpc, requests })
    }
}

impl Operation for FindMissing {
    async fn once(&mut self) -> Result<u64, CallError> {
        let (_, request) = self.requests.next();
        let reply = self.channel.unary(&self.rpc, request).await?;
        if reply.is_empty() {
            return Ok(0);
        }
        Err(CallError::wrong("FindMissingBlobs misses blobs that were uploaded"))
    }
}

/// Asks for one blob that is there and one that was never uploaded, and fails unless the latter
/// alone is reported.
pub async fn check_missing(
    channel: &mut Channel,
    instance: &str,
    present: &reapi::Digest,
) -> Result<(), CallError> {
    let absent = reapi::Digest { hash: format!("{MISS_MARK}{:056x}", 1), size_bytes: 17 };
    let request = find_request(instance, vec![present.clone(), absent.clone()]);
    let reply = channel.unary(&channel.rpc(FIND_MISSING)?, request).await?;
    let reply = reapi::FindMissingBlobsResponse::decode(reply).map_err(CallError::lost)?;
    if reply.missing_blob_digests == [absent] {
        return Ok(());
    }
    Err(CallError::wrong("FindMissingBlobs does not report exactly the blob that is missing"))
}
