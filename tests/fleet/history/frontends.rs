//! Several frontends share one history.

use std::time::{Duration, Instant};

use tonic::Code;

use super::publisher::{Stream, connect};
use super::seen::{attempts, await_attempts, await_passed};
use crate::rig::Shared;
use crate::support::bazel::Bazel;
use crate::support::client;

/// How long a client goes on trying, and how long it pauses between two attempts.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);

/// Bazel executes at one frontend and sends its build events to another one.
#[test]
fn what_one_frontend_executes_and_another_hears_of_is_one_attempt_at_both() {
    let (Some(binary), Some(shared)) = (client("KILN_BAZEL"), Shared::start()) else { return };
    let (one, other) = (shared.serve("one", &["--workers", "2"]), shared.frontend("other"));
    let bazel = Bazel::new(binary, "tests/workspace");
    let backend = format!("--bes_backend=grpc://{}", other.address);
    let label = "//flaky:sharded_test";
    bazel.remote(&one.address, &["test", &backend, label]).expect_success();
    for frontend in [&one, &other] {
        await_attempts(&frontend.address, label, 6, |it| it["source"] == "executed+reported");
    }
    // The result is in the fleet's cache now, so the other frontend answers from there.
    bazel.clean();
    bazel.remote(&other.address, &["test", &backend, label]).expect_success();
    assert_eq!(attempts(&one.address, label).len(), 6);
}

/// The same stream goes to two frontends at once. It goes on at one of them after the other was killed, and after
/// Redis and S3 were killed while the stream was written.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_at_another_frontend_and_outlives_redis_and_s3() {
    let Some(mut shared) = Shared::start() else { return };
    let (one, other) = (shared.frontend("one"), shared.frontend("other"));
    let stream = Stream { instance: String::new(), invocation: "both".into(), events: 200 };
    let (first, second) = (connect(&one.address).await, connect(&other.address).await);
    let mut last = 0;
    let (a, b) = tokio::join!(
        stream.send(first, 1, |number| {
            last = number;
            number < 50
        }),
        stream.send(second, 1, |number| number < 120)
    );
    a.unwrap();
    b.unwrap();
    one.kill();
    // The other frontend has received events that it has not acknowledged, and is writing them.
    tokio::task::block_in_place(|| {
        shared.redis.restart();
        shared.weed.restart();
    });
    let (mut expected, deadline) = (last + 1, Instant::now() + PATIENCE);
    while expected <= 200 {
        let rest = connect(&other.address).await;
        let ended = stream.send(rest, expected, |number| {
            assert_eq!(number, expected);
            expected += 1;
            number < 200
        });
        if let Err(status) = ended.await {
            // Clients try again after a pause when a server is unavailable, so the test does so, too.
            assert!(status.code() == Code::Unavailable && Instant::now() < deadline, "{status}");
            tokio::time::sleep(PAUSE).await;
        }
    }
    await_passed(&other.address, &stream.label(), 199);
}
