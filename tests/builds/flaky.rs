//! A test that fails until a moment and passes from then on.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::bazel::Run;

/// Seconds from now until the test begins to pass, one try after the other, until Bazel has begun its first attempt
/// before that moment. A busy machine needs more than the first value. The ten attempts, each of which waits for two
/// seconds, still last until the second.
const SLACK: [u64; 3] = [5, 20, 60];

/// Runs the test with the option that names the moment, so that the test's first attempt fails. Returns the first run
/// that Bazel calls flaky, or else the last run.
pub fn first_attempt_fails(test: impl Fn(&str) -> Run) -> Run {
    let run = |slack: u64| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        test(&format!("--test_env=READY_AT={}", now + slack))
    };
    let (last, before) = SLACK.split_last().expect("there are some");
    let flaky = before.iter().map(|slack| run(*slack)).find(|run| run.text.contains("FLAKY"));
    flaky.unwrap_or_else(|| run(*last))
}
