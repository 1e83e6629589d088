//! Attempts at tests, as build events tell of them.

use std::time::Duration;

use kiln_protos::bep::build_event_id::TestResultId;
use kiln_protos::bep::test_result::ExecutionInfo;
use kiln_protos::bep::test_result::execution_info::TimingBreakdown;
use kiln_protos::bep::{TestResult, TestStatus};

use super::facts::FileRef;
use super::wire;
use crate::attempts::{Attempt, Known, Slot, name};
use crate::model::{Outcome, TestKey};

/// Children of a timing that are looked at; there are some ten.
const MAX_TIMINGS: usize = 64;

/// An attempt with what it left behind.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub attempt: Attempt,
    /// The report that has the attempt's cases; `None`: there is none.
    pub report: Option<FileRef>,
}

/// Why a result is no attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAttempt {
    /// The run was made for another build, and the result says how long it took there.
    Cached,
    /// The test did not run.
    DidNotRun,
}

pub fn told(
    instance: &str,
    invocation: &str,
    id: &TestResultId,
    result: &TestResult,
) -> Result<Told, NoAttempt> {
    let info = result.execution_info.clone().unwrap_or_default();
    if is_cached(result, &info) {
        return Err(NoAttempt::Cached);
    }
    let outcome = outcome(result.status()).ok_or(NoAttempt::DidNotRun)?;
    let configuration = id.configuration.as_ref().map_or("", |it| it.id.as_str());
    let test = TestKey {
        instance: name(instance),
        label: name(&id.label),
        configuration: name(configuration),
    };
    let number = |it: i32| u32::try_from(it).unwrap_or(0).max(1);
    let slot = Slot { run: number(id.run), shard: number(id.shard), attempt: number(id.attempt) };
    let files: Vec<FileRef> = result.test_action_output.iter().map(wire::file).collect();
    let file = |wanted: &str| files.iter().find(|it| it.name == wanted).cloned();
    let started =
        wire::time(result.test_attempt_start.as_ref(), result.test_attempt_start_millis_epoch);
    let whole =
        wire::duration(result.test_attempt_duration.as_ref(), result.test_attempt_duration_millis);
    let timings = info.timing_breakdown.as_ref();
    let ran = timings.and_then(|it| part(it, &["executionWallTime"])).filter(|it| !it.is_zero());
    let failed = matches!(outcome, Outcome::Failed | Outcome::TimedOut);
    let attempt = Attempt {
        outcome,
        started: started.unwrap_or_default(),
        // Without the times of a worker the whole includes waiting for one.
        duration: ran.or(whole),
        set_up: timings.and_then(|it| part(it, &["fetchTime", "setupTime"])),
        worker: name(&info.hostname),
        strategy: name(&info.strategy),
        log: file("test.log").and_then(|it| it.blob).filter(|_| failed),
        ..Attempt::new(test, invocation, slot, Known::REPORTED)
    };
    Ok(Told { attempt, report: file("test.xml") })
}

fn is_cached(result: &TestResult, info: &ExecutionInfo) -> bool {
    result.cached_locally || info.cached_remotely || info.strategy.ends_with("cache hit")
}

/// What was interrupted, or lost with its machine, says nothing about the test.
fn outcome(status: TestStatus) -> Option<Outcome> {
    match status {
        TestStatus::Passed | TestStatus::Flaky => Some(Outcome::Passed),
        TestStatus::Timeout => Some(Outcome::TimedOut),
        TestStatus::Failed => Some(Outcome::Failed),
        TestStatus::Incomplete | TestStatus::RemoteFailure => Some(Outcome::Infrastructure),
        TestStatus::NoStatus | TestStatus::FailedToBuild | TestStatus::ToolHaltedBeforeTesting => {
            None
        }
    }
}

fn part(timing: &TimingBreakdown, names: &[&str]) -> Option<Duration> {
    let children = timing.child.iter().take(MAX_TIMINGS);
    let named = children.filter(|it| names.contains(&it.name.as_str()));
    named.fold(None, |sum, it| {
        let own = wire::duration(it.time.as_ref(), it.time_millis).unwrap_or_default();
        Some(sum.unwrap_or(Duration::ZERO).saturating_add(own))
    })
}

#[cfg(test)]
mod tests {
    use kiln_protos::bep::build_event_id::ConfigurationId;
    use kiln_protos::{bep, protobuf};

    use super::*;
    use crate::model::Time;

    fn id() -> TestResultId {
        let configuration = Some(ConfigurationId { id: "cfg".into() });
        TestResultId { label: "//a:t".into(), run: 1, shard: 2, attempt: 3, configuration }
    }

    fn file(name: &str) -> bep::File {
        let uri = format!("bytestream://h/blobs/{}/9", "ab".repeat(32));
        bep::File { name: name.into(), file: Some(bep::file::File::Uri(uri)), ..Default::default() }
    }

    fn result(status: TestStatus) -> TestResult {
        TestResult {
            status: status.into(),
            test_action_output: vec![file("test.log"), file("test.xml")],
            test_attempt_duration_millis: 900,
            test_attempt_start_millis_epoch: 5000,
            execution_info: Some(ExecutionInfo { strategy: "remote".into(), ..Default::default() }),
            ..Default::default()
        }
    }

    #[test]
    fn an_attempt_is_told_in_old_and_new_fields() {
        let it = told("main", "i", &id(), &result(TestStatus::Failed)).unwrap();
        let attempt = &it.attempt;
        assert_eq!(attempt.slot, Slot { run: 1, shard: 2, attempt: 3 });
        assert_eq!((attempt.outcome, attempt.started), (Outcome::Failed, Time(5000)));
        assert_eq!(attempt.duration, Some(Duration::from_millis(900)));
        assert!(attempt.log.is_some() && it.report.unwrap().blob.is_some());
        let newer = TestResult {
            test_attempt_start: Some(protobuf::Timestamp { seconds: 6, nanos: 0 }),
            test_attempt_duration: Some(protobuf::Duration { seconds: 2, nanos: 0 }),
            ..result(TestStatus::Passed)
        };
        let newer = told("main", "i", &id(), &newer).unwrap().attempt;
        assert_eq!((newer.started, newer.duration), (Time(6000), Some(Duration::from_secs(2))));
        assert_eq!(newer.log, None);
    }

    #[test]
    fn waiting_for_a_worker_is_no_duration_of_the_test() {
        let child = |name: &str, time_millis| TimingBreakdown {
            name: name.into(),
            time_millis,
            ..Default::default()
        };
        let timing = TimingBreakdown {
            child: vec![
                child("queueTime", 700),
                child("fetchTime", 20),
                child("setupTime", 30),
                child("executionWallTime", 100),
            ],
            ..child("totalTime", 900)
        };
        let info = ExecutionInfo { timing_breakdown: Some(timing), ..Default::default() };
        let it = TestResult { execution_info: Some(info), ..result(TestStatus::Passed) };
        let it = told("", "i", &id(), &it).unwrap().attempt;
        let millis = |it: Option<Duration>| it.map(|it| it.as_millis());
        assert_eq!((millis(it.duration), millis(it.set_up)), (Some(100), Some(50)));
    }

    #[test]
    fn what_was_cached_or_did_not_run_is_none() {
        let no = |result: &TestResult| told("", "i", &id(), result).unwrap_err();
        let local = TestResult { cached_locally: true, ..result(TestStatus::Passed) };
        assert_eq!(no(&local), NoAttempt::Cached);
        for info in [
            ExecutionInfo { cached_remotely: true, ..Default::default() },
            ExecutionInfo { strategy: "remote cache hit".into(), ..Default::default() },
        ] {
            let it = TestResult { execution_info: Some(info), ..result(TestStatus::Passed) };
            assert_eq!(no(&it), NoAttempt::Cached);
        }
        assert_eq!(no(&result(TestStatus::NoStatus)), NoAttempt::DidNotRun);
        assert_eq!(no(&result(TestStatus::FailedToBuild)), NoAttempt::DidNotRun);
        let unknown = TestResult { status: 99, ..result(TestStatus::Passed) };
        assert_eq!(no(&unknown), NoAttempt::DidNotRun);
        let lost = told("", "i", &id(), &result(TestStatus::RemoteFailure)).unwrap().attempt;
        assert_eq!(lost.outcome, Outcome::Infrastructure);
    }
}
