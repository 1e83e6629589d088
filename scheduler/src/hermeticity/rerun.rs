//! One more execution of an action, of which nobody but the check hears: it is not answered from
//! the cache, joins no other execution, and its result is not published.

use std::sync::Arc;

use bytes::Bytes;
use kiln_cas::{ActionKey, Digest};
use kiln_protos::events::Execution;
use kiln_protos::hermeticity::{Applied, Condition, Conditions, NotChanged};
use kiln_protos::reapi;
use prost::Message;

use crate::api::{NotTaken, Stage};
use crate::job::{Job, Request, Rerun, unix_nanos};
use crate::request::read_action;
use crate::shared::Core;

/// Everything else comes first.
const LOWEST_PRIORITY: i32 = i32::MAX;
/// All runs of checks share the workers as one build.
const INVOCATION: &str = "hermeticity-check";
const APPLIED: &str = "type.googleapis.com/kiln.hermeticity.v1.Applied";

/// What can be another for an action.
pub const CONDITIONS: [Condition; 8] = [
    Condition::HostName,
    Condition::ProcessIds,
    Condition::Directory,
    Condition::Clock,
    Condition::Cpus,
    Condition::FileOrder,
    Condition::ModificationTimes,
    Condition::User,
];

/// A run that came to an end.
#[derive(Debug)]
pub struct Ran {
    pub result: reapi::ActionResult,
    pub worker: Arc<str>,
    pub not_changed: Vec<NotChanged>,
}

/// Runs the action of `execution` again with `changed` conditions. Errors: in words, why it did
/// not run to an end.
pub async fn rerun(
    core: &Core,
    execution: &Execution,
    action: Digest,
    changed: &[Condition],
) -> Result<Ran, String> {
    let read = read_action(&core.config, core.parts.blobs.as_ref(), &action).await;
    let mut read = read.map_err(|status| status.message)?;
    // That is what keeps it alone and its result to itself.
    read.facts.do_not_cache = true;
    let metadata = reapi::RequestMetadata {
        tool_invocation_id: INVOCATION.to_owned(),
        target_id: execution.target_id.clone(),
        action_mnemonic: execution.mnemonic.clone(),
        ..Default::default()
    };
    let changed = Conditions { changed: changed.iter().map(|one| *one as i32).collect() };
    let request = Request {
        metadata_bytes: metadata.encode_to_vec().into(),
        metadata,
        received_at: unix_nanos(),
        skip_cache_lookup: true,
        owner: None,
        tools: None,
        account: Arc::default(),
        base_url: None,
        rerun: Some(Rerun {
            conditions: Bytes::from(changed.encode_to_vec()),
            avoid: execution.worker.as_str().into(),
        }),
        shard: None,
    };
    let job = Job {
        key: ActionKey { instance: execution.instance_name.as_str().into(), action },
        messages: core.lease_messages(&read.messages),
        facts: read.facts,
        priority: LOWEST_PRIORITY,
        expected_ms: None,
        request: Arc::new(request),
    };
    let finished = wait(core, job).await?;
    if finished.code != 0 {
        return Err(finished.message.clone());
    }
    let result = reapi::ActionResult::decode(finished.result.clone())
        .map_err(|error| format!("the worker's result is not valid: {error}"))?;
    let applied = applied(&result).ok_or_else(|| {
        format!(
            "worker {} is older than the hermeticity check and changed nothing",
            finished.worker
        )
    })?;
    Ok(Ran { result, worker: finished.worker.clone(), not_changed: applied.not_changed })
}

async fn wait(core: &Core, job: Job) -> Result<Arc<crate::job::Finished>, String> {
    let mut ticket = core.queue.submit(job).await.map_err(|refusal| match refusal {
        NotTaken::Refused(refusal) => format!("the queue takes nothing: {refusal:?}"),
        NotTaken::Unavailable(error) => format!("the queue cannot be asked: {error}"),
    })?;
    loop {
        if let Stage::Done(finished) = ticket.stage() {
            return Ok(finished);
        }
        if ticket.updates.changed().await.is_err() {
            return Err("the server is shutting down".to_owned());
        }
    }
}

fn applied(result: &reapi::ActionResult) -> Option<Applied> {
    let metadata = result.execution_metadata.as_ref()?;
    let any = metadata.auxiliary_metadata.iter().find(|any| any.type_url == APPLIED)?;
    Applied::decode(any.value.as_slice()).ok()
}
