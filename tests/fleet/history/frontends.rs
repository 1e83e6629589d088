//! One history of several frontends.

use super::publisher::{Stream, connect};
use super::seen::{attempts, await_attempts, await_passed};
use crate::rig::Shared;
use crate::support::bazel::Bazel;
use crate::support::client;

/// Executes at one frontend and tells another one.
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
    // Its result is in the fleet's cache now, whoever asks.
    bazel.clean();
    bazel.remote(&other.address, &["test", &backend, label]).expect_success();
    assert_eq!(attempts(&one.address, label).len(), 6);
}

/// The same stream at two frontends at once, and again at one of them after the other was killed.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_at_another_frontend() {
    let Some(shared) = Shared::start() else { return };
    let (one, other) = (shared.frontend("one"), shared.frontend("other"));
    let stream = Stream { instance: String::new(), invocation: "both".into(), events: 200 };
    let (first, second) = (connect(&one.address).await, connect(&other.address).await);
    let mut last = 0;
    let (a, b) = tokio::join!(
        stream.send(first, 1, |number| {
            last = number;
            number < 50
        }),
        stream.send(second, 1, |number| number < 200)
    );
    a.unwrap();
    b.unwrap();
    one.kill();
    let mut expected = last + 1;
    let rest = connect(&other.address).await;
    let ended = stream.send(rest, expected, |number| {
        assert_eq!(number, expected);
        expected += 1;
        number < 200
    });
    ended.await.unwrap();
    await_passed(&other.address, &stream.label(), 199);
}
