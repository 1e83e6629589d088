//! A test that fails until a moment and passes from then on.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::bazel::Run;

/// Seconds from now to that moment: the first one that Bazel begins an attempt before. A busy machine takes more
/// than the first. Ten attempts, of which each waits for two seconds, come to the second.
const SLACK: [u64; 3] = [5, 20, 60];

/// Runs the test, with the option that tells it the moment, so that its first attempt fails.
pub fn first_attempt_fails(test: impl Fn(&str) -> Run) -> Run {
    let run = |slack: u64| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        test(&format!("--test_env=READY_AT={}", now + slack))
    };
    let (last, before) = SLACK.split_last().expect("there are some");
    let flaky = before.iter().map(|slack| run(*slack)).find(|run| run.text.contains("FLAKY"));
    flaky.unwrap_or_else(|| run(*last))
}
