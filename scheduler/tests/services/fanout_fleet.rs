//! Tests that run in parts, when a frontend is lost.

use kiln_protos::reapi::execution_stage::Value as Stage;
use kiln_protos::worker::Lease;

use crate::fanout_rig::{action_of, ended, parts, run, test_action, variable};
use crate::fleet::{SILENCE, quick, two};
use crate::harness::{Kiln, Worker};

/// Returns when a worker, which goes on meanwhile, was told to end these leases, each once.
pub async fn expect_cancelled(worker: &mut Worker, leases: &[&Lease]) {
    let mut cancelled = Vec::new();
    while cancelled.len() < leases.len() {
        tokio::select! {
            lease_id = worker.cancelled() => cancelled.push(lease_id),
            () = tokio::time::sleep(SILENCE / 5) => worker.heartbeat(leases).await,
        }
    }
    cancelled.sort();
    let mut expected: Vec<_> = leases.iter().map(|lease| lease.lease_id.clone()).collect();
    expected.sort();
    assert_eq!(cancelled, expected);
}

#[tokio::test]
async fn a_client_that_executes_again_elsewhere_joins_the_parts_that_run() {
    let (one, other) = two().await;
    let mut worker = other.worker("w", 2, &[]).await;
    let action = test_action(&one, &[("kiln-shards", "2")]).await;
    let mut first = run(&one, &action).await;
    let leases = parts(&one, &mut worker, 2).await;
    first.until(Stage::Executing).await;
    let mut second = run(&other, &action).await;
    second.until(Stage::Executing).await;
    one.scheduler.shutdown();
    worker.answer(&leases[0], ended(&one, 0, &["a"], true).await).await;
    worker.answer(&leases[1], ended(&one, 0, &["b"], true).await).await;
    assert_eq!(second.response().await.result.unwrap().exit_code, 0);
    assert!(other.cached(&action).await);
    assert_eq!(other.snapshot().await.counters.dispatched, 2, "no part ran twice");
}

#[tokio::test]
async fn parts_of_a_frontend_that_is_lost_end() {
    let one = Kiln::with(quick()).await;
    let other = one.beside(quick()).await;
    let mut worker = other.worker("w", 2, &[]).await;
    let action = test_action(&one, &[("kiln-shards", "2")]).await;
    let client = run(&one, &action).await;
    let leases = parts(&one, &mut worker, 2).await;
    one.scheduler.shutdown();
    drop(client);
    expect_cancelled(&mut worker, &[&leases[0], &leases[1]]).await;
    assert_ne!(action_of(&leases[0]), action.to_wire());
    assert!(variable(&other, &leases[0], "KILN_SHARD").await.unwrap().ends_with("/2"));
}
