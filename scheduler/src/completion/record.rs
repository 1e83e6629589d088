//! One request's end as the event that subscribers hear of.

use kiln_cas::bazel;
use kiln_protos::events::{self, Execution, execution::Origin};
use kiln_protos::reapi;
use prost::Message;

use crate::job::{ActionFacts, Finished, Request};

/// What is known at the end of one request, from which its event is made.
pub struct Record<'a> {
    pub id: String,
    pub key: &'a kiln_cas::ActionKey,
    pub facts: &'a ActionFacts,
    pub request: &'a Request,
    pub origin: Origin,
    pub expected_ms: u64,
    pub finished: &'a Finished,
    /// Set where the result was put together from parts that ran as jobs of their own.
    pub together: Option<Together>,
}

/// From how many parts a whole was put together, and how long they ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Together {
    /// The number of parts.
    pub count: u32,
    /// Nanoseconds that the parts ran, in sum.
    pub run_ns: u64,
}

impl Record<'_> {
    pub(crate) fn into_event(self) -> Execution {
        let Self { key, facts, request, finished, .. } = self;
        let shard = shard(request, self.together);
        let metadata = &request.metadata;
        let tool = metadata.tool_details.clone().unwrap_or_default();
        let mut timeline = finished.timeline;
        timeline.received = request.received_at;
        let property = |(name, value): &(String, String)| events::Property {
            name: name.clone(),
            value: value.clone(),
        };
        Execution {
            id: self.id,
            instance_name: key.instance.to_string(),
            origin: self.origin as i32,
            digest_function: key.action.function.to_wire() as i32,
            action: Some(event_digest(&key.action)),
            command: Some(event_digest(&facts.command)),
            input_root: Some(event_digest(&facts.input_root)),
            invocation_id: metadata.tool_invocation_id.clone(),
            correlated_invocations_id: metadata.correlated_invocations_id.clone(),
            target_id: metadata.target_id.clone(),
            mnemonic: mnemonic(metadata, finished),
            configuration_id: metadata.configuration_id.clone(),
            tool_name: tool.tool_name,
            tool_version: tool.tool_version,
            worker: finished.worker.to_string(),
            attempts: finished.attempts,
            status_code: finished.code,
            status_message: finished.message.clone(),
            exit_code: finished.exit_code,
            timeline: Some(timeline),
            action_result: finished.result.clone(),
            do_not_cache: facts.do_not_cache,
            skip_cache_lookup: request.skip_cache_lookup,
            platform: facts.platform.pairs().iter().map(property).collect(),
            expected_ms: self.expected_ms,
            cancelled: finished.cancelled,
            shard,
        }
    }
}

/// The event's shard: of which whole the request is a part, or of how many parts it is the whole.
/// `None`: neither.
fn shard(request: &Request, together: Option<Together>) -> Option<events::Shard> {
    let part = request.shard.as_ref().map(events::Shard::from);
    let whole =
        |Together { count, run_ns }| events::Shard { number: 0, count, whole: None, run_ns };
    part.or_else(|| together.map(whole))
}

/// The action's mnemonic as the client names it, but for Bazel's tests, where one name stands for
/// two kinds of actions that are told apart by their results.
fn mnemonic(metadata: &reapi::RequestMetadata, finished: &Finished) -> String {
    let given = &metadata.action_mnemonic;
    let told_apart = || {
        let result = reapi::ActionResult::decode(finished.result.clone()).ok()?;
        bazel::tell_apart(given, &result)
    };
    let found = if bazel::is_test(given) { told_apart() } else { None };
    found.map_or_else(|| given.clone(), str::to_owned)
}

pub(crate) fn event_digest(digest: &kiln_cas::Digest) -> events::Digest {
    events::Digest { hash: digest.hex(), size_bytes: digest.size as i64 }
}
