//! What each run of a test left, cached ones too: for the page of a build.

use std::time::Duration;

use kiln_protos::bep::build_event::Payload;
use kiln_protos::bep::build_event_id::{Id, TestResultId};
use kiln_protos::bep::{TestResult, TestStatus};

use super::facts::{FileRef, TargetKey};
use super::wire::{self, KeptEvent};
use crate::attempts::{Slot, cut, name};
use crate::model::Time;

/// Runs of tests that are kept of one build, and files of one run.
const MAX_RUNS: usize = 50_000;
const MAX_FILES: usize = 64;
/// Bytes of what the build tool says of a run.
const MAX_DETAILS: usize = 1024;

/// One attempt at a test, or what a cache answered in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRun {
    pub slot: Slot,
    /// How the attempt ended, in the protocol's words, lower case: `passed`, `timeout`, `failed`, ...
    pub status: String,
    pub is_cached: bool,
    pub strategy: String,
    pub details: String,
    pub started: Option<Time>,
    pub took: Option<Duration>,
    /// `test.log`, `test.xml`, undeclared outputs and whatever else there is.
    pub files: Vec<FileRef>,
}

/// The runs of a build's tests.
#[derive(Clone, Debug, Default)]
pub struct Results {
    /// Attempts in the order in which they came.
    pub runs: Vec<(TargetKey, TestRun)>,
    /// How many attempts there were beyond those that are kept.
    pub left_out: u64,
}

impl Results {
    pub fn apply(&mut self, entry: &KeptEvent) {
        let KeptEvent::Bazel(event) = entry else { return };
        let id = event.id.as_ref().and_then(|id| id.id.as_ref());
        let (Some(Payload::TestResult(result)), Some(Id::TestResult(id))) = (&event.payload, id)
        else {
            return;
        };
        match self.runs.len() {
            0..MAX_RUNS => self.runs.push((key(id), run(id, result))),
            _ => self.left_out += 1,
        }
    }
}

fn key(id: &TestResultId) -> TargetKey {
    TargetKey {
        label: name(&id.label),
        configuration: id.configuration.as_ref().map(|it| name(&it.id)).unwrap_or_default(),
        aspect: String::new(),
    }
}

fn run(id: &TestResultId, result: &TestResult) -> TestRun {
    let number = |it: i32| u32::try_from(it).unwrap_or(0);
    let info = result.execution_info.clone().unwrap_or_default();
    let status = TestStatus::try_from(result.status).unwrap_or(TestStatus::NoStatus);
    TestRun {
        slot: Slot { run: number(id.run), shard: number(id.shard), attempt: number(id.attempt) },
        status: status.as_str_name().to_ascii_lowercase(),
        is_cached: result.cached_locally || info.cached_remotely,
        strategy: name(&info.strategy),
        details: cut(&result.status_details, MAX_DETAILS).to_owned(),
        started: wire::time(
            result.test_attempt_start.as_ref(),
            result.test_attempt_start_millis_epoch,
        ),
        took: wire::duration(
            result.test_attempt_duration.as_ref(),
            result.test_attempt_duration_millis,
        ),
        files: result.test_action_output.iter().take(MAX_FILES).map(wire::file).collect(),
    }
}
