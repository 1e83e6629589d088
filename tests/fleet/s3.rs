//! Builds on an S3 whose requests fail.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use kiln_test_servers::proxy::{Fault, Proxy};

use crate::rig::{Shared, metric};
use crate::support::bazel::{Bazel, Run};
use crate::support::client;

/// Starts a fleet's services, with a proxy through which it reaches S3.
fn proxied() -> Option<(Shared, Proxy)> {
    let mut shared = Shared::start()?;
    let proxy = Proxy::start(&shared.weed.address());
    shared.endpoint = proxy.endpoint();
    Some((shared, proxy))
}

#[test]
fn one_server_with_workers_builds_while_s3_fails_in_bursts() {
    let (Some(binary), Some((shared, proxy))) = (client("KILN_BAZEL"), proxied()) else { return };
    // One request in five fails: S3 asks to slow down, reports an error, or breaks off the answer, in turn.
    proxy.plan(|request| match request.number % 15 {
        2 => Some(Fault::Status(503, "SlowDown")),
        7 => Some(Fault::Status(500, "InternalError")),
        12 => Some(Fault::Truncate(100)),
        _ => None,
    });
    let server = shared.serve("alone", &[]);
    let bazel = Bazel::new(binary, "tests/workspace");
    bazel.remote(&server.address, &["build", "//cpp/..."]).expect_success();
    bazel.clean();
    let again = bazel.remote(&server.address, &["build", "//cpp/..."]).expect_success();
    assert_eq!(again.processes("remote"), 0, "{}", again.text);
    assert!(proxy.log().len() > 15, "S3 was used");
}

#[test]
fn a_build_waits_while_s3_is_down_for_ten_seconds() {
    let (Some(binary), Some((shared, proxy))) = (client("KILN_BAZEL"), proxied()) else { return };
    let server = shared.serve("alone", &[]);
    let bazel = Bazel::new(binary, "tests/workspace");
    // S3 goes down at the twentieth request.
    let mut down_since: Option<Instant> = None;
    proxy.plan(move |request| {
        if request.number < 20 {
            return None;
        }
        let since = *down_since.get_or_insert_with(Instant::now);
        (since.elapsed() < Duration::from_secs(10)).then_some(Fault::Hangup)
    });
    let arguments = ["build", "--remote_retries=20", "//cpp/..."];
    bazel.remote(&server.address, &arguments).expect_success();
    assert!(metric(&server.address, "kiln_s3_answers_total", &[("outcome", "unanswered")]) > 5.0);
    bazel.clean();
    let again = bazel.remote(&server.address, &["build", "//cpp/..."]).expect_success();
    assert_eq!(again.processes("remote"), 0, "{}", again.text);
}

#[test]
fn a_build_finishes_while_s3_answers_now_and_then() {
    let (Some(binary), Some((shared, proxy))) = (client("KILN_BAZEL"), proxied()) else { return };
    let server = shared.serve("alone", &[]);
    let bazel = Bazel::new(binary, "tests/workspace");
    // S3 is gone for twelve seconds and there for two, again and again, and the build must not notice.
    let begun = Instant::now();
    proxy.plan(move |_| (begun.elapsed().as_secs() % 14 < 12).then_some(Fault::Hangup));
    bazel.remote(&server.address, &["build", "//paths/...", "//links/..."]).expect_success();
    bazel.clean();
    let again =
        bazel.remote(&server.address, &["build", "//paths/...", "//links/..."]).expect_success();
    assert_eq!(again.processes("remote"), 0, "{}", again.text);
}

#[test]
fn a_build_that_s3_fails_for_good_ends_with_the_reason() {
    let (Some(binary), Some((shared, proxy))) = (client("KILN_BAZEL"), proxied()) else { return };
    let mut command = shared.command("alone", &[]);
    command.env("KILN_S3_TIMEOUT", "1s");
    let server = shared.spawn(command, "alone");
    proxy.plan(|_| Some(Fault::Status(500, "InternalError")));
    let bazel = Bazel::new(binary, "tests/workspace");
    let begun = Instant::now();
    let arguments = ["build", "--remote_retries=1", "//paths:long_output"];
    let run = Run::of(bazel.start_remote(&server.address, &arguments).wait_with_output().unwrap());
    assert_ne!(run.code, 0, "{}", run.text);
    assert!(run.text.contains("S3") && run.text.contains("InternalError"), "{}", run.text);
    assert!(begun.elapsed() < Duration::from_secs(100), "it took {:?}", begun.elapsed());
    // When S3 is back, the server takes nothing of the failed build for a result.
    proxy.heal();
    let run = bazel.remote(&server.address, &["build", "//paths:long_output"]).expect_success();
    assert_eq!(run.processes("remote"), 1, "{}", run.text);
}

#[test]
fn a_slow_s3_costs_time_only() {
    let (Some(binary), Some((shared, proxy))) = (client("KILN_BAZEL"), proxied()) else { return };
    let server = shared.serve("alone", &[]);
    proxy.plan(|_| Some(Fault::Delay(Duration::from_millis(300))));
    let bazel = Bazel::new(binary, "tests/workspace");
    let build = ["build", "//paths/...", "//links/..."];
    bazel.remote(&server.address, &build).expect_success();
    bazel.clean();
    let again = bazel.remote(&server.address, &build).expect_success();
    assert_eq!(again.processes("remote"), 0, "{}", again.text);
}

#[test]
fn bodies_that_break_off_on_their_way_to_s3_or_back_are_sent_again() {
    let (Some(binary), Some((shared, proxy))) = (client("KILN_BAZEL"), proxied()) else { return };
    // The fault meets the first request for each third object. If it went by the number alone, a request that is
    // repeated in step with others could meet the fault each time.
    let mut seen = HashSet::new();
    proxy.plan(move |request| {
        let is_new = seen.insert((request.method.clone(), request.path.clone()));
        match (request.method.as_str(), is_new && seen.len().is_multiple_of(3)) {
            ("PUT", true) => Some(Fault::CutRequest(100)),
            ("GET", true) => Some(Fault::Truncate(100)),
            _ => None,
        }
    });
    let writer = shared.serve("writer", &[]);
    let bazel = Bazel::new(binary, "tests/workspace");
    let build = ["build", "//cpp:all", "//links/..."];
    bazel.remote(&writer.address, &build).expect_success();
    assert!(writer.terminate().success(), "what is written behind could not be written");
    // Redis forgets its small blobs, so everything comes from S3 to an empty disk.
    let forget = "for _, key in ipairs(redis.call('KEYS', '*:s*')) do \
         if redis.call('TYPE', key).ok == 'string' then redis.call('DEL', key) end end";
    shared.redis.command(&["EVAL", forget, "0"]);
    let reader = shared.serve("reader", &["--workers", "0"]);
    bazel.clean();
    let again = bazel.remote(&reader.address, &build).expect_success();
    assert_eq!(again.processes("remote"), 0, "{}", again.text);
    assert!(metric(&reader.address, "kiln_s3_requests_total", &[("method", "GET")]) > 5.0);
}
