//! From a finished execution to spans.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kiln_protos::events::{Execution, execution::Origin};
use kiln_scheduler::journal::STAGES;
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::ids::{span_id, trace_id};

/// Longest text in a span, in bytes; clients choose targets and mnemonics.
const MAX_TEXT: usize = 1024;

/// A span before it is the library's.
pub struct Span {
    pub trace: TraceId,
    pub id: SpanId,
    /// The parent's id; [`SpanId::INVALID`]: the span has no parent.
    pub parent: SpanId,
    pub name: Cow<'static, str>,
    /// When the span began, in nanoseconds since the Unix epoch.
    pub start: i64,
    pub end: i64,
    pub attributes: Vec<KeyValue>,
    pub status: Status,
}

impl From<Span> for SpanData {
    fn from(span: Span) -> Self {
        Self {
            span_context: SpanContext::new(
                span.trace,
                span.id,
                TraceFlags::SAMPLED,
                false,
                TraceState::NONE,
            ),
            parent_span_id: span.parent,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: span.name,
            start_time: time(span.start),
            end_time: time(span.end.max(span.start)),
            attributes: span.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: span.status,
            instrumentation_scope: InstrumentationScope::builder("kiln").build(),
        }
    }
}

fn time(nanos: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

/// Whether an execution is worth spans of its own: it took time. Cache hits do not.
pub fn is_traced(execution: &Execution) -> bool {
    matches!(execution.origin(), Origin::Executed | Origin::Merged)
}

/// Returns one span for the action and, where a worker ran it for this request, one for each stage.
pub fn action_spans(execution: &Execution, parent: SpanId) -> Vec<SpanData> {
    let timeline = execution.timeline.unwrap_or_default();
    let trace = trace_id(&execution.invocation_id, &execution.id);
    let id = span_id(&["action", &execution.id]);
    let name = match execution.mnemonic.as_str() {
        "" => Cow::Borrowed("action"),
        mnemonic => Cow::Owned(cut(mnemonic)),
    };
    let action = Span {
        trace,
        id,
        parent,
        name,
        start: timeline.received,
        end: timeline.finished,
        attributes: attributes(execution),
        status: status(execution),
    };
    let mut spans = vec![action.into()];
    if execution.origin() != Origin::Executed {
        // The stages are told once, by the request that started the execution.
        return spans;
    }
    spans.extend(STAGES.iter().filter_map(|stage| {
        let (start, end) = stage.span(&timeline)?;
        let name = stage.label();
        Some(SpanData::from(Span {
            trace,
            id: span_id(&["stage", &execution.id, name]),
            parent: id,
            name: Cow::Borrowed(name),
            start,
            end,
            attributes: Vec::new(),
            status: Status::Unset,
        }))
    }));
    spans
}

fn attributes(execution: &Execution) -> Vec<KeyValue> {
    let mut attributes = Vec::new();
    let action = execution.action.clone().unwrap_or_default();
    let texts = [
        ("kiln.action.digest", &format!("{}/{}", action.hash, action.size_bytes)),
        ("kiln.operation", &execution.id),
        ("kiln.instance", &execution.instance_name),
        ("kiln.target", &execution.target_id),
        ("kiln.mnemonic", &execution.mnemonic),
        ("kiln.configuration", &execution.configuration_id),
        ("kiln.invocation.id", &execution.invocation_id),
        ("kiln.invocation.correlated_id", &execution.correlated_invocations_id),
        ("kiln.worker", &execution.worker),
    ];
    for (key, value) in texts {
        if !value.is_empty() {
            attributes.push(KeyValue::new(key, cut(value)));
        }
    }
    let merged = execution.origin() == Origin::Merged;
    attributes.extend([
        KeyValue::new("kiln.origin", if merged { "merged" } else { "executed" }),
        KeyValue::new("kiln.attempts", i64::from(execution.attempts)),
        KeyValue::new("kiln.do_not_cache", execution.do_not_cache),
        KeyValue::new("kiln.status_code", i64::from(execution.status_code)),
    ]);
    if execution.status_code == 0 {
        attributes.push(KeyValue::new("process.exit.code", i64::from(execution.exit_code)));
    }
    attributes
}

fn status(execution: &Execution) -> Status {
    match (execution.status_code, execution.exit_code) {
        (0, 0) => Status::Ok,
        (0, code) => Status::error(format!("exit code {code}")),
        _ => Status::error(cut(&execution.status_message)),
    }
}

/// Cuts a text after the last character that ends within [`MAX_TEXT`] bytes.
pub fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_TEXT)].to_owned()
}

#[cfg(test)]
mod tests {
    use kiln_protos::events::{Digest, Timeline};

    use super::*;

    fn executed() -> Execution {
        Execution {
            id: "op".into(),
            origin: Origin::Executed.into(),
            action: Some(Digest { hash: "ab".into(), size_bytes: 7 }),
            mnemonic: "CppCompile".into(),
            target_id: "//a:b".into(),
            exit_code: 3,
            timeline: Some(Timeline {
                received: 10,
                queued: 20,
                leased: 30,
                run_start: 40,
                run_end: 50,
                finished: 60,
                ..Timeline::default()
            }),
            ..Execution::default()
        }
    }

    fn names(spans: &[SpanData]) -> Vec<&str> {
        spans.iter().map(|span| &*span.name).collect()
    }

    #[test]
    fn stages_are_children_of_the_action() {
        let parent = span_id(&["build"]);
        let spans = action_spans(&executed(), parent);
        assert_eq!(names(&spans), ["CppCompile", "queue", "run"]);
        let action = &spans[0];
        assert_eq!(action.parent_span_id, parent);
        assert_eq!((action.start_time, action.end_time), (time(10), time(60)));
        assert_eq!(action.status, Status::error("exit code 3"));
        for stage in &spans[1..] {
            assert_eq!(stage.parent_span_id, action.span_context.span_id());
            assert_eq!(stage.span_context.trace_id(), action.span_context.trace_id());
        }
        let digest = KeyValue::new("kiln.action.digest", "ab/7");
        assert!(action.attributes.contains(&digest), "{:?}", action.attributes);
        assert!(action.attributes.contains(&KeyValue::new("process.exit.code", 3)));
        assert!(action.attributes.contains(&KeyValue::new("kiln.origin", "executed")));
    }

    #[test]
    fn a_merged_request_has_no_stages_of_its_own() {
        let merged = Execution { origin: Origin::Merged.into(), ..executed() };
        assert_eq!(names(&action_spans(&merged, SpanId::INVALID)), ["CppCompile"]);
        assert!(!is_traced(&Execution { origin: Origin::CacheHit.into(), ..executed() }));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut(&"€".repeat(1000)).len(), 1023);
        assert_eq!(cut("short"), "short");
    }
}
