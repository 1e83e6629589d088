//! Ids of traces and spans, all derived from what they name: the same build has the same trace
//! id on every server, and a link can be made without asking for it.

use kiln_cas::DigestFunction;
use opentelemetry::trace::{SpanId, TraceId};

/// The trace of a build. An invocation id that is a UUID, as Bazel's and Buck2's are, is the
/// trace id itself: whoever has the one can paste it where the other is asked for. Of other
/// invocation ids it is a hash; an execution of no build is a trace of its own.
pub fn trace_id(invocation: &str, execution: &str) -> TraceId {
    uuid(invocation).unwrap_or_else(|| match invocation {
        "" => trace_hash(&["execution", execution]),
        invocation => trace_hash(&["invocation", invocation]),
    })
}

/// A span's id, a hash of what names it.
pub fn span_id(parts: &[&str]) -> SpanId {
    SpanId::from_hex(&hash(parts)[..16]).unwrap_or(SpanId::INVALID)
}

fn trace_hash(parts: &[&str]) -> TraceId {
    TraceId::from_hex(&hash(parts)[..32]).unwrap_or(TraceId::INVALID)
}

fn uuid(text: &str) -> Option<TraceId> {
    let hyphens = [8, 13, 18, 23];
    let shaped = text.len() == 36
        && text.bytes().enumerate().all(|(index, byte)| match hyphens.contains(&index) {
            true => byte == b'-',
            false => byte.is_ascii_hexdigit(),
        });
    let id = shaped.then(|| TraceId::from_hex(&text.replace('-', "")).ok())??;
    (id != TraceId::INVALID).then_some(id)
}

fn hash(parts: &[&str]) -> String {
    DigestFunction::Sha256.digest(parts.join("\0").as_bytes()).hex()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_its_own_trace_id() {
        let id = trace_id("0af76519-16cd-43dd-8448-eb211c80319c", "operation");
        assert_eq!(id.to_string(), "0af7651916cd43dd8448eb211c80319c");
    }

    #[test]
    fn other_ids_are_hashed_and_none_is_invalid() {
        let nil = "00000000-0000-0000-0000-000000000000";
        let ids = [
            trace_id("build 7", "a"),
            trace_id(nil, "a"),
            trace_id("", "a"),
            trace_id("", "b"),
            trace_id("é0000000-0000-0000-0000-00000000000", "a"),
        ];
        for (index, id) in ids.iter().enumerate() {
            assert_ne!(*id, TraceId::INVALID);
            assert!(!ids[..index].contains(id));
        }
        assert_eq!(trace_id("build 7", "a"), trace_id("build 7", "b"));
    }

    #[test]
    fn parts_do_not_run_together() {
        assert_ne!(span_id(&["ab", "c"]), span_id(&["a", "bc"]));
    }
}
