//! What a server says of tests.

use serde_json::Value;

use crate::rig::await_status;
use crate::support::server::get_json;

/// Attempts at a test that clients asked for, in the order of shards and attempts; none where it is not known. Flags
/// of a build make another configuration of it, so it may be listed several times.
pub fn attempts(address: &str, label: &str) -> Vec<Value> {
    let tests = get_json(address, "/api/v1/tests?limit=1000");
    let mut attempts = Vec::new();
    for found in tests["tests"].as_array().unwrap().iter().filter(|it| it["label"] == label) {
        let test = get_json(address, &format!("/api/v1/tests/{}", found["id"].as_str().unwrap()));
        attempts.extend(test["attempts"].as_array().unwrap().iter().cloned());
    }
    // What the server runs again by itself, to judge a failure, is not among them.
    attempts.retain(|it| !it["invocation_id"].as_str().unwrap().starts_with("shadow-"));
    attempts.sort_by_key(|it| (it["shard"].as_u64(), it["attempt"].as_u64()));
    attempts
}

/// The same once there are as many as expected that satisfy a condition: what was executed becomes history
/// a moment later.
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

/// Returns when so many attempts at a test have passed, and no more: what lists show is a moment old.
pub fn await_passed(address: &str, label: &str, count: i64) {
    await_status(address, &format!("{count} passes of {label}"), |_| {
        passed(address, label) == count
    });
}

/// How many attempts at a test passed.
pub fn passed(address: &str, label: &str) -> i64 {
    let tests = get_json(address, "/api/v1/tests?limit=1000");
    let found = tests["tests"].as_array().unwrap().iter().find(|it| it["label"] == label);
    found.map_or(0, |it| it["passed"].as_i64().unwrap())
}
