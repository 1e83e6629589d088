//! Durations of executed actions, split by the stages that they went through.

use std::sync::atomic::{AtomicU64, Ordering};

use kiln_executor::{Failure, Observer};
use kiln_protos::events::{Execution, Timeline, execution::Origin};
use kiln_protos::reapi::ExecuteResponse;
use kiln_scheduler::journal::{STAGES, Stage, between, take_worker_times};
use tonic::Code;

use super::durations::{Durations, Observed};
use super::test_actions::TestActions;

/// How an execution ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// The action ran and exited with another code than 0.
    Failure,
    Timeout,
    Cancelled,
    /// The action could not be run.
    Error,
}

pub const OUTCOMES: [(Outcome, &str); 5] = [
    (Outcome::Success, "success"),
    (Outcome::Failure, "failure"),
    (Outcome::Timeout, "timeout"),
    (Outcome::Cancelled, "cancelled"),
    (Outcome::Error, "error"),
];

impl Outcome {
    pub fn of(execution: &Execution) -> Self {
        Self::new(execution.status_code, execution.exit_code)
    }

    /// The outcome of an action as a worker reports it, for a process that does not see the
    /// execution as a whole.
    fn of_worker(result: &Result<ExecuteResponse, Failure>) -> Self {
        match result {
            Ok(response) => Self::new(
                response.status.as_ref().map_or(0, |status| status.code),
                response.result.as_ref().map_or(0, |result| result.exit_code),
            ),
            Err(Failure::Cancelled | Failure::Refused(_)) => Self::Cancelled,
            Err(_) => Self::Error,
        }
    }

    fn new(status_code: i32, exit_code: i32) -> Self {
        match Code::from_i32(status_code) {
            Code::Ok if exit_code == 0 => Self::Success,
            Code::Ok => Self::Failure,
            Code::DeadlineExceeded => Self::Timeout,
            Code::Cancelled => Self::Cancelled,
            _ => Self::Error,
        }
    }
}

/// Counters over all executed actions.
#[derive(Debug, Default)]
pub struct Stages {
    durations: [Durations; STAGES.len()],
    whole: Durations,
    outcomes: [AtomicU64; OUTCOMES.len()],
    lost: AtomicU64,
    tests: TestActions,
}

impl Stages {
    /// Counts a request for a test, and an execution that a worker ran, with the times of its stages; any other
    /// execution has no stages.
    pub fn note(&self, execution: &Execution) {
        self.tests.note(execution);
        // A whole that was put together of parts is what its parts were.
        let is_together = execution.shard.as_ref().is_some_and(|shard| shard.number == 0);
        if execution.origin() != Origin::Executed || is_together {
            return;
        }
        self.count(Outcome::of(execution));
        let Some(timeline) = &execution.timeline else { return };
        self.observe(timeline);
        if timeline.received > 0 {
            self.whole.observe(between(timeline.received, timeline.finished));
        }
    }

    fn count(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn observe(&self, timeline: &Timeline) {
        for stage in STAGES {
            if let Some((start, end)) = stage.span_of_finished(timeline) {
                self.durations[stage as usize].observe(between(start, end));
            }
        }
    }

    /// Counts `count` events that were lost, because they came faster than they could be taken in.
    pub fn lose(&self, count: u64) {
        self.lost.fetch_add(count, Ordering::Relaxed);
    }

    pub fn stage(&self, stage: Stage) -> Observed {
        let mut observed = Observed::default();
        self.durations[stage as usize].add_to(&mut observed);
        observed
    }

    /// Durations of executions from the client's request to the answer.
    pub fn whole(&self) -> Observed {
        let mut observed = Observed::default();
        self.whole.add_to(&mut observed);
        observed
    }

    /// Counters over requests for tests.
    pub fn tests(&self) -> &TestActions {
        &self.tests
    }

    pub fn outcome(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize].load(Ordering::Relaxed)
    }

    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// The counters of a worker in a process of its own, which hears of no events.
impl Observer for Stages {
    fn ended(&self, result: &Result<ExecuteResponse, Failure>) {
        self.count(Outcome::of_worker(result));
        let result = result.as_ref().ok().and_then(|response| response.result.as_ref());
        if let Some(metadata) = result.and_then(|result| result.execution_metadata.as_ref()) {
            let mut timeline = Timeline::default();
            take_worker_times(&mut timeline, metadata);
            self.observe(&timeline);
        }
    }
}

#[cfg(test)]
mod tests {
    use kiln_protos::protobuf::Timestamp;
    use kiln_protos::reapi::{ActionResult, ExecutedActionMetadata};

    use super::*;

    fn executed(exit_code: i32, status_code: i32) -> Execution {
        Execution {
            origin: Origin::Executed.into(),
            exit_code,
            status_code,
            timeline: Some(Timeline {
                received: 1_000,
                queued: 2_000,
                leased: 3_000_000,
                run_start: 4_000_000,
                run_end: 5_000_000_000,
                finished: 6_000_000_000,
                ..Timeline::default()
            }),
            ..Execution::default()
        }
    }

    #[test]
    fn only_stages_that_happened_are_counted() {
        let stages = Stages::default();
        stages.note(&executed(0, 0));
        stages.note(&Execution { origin: Origin::CacheHit.into(), ..executed(0, 0) });
        assert_eq!(stages.stage(Stage::Queue).count(), 1);
        assert_eq!(stages.stage(Stage::Run).count(), 1);
        assert_eq!(stages.stage(Stage::Upload).count(), 0);
        assert_eq!(stages.stage(Stage::Run).sum_seconds(), 4.996);
        assert_eq!(stages.whole().count(), 1);
    }

    #[test]
    fn what_a_worker_reports_counts_with_the_stages_that_it_timed() {
        let at = |seconds| Some(Timestamp { seconds, nanos: 500_000_000 });
        let metadata = ExecutedActionMetadata {
            queued_timestamp: at(1),
            execution_start_timestamp: at(10),
            execution_completed_timestamp: at(12),
            ..Default::default()
        };
        let result =
            ActionResult { exit_code: 3, execution_metadata: Some(metadata), ..Default::default() };
        let stages = Stages::default();
        stages.ended(&Ok(ExecuteResponse { result: Some(result), ..Default::default() }));
        stages.ended(&Err(Failure::Cancelled));
        stages.ended(&Err(Failure::Infrastructure("no disk".into())));
        for (outcome, count) in [
            (Outcome::Success, 0),
            (Outcome::Failure, 1),
            (Outcome::Cancelled, 1),
            (Outcome::Error, 1),
        ] {
            assert_eq!(stages.outcome(outcome), count, "{outcome:?}");
        }
        assert_eq!(stages.stage(Stage::Run).sum_seconds(), 2.0);
        assert_eq!(stages.stage(Stage::Queue).count(), 0);
        assert_eq!(stages.stage(Stage::Upload).count(), 0);
    }

    #[test]
    fn an_end_is_one_outcome() {
        let stages = Stages::default();
        for (exit_code, status) in [(0, 0), (1, 0), (0, 4), (0, 1), (0, 9)] {
            stages.note(&executed(exit_code, status));
        }
        for (place, (outcome, _)) in OUTCOMES.into_iter().enumerate() {
            assert_eq!(outcome as usize, place);
            assert_eq!(stages.outcome(outcome), 1, "{outcome:?}");
        }
    }
}
