//! Builds that go on, so that each becomes one span above those of its actions.
//!
//! A server is never told that a build ends: its span is made when it has been silent for a
//! while. What comes later under the same invocation id gets another such span in the same
//! trace. The ids of those spans are known from the start, so actions can name their parent.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use kiln_protos::events::Execution;
use kiln_scheduler::journal::Counts;
use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanId, Status};
use opentelemetry_sdk::trace::SpanData;

use super::ids::{span_id, trace_id};
use super::spans::{Span, cut};

/// Builds followed at a time; of more, the one that was silent longest ends.
const MAX_BUILDS: usize = 1000;
/// A build that is silent for so long counts as ended.
pub const SILENCE: Duration = Duration::from_secs(120);

#[derive(Default)]
pub struct Builds {
    open: HashMap<String, Build>,
}

struct Build {
    span: SpanId,
    tool: String,
    correlated: String,
    instance: String,
    start: i64,
    end: i64,
    counts: Counts,
    heard: Instant,
}

impl Builds {
    /// Counts the execution to its build. Returns the span of the build and the spans of builds
    /// that ended to make room.
    pub fn note(&mut self, execution: &Execution, now: Instant) -> (SpanId, Vec<SpanData>) {
        if execution.invocation_id.is_empty() {
            return (SpanId::INVALID, Vec::new());
        }
        let timeline = execution.timeline.unwrap_or_default();
        let mut ended = Vec::new();
        if !self.open.contains_key(&execution.invocation_id) {
            if self.open.len() >= MAX_BUILDS {
                ended.extend(self.end_quietest());
            }
            self.open.insert(execution.invocation_id.clone(), Build::new(execution, now));
        }
        let Some(build) = self.open.get_mut(&execution.invocation_id) else {
            return (SpanId::INVALID, ended);
        };
        build.start = build.start.min(timeline.received);
        build.end = build.end.max(timeline.finished);
        build.counts.add(execution);
        build.heard = now;
        (build.span, ended)
    }

    /// Spans of builds that have been silent since before `now` - [`SILENCE`].
    pub fn end_silent(&mut self, now: Instant) -> Vec<SpanData> {
        let silent = |build: &Build| now.saturating_duration_since(build.heard) >= SILENCE;
        self.open
            .extract_if(|_, build| silent(build))
            .map(|(invocation, build)| build.into_span(&invocation))
            .collect()
    }

    pub fn end_all(&mut self) -> Vec<SpanData> {
        self.open.drain().map(|(invocation, build)| build.into_span(&invocation)).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    fn end_quietest(&mut self) -> Option<SpanData> {
        let quietest = self.open.iter().min_by_key(|(_, build)| build.heard)?.0.clone();
        self.open.remove(&quietest).map(|build| build.into_span(&quietest))
    }
}

impl Build {
    fn new(first: &Execution, now: Instant) -> Self {
        let timeline = first.timeline.unwrap_or_default();
        Self {
            span: span_id(&["build", &first.invocation_id, &first.id]),
            tool: cut(format!("{} {}", first.tool_name, first.tool_version).trim()),
            correlated: cut(&first.correlated_invocations_id),
            instance: cut(&first.instance_name),
            start: timeline.received,
            end: timeline.finished,
            counts: Counts::default(),
            heard: now,
        }
    }

    fn into_span(self, invocation: &str) -> SpanData {
        let count = |key, count: u64| KeyValue::new(key, i64::try_from(count).unwrap_or(i64::MAX));
        let mut attributes = vec![
            KeyValue::new("kiln.invocation.id", cut(invocation)),
            count("kiln.build.executed", self.counts.executed),
            count("kiln.build.cached", self.counts.hits),
            count("kiln.build.merged", self.counts.merged),
            count("kiln.build.failed", self.counts.failed),
        ];
        for (key, value) in [
            ("kiln.tool", self.tool),
            ("kiln.invocation.correlated_id", self.correlated),
            ("kiln.instance", self.instance),
        ] {
            if !value.is_empty() {
                attributes.push(KeyValue::new(key, value));
            }
        }
        SpanData::from(Span {
            trace: trace_id(invocation, ""),
            id: self.span,
            parent: SpanId::INVALID,
            name: Cow::Borrowed("build"),
            start: self.start,
            end: self.end,
            attributes,
            status: Status::Unset,
        })
    }
}

#[cfg(test)]
mod tests {
    use kiln_protos::events::{Timeline, execution::Origin};

    use super::*;

    fn execution(invocation: &str, id: &str, received: i64, finished: i64) -> Execution {
        Execution {
            id: id.into(),
            invocation_id: invocation.into(),
            origin: Origin::CacheHit.into(),
            timeline: Some(Timeline { received, finished, ..Timeline::default() }),
            ..Execution::default()
        }
    }

    #[test]
    fn a_build_spans_its_actions_and_ends_when_silent() {
        let (mut builds, start) = (Builds::default(), Instant::now());
        let (first, _) = builds.note(&execution("b", "1", 50, 60), start);
        let (second, _) = builds.note(&execution("b", "2", 40, 55), start + SILENCE / 2);
        assert_eq!(first, second);
        assert!(builds.end_silent(start + SILENCE).is_empty());
        let ended = builds.end_silent(start + SILENCE + SILENCE / 2);
        assert_eq!(ended.len(), 1);
        assert_eq!(ended[0].span_context.span_id(), first);
        assert_eq!(ended[0].end_time.duration_since(ended[0].start_time).unwrap().as_nanos(), 20);
        assert!(ended[0].attributes.contains(&KeyValue::new("kiln.build.cached", 2)));
        assert!(builds.is_empty());

        let (later, _) = builds.note(&execution("b", "3", 90, 95), start + 3 * SILENCE);
        assert_ne!(later, first, "a span is sent once");
    }

    #[test]
    fn what_belongs_to_no_build_is_no_build() {
        let mut builds = Builds::default();
        assert_eq!(builds.note(&execution("", "1", 1, 2), Instant::now()).0, SpanId::INVALID);
        assert!(builds.end_all().is_empty());
    }

    #[test]
    fn the_quietest_build_makes_room() {
        let (mut builds, start) = (Builds::default(), Instant::now());
        for number in 0..MAX_BUILDS {
            let at = start + Duration::from_millis(number as u64);
            assert!(builds.note(&execution(&format!("b{number}"), "1", 1, 2), at).1.is_empty());
        }
        let (_, ended) = builds.note(&execution("more", "1", 1, 2), start + SILENCE);
        assert!(ended[0].attributes.contains(&KeyValue::new("kiln.invocation.id", "b0")));
        assert_eq!(builds.end_all().len(), MAX_BUILDS);
    }
}
