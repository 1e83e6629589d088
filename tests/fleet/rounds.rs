//! How many round trips to Redis a fleet needs, counted over all connections of a process.

use std::time::Duration;

use crate::rig::{Fleet, Shared, await_status, count, metric};
use crate::support::bazel::Bazel;
use crate::support::client;
use crate::support::reapi::{Client, Spec};

const ACTIONS: u32 = 40;
/// The most round trips that an executed action and a cached one may cost.
const EXECUTED: f64 = 10.0;
const HIT: f64 = 2.0;
/// The round trips that two frontends make in that time whatever clients do, for heartbeats and the journal.
const BESIDE: f64 = 8.0;
/// The most round trips for an action of a whole build by Bazel. Bazel looks each action up, asks which of its inputs
/// are missing and uploads them, and the worker fetches them at another frontend.
const BUILT: f64 = 14.0;
/// The most round trips for a cached action of such a build, with the download of its outputs and its place on the
/// pages.
const FOUND: f64 = 2.0;
/// The most round trips in a second of a server that has nothing to do. It is the only server, so it looks after the
/// history of tests, judges failures, and asks for rollouts, pipelines and merge queues as well. A run has shown
/// 0.52.
const IDLE: f64 = 0.75;

/// Returns how many round trips the process has made so far. The question itself costs one.
fn round_trips(address: &str) -> f64 {
    metric(address, "kiln_redis_round_trips_total", &[])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_action_costs_ten_round_trips_at_most_a_hit_two_and_idleness_less_than_one_a_second() {
    let Some(shared) = Shared::start() else { return };
    let server = shared.frontend("one");
    let worker = shared.worker("w1", &server.url());
    await_status(&server.address, "the worker", |status| count(status, "/workers") == 1);
    let client = Client::connect(&server.url()).await;
    let spec = |number: u32| Spec::shell(&format!("echo {number} > out; echo log"), &["out"]);
    client.execute(&spec(0)).await.unwrap();

    let mut actions = Vec::new();
    for number in 1..=ACTIONS {
        actions.push(client.prepare(&spec(number)).await);
    }
    let of_each = |trips: f64| (trips - BESIDE).max(0.0) / f64::from(ACTIONS);
    let per_action = |before: f64| of_each(round_trips(&server.address) - before);
    let before = round_trips(&server.address);
    // The actions run one after another, so that no two of them share a round trip.
    for action in &actions {
        let response = client.execute_action(action.clone(), false).await.unwrap();
        assert!(!response.cached_result);
    }
    let executed = per_action(before);
    let before = round_trips(&server.address);
    for action in &actions {
        assert!(client.cached(action).await.is_some());
    }
    let looked_up = per_action(before);
    let before = round_trips(&server.address);
    for action in &actions {
        assert!(client.execute_action(action.clone(), false).await.unwrap().cached_result);
    }
    let hit = per_action(before);
    // By then the server has finished what follows an action: its record and the last writes.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let before = round_trips(&server.address);
    let time = Duration::from_secs(60);
    tokio::time::sleep(time).await;
    // Each of the two readings costs one round trip, and on a busy machine the minute may hold one more renewal.
    let idle = (round_trips(&server.address) - before - 2.0) / time.as_secs_f64();
    // The other server has nothing in memory yet.
    let other = shared.frontend("two");
    let stranger = Client::connect(&other.url()).await;
    let before = round_trips(&other.address);
    for action in &actions {
        assert!(stranger.cached(action).await.is_some());
    }
    let first_look = of_each(round_trips(&other.address) - before);
    println!(
        "round trips: {executed:.2} an executed action, {looked_up:.2} a look-up in memory, \
         {first_look:.2} elsewhere, {hit:.2} a cached execution, {idle:.3} a second when idle"
    );
    assert!(executed <= EXECUTED, "{executed} round trips an executed action");
    assert!(looked_up <= HIT && first_look <= HIT, "{looked_up}, {first_look} a hit");
    assert!(hit <= HIT, "{hit} round trips a cached execution");
    assert!(idle <= IDLE, "{idle} round trips a second");
    drop(worker);
}

#[test]
fn a_build_by_bazel_shares_round_trips() {
    let (Some(binary), Some(fleet)) = (client("KILN_BAZEL"), Fleet::start()) else { return };
    let all = || fleet.frontends.iter().map(|frontend| round_trips(&frontend.address)).sum::<f64>();
    let bazel = Bazel::new(binary, "tests/workspace");
    let before = all();
    let build = bazel
        .remote(&fleet.balancer.address, &["build", "--jobs=100", "//cpp/..."])
        .expect_success();
    let executed = (all() - before - BESIDE) / build.processes("remote") as f64;
    bazel.clean();
    let before = all();
    let again = bazel
        .remote(&fleet.balancer.address, &["build", "--jobs=100", "//cpp/..."])
        .expect_success();
    assert_eq!(again.processes("remote"), 0, "{}", again.text);
    let hit = (all() - before - BESIDE) / again.processes("remote cache hit").max(1) as f64;
    println!("round trips of a build: {executed:.2} an executed action, {hit:.2} a hit");
    assert!(executed <= BUILT, "{executed} round trips an executed action");
    assert!(hit <= FOUND, "{hit} round trips a hit");
}
