//! Jobs and answers as the bytes that lie in Redis.

use std::sync::Arc;

use bytes::Bytes;
use kiln_cas::{ActionKey, Digest, DigestFunction};
use kiln_protos::{events, queue, reapi};
use prost::Message;

use crate::frontend::told::WorkerInfo;
use crate::job::{ActionFacts, Finished, Job, LeaseMessages, Request, Rerun, Shard};
use crate::queue::platform::Requirement;

use super::wire::fields::Garbled;

pub fn encode_job(job: &Job) -> Vec<u8> {
    let digest = |digest: &Digest| {
        Some(events::Digest { hash: digest.hex(), size_bytes: digest.size as i64 })
    };
    let property = |(name, value): &(String, String)| events::Property {
        name: name.clone(),
        value: value.clone(),
    };
    let facts = &job.facts;
    let message = queue::Job {
        instance_name: job.key.instance.to_string(),
        action: digest(&job.key.action),
        digest_function: job.key.action.function.to_wire() as i32,
        command: digest(&facts.command),
        input_root: digest(&facts.input_root),
        platform: facts.platform.pairs().iter().map(property).collect(),
        timeout_ms: facts.timeout_ms,
        do_not_cache: facts.do_not_cache,
        priority: job.priority,
        expected_ms: job.expected_ms,
        request: Some(request_message(&job.request)),
    };
    message.encode_to_vec()
}

fn request_message(request: &Request) -> queue::Request {
    queue::Request {
        metadata: request.metadata_bytes.clone(),
        received_at: request.received_at,
        skip_cache_lookup: request.skip_cache_lookup,
        owner: request.owner.as_deref().map(str::to_owned),
        tools: request.tools.as_deref().map(str::to_owned),
        account: request.account.to_string(),
        base_url: request.base_url.as_deref().unwrap_or_default().to_owned(),
        conditions: request.rerun.as_ref().map(|rerun| rerun.conditions.clone()),
        avoid: request.rerun.as_ref().map(|rerun| rerun.avoid.to_string()).unwrap_or_default(),
        shard: request.shard.as_ref().map(events::Shard::from),
    }
}

pub fn encode_request(request: &Request) -> Vec<u8> {
    request_message(request).encode_to_vec()
}

fn garbled(error: impl ToString) -> Garbled {
    Garbled(error.to_string())
}

pub fn decode_job(bytes: &Bytes) -> Result<Job, Garbled> {
    let message = queue::Job::decode(bytes.clone()).map_err(garbled)?;
    let function = DigestFunction::from_wire(message.digest_function).map_err(garbled)?;
    let digest = |digest: Option<events::Digest>| {
        let digest = digest.ok_or_else(|| garbled("a job without a digest"))?;
        let size = u64::try_from(digest.size_bytes).map_err(garbled)?;
        Digest::from_hex(digest.hash.as_bytes(), size, function).map_err(garbled)
    };
    let platform = message.platform.into_iter().map(|p| (p.name, p.value));
    Ok(Job {
        key: ActionKey { instance: message.instance_name.into(), action: digest(message.action)? },
        facts: ActionFacts {
            command: digest(message.command)?,
            input_root: digest(message.input_root)?,
            platform: Requirement::new(platform),
            timeout_ms: message.timeout_ms,
            do_not_cache: message.do_not_cache,
        },
        priority: message.priority,
        expected_ms: message.expected_ms,
        request: Arc::new(request(message.request.unwrap_or_default())),
        messages: LeaseMessages::default(),
    })
}

pub fn decode_request(bytes: &Bytes) -> Result<Request, Garbled> {
    queue::Request::decode(bytes.clone()).map(request).map_err(garbled)
}

/// Metadata is for people: what cannot be read is as if it were not there.
fn request(message: queue::Request) -> Request {
    Request {
        metadata: reapi::RequestMetadata::decode(message.metadata.clone()).unwrap_or_default(),
        metadata_bytes: message.metadata,
        received_at: message.received_at,
        skip_cache_lookup: message.skip_cache_lookup,
        owner: message.owner.map(Into::into),
        tools: message.tools.map(Into::into),
        account: message.account.into(),
        base_url: Some(message.base_url).filter(|url| !url.is_empty()).map(Into::into),
        rerun: message
            .conditions
            .map(|conditions| Rerun { conditions, avoid: message.avoid.as_str().into() }),
        shard: message.shard.map(|it| Shard {
            number: it.number,
            count: it.count,
            whole: it.whole.unwrap_or_default(),
        }),
    }
}

pub fn encode_answer(answer: &Finished) -> Vec<u8> {
    let message = queue::Answer {
        response: answer.response.clone(),
        code: answer.code,
        message: answer.message.clone(),
        exit_code: answer.exit_code,
        result: answer.result.clone(),
        timeline: Some(answer.timeline),
        worker: answer.worker.to_string(),
        attempts: answer.attempts,
    };
    message.encode_to_vec()
}

pub fn decode_answer(bytes: &Bytes) -> Result<Finished, Garbled> {
    let message = queue::Answer::decode(bytes.clone()).map_err(garbled)?;
    Ok(Finished {
        response: message.response,
        code: message.code,
        message: message.message,
        exit_code: message.exit_code,
        // The event of the execution keeps it, and would keep all of `bytes` with it.
        result: Bytes::copy_from_slice(&message.result),
        timeline: message.timeline.unwrap_or_default(),
        worker: message.worker.into(),
        attempts: message.attempts,
        cancelled: false,
    })
}

pub fn encode_worker(info: WorkerInfo) -> Vec<u8> {
    let WorkerInfo { host_name, version, not_enforced } = info;
    queue::Worker { host_name, version, not_enforced }.encode_to_vec()
}

/// What pages show of a worker, from an encoded `kiln.queue.v1.Worker`; all fields are empty where
/// it cannot be read.
pub fn decode_worker(bytes: &Bytes) -> WorkerInfo {
    let info = queue::Worker::decode(bytes.clone()).unwrap_or_default();
    let queue::Worker { host_name, version, not_enforced } = info;
    WorkerInfo { host_name, version, not_enforced }
}

/// The key by which the queue finds an action in flight: hash, size, digest function and instance.
pub fn encode_key(key: &ActionKey) -> Vec<u8> {
    let mut bytes = key.action.hash.to_vec();
    bytes.extend_from_slice(&key.action.size.to_be_bytes());
    bytes.push(key.action.function.to_wire() as u8);
    bytes.extend_from_slice(key.instance.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_of_an_answer_is_no_part_of_its_bytes() {
        let (response, result) = (Bytes::from_static(b"response"), Bytes::from_static(b"result"));
        let answer = Finished { response, result, ..Finished::default() };
        let bytes = Bytes::from(encode_answer(&answer));
        let Finished { response, result, .. } = decode_answer(&bytes).unwrap();
        assert_eq!((&response, &result), (&answer.response, &answer.result));
        assert!(!bytes.is_unique(), "the response is part of them");
        drop(response);
        assert!(bytes.is_unique());
    }
}
