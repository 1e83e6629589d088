//! Look-ups of action results as events, for clients that say which build they belong to.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::HeaderMap;
use kiln_net::clock::unix_nanos;
use kiln_protos::events::{Begun, Digest, Execution, Timeline, execution::Origin};
use kiln_protos::reapi::ActionResult;
use prost::Message as _;

use super::metadata::from_headers;
use super::wire::take_varint;
use crate::action_cache::ActionKey;
use crate::events::Events;
use crate::{bazel, buck2};

/// Tag of `ActionResult.exit_code`.
const EXIT_CODE: u64 = 4 << 3;

pub struct Hits {
    events: Events,
    /// Makes ids unique between runs of the server.
    started: u64,
    count: AtomicU64,
}

impl Hits {
    pub fn new(events: Events) -> Self {
        Self { events, started: unix_nanos() as u64, count: AtomicU64::new(0) }
    }

    /// No result was found. Does nothing without a `RequestMetadata` header.
    pub fn missed(&self, headers: &HeaderMap, instance: &str) {
        let Some(metadata) = from_headers(headers) else { return };
        let (at, tool) = (unix_nanos(), metadata.tool_details.unwrap_or_default());
        self.events.begin(Begun {
            invocation_id: metadata.tool_invocation_id,
            correlated_invocations_id: metadata.correlated_invocations_id,
            tool_name: tool.tool_name,
            tool_version: tool.tool_version,
            instance_name: instance.to_owned(),
            at,
            last_at: at,
            requests: 0,
            missed: 1,
            mnemonic: metadata.action_mnemonic,
        });
    }

    /// A result was found. Does nothing without a `RequestMetadata` header.
    pub fn publish(&self, headers: &HeaderMap, key: &ActionKey, result: &Bytes) {
        let Some(mut metadata) = from_headers(headers) else { return };
        if metadata.target_id.is_empty()
            && metadata.tool_details.as_ref().is_some_and(|tool| tool.tool_name == "buck2")
            && let Ok(result) = ActionResult::decode(result.clone())
        {
            buck2::complete_hit(&mut metadata, &result);
        }
        if bazel::is_test(&metadata.action_mnemonic)
            && let Ok(result) = ActionResult::decode(result.clone())
            && let Some(name) = bazel::tell_apart(&metadata.action_mnemonic, &result)
        {
            metadata.action_mnemonic = name.to_owned();
        }
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let received = unix_nanos();
        let tool = metadata.tool_details.unwrap_or_default();
        self.events.publish(Execution {
            id: format!("hit-{:x}-{number:x}", self.started),
            instance_name: key.instance.to_string(),
            origin: Origin::CacheHit.into(),
            digest_function: key.action.function.to_wire().into(),
            action: Some(Digest { hash: key.action.hex(), size_bytes: key.action.size as i64 }),
            invocation_id: metadata.tool_invocation_id,
            correlated_invocations_id: metadata.correlated_invocations_id,
            target_id: metadata.target_id,
            mnemonic: metadata.action_mnemonic,
            configuration_id: metadata.configuration_id,
            tool_name: tool.tool_name,
            tool_version: tool.tool_version,
            exit_code: exit_code(result),
            timeline: Some(Timeline { received, finished: received, ..Default::default() }),
            action_result: result.clone(),
            ..Default::default()
        });
    }
}

/// `ActionResult.exit_code` without decoding the rest. What is no valid message counts as 0.
fn exit_code(result: &[u8]) -> i32 {
    find_exit_code(result).unwrap_or(0)
}

fn find_exit_code(mut data: &[u8]) -> Option<i32> {
    let mut code = 0;
    while !data.is_empty() {
        let tag = take_varint(&mut data)?;
        if tag == EXIT_CODE {
            code = take_varint(&mut data)? as i32;
            continue;
        }
        let skip = match tag & 7 {
            0 => {
                take_varint(&mut data)?;
                0
            }
            1 => 8,
            2 => usize::try_from(take_varint(&mut data)?).ok()?,
            5 => 4,
            _ => return None,
        };
        data = data.get(skip..)?;
    }
    Some(code)
}

#[cfg(test)]
mod tests {
    use kiln_protos::reapi::ActionResult;
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    proptest! {
        #[test]
        fn the_exit_code_is_what_prost_decodes(
            exit_code: i32, stdout_raw: Vec<u8>, stderr_raw: Vec<u8>,
        ) {
            let result =
                ActionResult { exit_code, stdout_raw, stderr_raw, ..Default::default() };
            prop_assert_eq!(super::exit_code(&result.encode_to_vec()), exit_code);
        }

        #[test]
        fn arbitrary_bytes_never_panic(data: Vec<u8>) {
            exit_code(&data);
        }
    }
}
