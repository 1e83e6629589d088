//! What a server's API says of tests.

use serde_json::Value;

use crate::rig::await_status;
use crate::support::server::get_json;

/// Returns the attempts at a test that clients asked for, ordered by shard and attempt, or nothing if the server does
/// not know the test. The flags of a build may make another configuration of the test, which the server lists
/// separately.
pub fn attempts(address: &str, label: &str) -> Vec<Value> {
    let tests = get_json(address, "/api/v1/tests?limit=1000");
    let mut attempts = Vec::new();
    for found in tests["tests"].as_array().unwrap().iter().filter(|it| it["label"] == label) {
        let test = get_json(address, &format!("/api/v1/tests/{}", found["id"].as_str().unwrap()));
        attempts.extend(test["attempts"].as_array().unwrap().iter().cloned());
    }
    // The list leaves out the runs with which the server itself judges a failure.
    attempts.retain(|it| !it["invocation_id"].as_str().unwrap().starts_with("shadow-"));
    attempts.sort_by_key(|it| (it["shard"].as_u64(), it["attempt"].as_u64()));
    attempts
}

/// Waits until there are `count` attempts that all satisfy `is_so`, and returns them. It may take a moment, because
/// executions become history only after they have ended.
pub fn await_attempts(
    address: &str,
    label: &str,
    count: usize,
    is_so: impl Fn(&Value) -> bool,
) -> Vec<Value> {
    await_status(address, &format!("{count} attempts at {label}"), |_| {
        let attempts = attempts(address, label);
        attempts.len() == count && attempts.iter().all(&is_so)
    });
    attempts(address, label)
}

pub fn texts<'a>(attempts: &'a [Value], field: &str) -> Vec<&'a str> {
    attempts.iter().map(|it| it[field].as_str().unwrap_or_default()).collect()
}

/// Waits until exactly `count` attempts at a test have passed, because the server's lists are a moment old.
pub fn await_passed(address: &str, label: &str, count: i64) {
    await_status(address, &format!("{count} passes of {label}"), |_| {
        passed(address, label) == count
    });
}

/// Returns how many attempts at a test have passed, or 0 if the server does not know the test.
pub fn passed(address: &str, label: &str) -> i64 {
    let tests = get_json(address, "/api/v1/tests?limit=1000");
    let found = tests["tests"].as_array().unwrap().iter().find(|it| it["label"] == label);
    found.map_or(0, |it| it["passed"].as_i64().unwrap())
}
