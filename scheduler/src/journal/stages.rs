//! The stages of an executed action: the one table of their names, and of where their times are.

use kiln_protos::events::Timeline;
use kiln_protos::protobuf::Timestamp;
use kiln_protos::reapi::ExecutedActionMetadata;

/// A part of an execution's way through the house.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The action waits in the queue until a worker takes it.
    Queue,
    /// The worker fetches what is missing of the input root and lays it out.
    InputFetch,
    Run,
    /// The worker names outputs and stores them.
    Upload,
}

/// All stages in their order, each at its own number.
pub const STAGES: [Stage; 4] = [Stage::Queue, Stage::InputFetch, Stage::Run, Stage::Upload];

impl Stage {
    /// The stage as metrics and traces call it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::InputFetch => "input_fetch",
            Self::Run => "run",
            Self::Upload => "upload",
        }
    }

    /// The stage in words for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::InputFetch => "fetch inputs",
            Self::Run => "run",
            Self::Upload => "upload outputs",
        }
    }

    /// Begin and end in nanoseconds since the Unix epoch; `None`: the stage did not happen, or not to its
    /// end.
    pub fn span(self, timeline: &Timeline) -> Option<(i64, i64)> {
        let (start, end) = match self {
            Self::Queue => (timeline.queued, timeline.leased),
            Self::InputFetch => (timeline.input_fetch_start, timeline.input_fetch_end),
            Self::Run => (timeline.run_start, timeline.run_end),
            Self::Upload => (timeline.upload_start, timeline.upload_end),
        };
        (start > 0 && end >= start).then_some((start, end))
    }

    /// When the stage of a finished execution began and ended, as in `span`; where no worker ever
    /// took the action, it waited in the queue to its end.
    pub fn span_of_finished(self, timeline: &Timeline) -> Option<(i64, i64)> {
        match (self, timeline.leased) {
            (Self::Queue, 0) => self.span(&Timeline { leased: timeline.finished, ..*timeline }),
            _ => self.span(timeline),
        }
    }
}

/// Takes over what the clock of the worker has timed.
pub fn take_worker_times(timeline: &mut Timeline, metadata: &ExecutedActionMetadata) {
    let nanos = |time: &Option<Timestamp>| {
        time.as_ref().map_or(0, |time| {
            time.seconds.saturating_mul(1_000_000_000).saturating_add(time.nanos.into())
        })
    };
    timeline.input_fetch_start = nanos(&metadata.input_fetch_start_timestamp);
    timeline.input_fetch_end = nanos(&metadata.input_fetch_completed_timestamp);
    timeline.run_start = nanos(&metadata.execution_start_timestamp);
    timeline.run_end = nanos(&metadata.execution_completed_timestamp);
    timeline.upload_start = nanos(&metadata.output_upload_start_timestamp);
    timeline.upload_end = nanos(&metadata.output_upload_completed_timestamp);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_worker_had_waited_to_its_end() {
        let waited = Timeline { received: 5, queued: 6, finished: 30, ..Timeline::default() };
        let spans = STAGES.map(|stage| stage.span_of_finished(&waited));
        assert_eq!(spans, [Some((6, 30)), None, None, None]);
        assert_eq!(Stage::Queue.span(&waited), None);
        let hit = Timeline { received: 5, finished: 6, ..Timeline::default() };
        assert!(STAGES.iter().all(|stage| stage.span_of_finished(&hit).is_none()));
    }

    #[test]
    fn each_stage_has_its_own_times() {
        let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
        let metadata = ExecutedActionMetadata {
            input_fetch_start_timestamp: at(3),
            input_fetch_completed_timestamp: at(4),
            execution_start_timestamp: at(5),
            execution_completed_timestamp: at(6),
            output_upload_start_timestamp: at(7),
            output_upload_completed_timestamp: at(8),
            ..Default::default()
        };
        let second = 1_000_000_000;
        let mut timeline = Timeline { queued: second, leased: 2 * second, ..Timeline::default() };
        take_worker_times(&mut timeline, &metadata);
        let spans = STAGES.map(|stage| stage.span(&timeline));
        let expected = [(1, 2), (3, 4), (5, 6), (7, 8)];
        assert_eq!(spans, expected.map(|(start, end)| Some((start * second, end * second))));
        assert_eq!(STAGES.map(|stage| stage as usize), [0, 1, 2, 3]);
    }
}
