//! Bazel splits tests into shards, and the server decides from the durations that it remembers which shard runs
//! first.

use crate::support;

use std::time::{Duration, Instant};

use kiln_protos::reapi::{self, command::EnvironmentVariable};
use serde_json::Value;
use support::reapi::{Client, Spec};
use support::server::{Server, get_json};
use tokio::task::JoinHandle;

const WITHIN: Duration = Duration::from_secs(60);
const SHARDS: usize = 3;

type Running = JoinHandle<Result<reapi::ExecuteResponse, tonic::Status>>;

/// Makes a shard that takes longer than the one with the next lower index.
fn shard(index: usize) -> Spec {
    let mut spec = Spec::shell(&format!("sleep 0.{}", 1 + 3 * index), &[]);
    let (index, count) = (index.to_string(), SHARDS.to_string());
    let variables = [
        ("TEST_SHARD_INDEX", index.as_str()),
        ("TEST_TARGET", "//a:t"),
        ("TEST_TOTAL_SHARDS", count.as_str()),
        ("XML_OUTPUT_FILE", "test.xml"),
    ];
    let variable = |(name, value): &(&str, &str)| EnvironmentVariable {
        name: (*name).to_owned(),
        value: (*value).to_owned(),
    };
    spec.command.environment_variables = variables.iter().map(variable).collect();
    spec.do_not_cache = true;
    spec
}

async fn run(client: Client, index: usize) -> Result<reapi::ExecuteResponse, tonic::Status> {
    let metadata = reapi::RequestMetadata {
        tool_invocation_id: "build".to_owned(),
        action_mnemonic: "TestRunner".to_owned(),
        target_id: "//a:t".to_owned(),
        configuration_id: "k8".to_owned(),
        ..Default::default()
    };
    let action = client.prepare(&shard(index)).await;
    client.execute_with(action, &metadata).await
}

async fn await_queue(server: &Server, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + WITHIN;
    loop {
        let queue = get_json(&server.address, "/api/v1/queue");
        if condition(&queue) {
            return queue;
        }
        assert!(Instant::now() < deadline, "{what} did not happen: {queue:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Queues all shards. Returns for each the duration in milliseconds that the server expects, and the calls that wait
/// for the shards.
async fn queued(server: &Server, client: &Client) -> (Vec<u64>, Vec<Running>) {
    let (mut expected, mut running) = (Vec::new(), Vec::new());
    let mut seen = Vec::new();
    for index in 0..SHARDS {
        running.push(tokio::spawn(run(client.clone(), index)));
        let waits = |queue: &Value| queue["queue_depth"] == index + 1;
        let queue = await_queue(server, "a shard that waits", waits).await;
        let mut all = queue["queued"].as_array().expect("a list").iter();
        let newest = all.find(|it| !seen.contains(&it["name"])).expect("one that waits");
        seen.push(newest["name"].clone());
        expected.push(newest["expected_ms"].as_u64().unwrap_or(0));
    }
    (expected, running)
}

fn began(response: &reapi::ExecuteResponse) -> (i64, i32) {
    let metadata = response.result.as_ref().and_then(|it| it.execution_metadata.as_ref());
    let began = metadata.and_then(|it| it.execution_start_timestamp.as_ref()).expect("it ran");
    (began.seconds, began.nanos)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shard_that_took_longest_runs_first_the_next_time() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(data.path(), &["--workers", "1"]);
    let client = Client::connect(&server.url()).await;
    for index in 0..SHARDS {
        let response = run(client.clone(), index).await.expect("an answer");
        assert_eq!(response.result.map(|it| it.exit_code), Some(0));
    }
    let mut long = Spec::shell("sleep 60", &[]);
    long.do_not_cache = true;
    let busy = {
        let client = client.clone();
        tokio::spawn(async move { client.execute(&long).await })
    };
    await_queue(&server, "the long action", |queue| queue["running_count"] == 1).await;
    // The server writes and looks up durations in the background, so the test asks until all of them are known.
    let deadline = Instant::now() + WITHIN;
    let running = loop {
        let (expected, running) = queued(&server, &client).await;
        if expected[0] < expected[1] && expected[1] < expected[2] {
            break running;
        }
        assert!(Instant::now() < deadline, "what each took is not known: {expected:?}");
        running.iter().for_each(JoinHandle::abort);
        await_queue(&server, "an empty queue", |queue| queue["queue_depth"] == 0).await;
    };
    busy.abort();
    let mut order = Vec::new();
    for (index, running) in running.into_iter().enumerate() {
        let response = running.await.expect("it ends").expect("an answer");
        order.push((began(&response), index));
    }
    order.sort_unstable();
    assert_eq!(order.iter().map(|it| it.1).collect::<Vec<_>>(), [2, 1, 0]);
}
