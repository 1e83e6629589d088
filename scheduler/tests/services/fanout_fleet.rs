//! Tests that run in parts, when a frontend is lost.

use kiln_protos::reapi::execution_stage::Value as Stage;
use kiln_protos::worker::scheduler_message;

use crate::fanout_rig::{action_of, ended, parts, run, test_action, variable};
use crate::fleet::{SILENCE, quick, two};
use crate::harness::Kiln;

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
    let mut cancelled = Vec::new();
    while cancelled.len() < 2 {
        tokio::select! {
            message = worker.next() => match message {
                Some(scheduler_message::Kind::Cancel(cancel)) => cancelled.push(cancel.lease_id),
                other => panic!("not a cancellation: {other:?}"),
            },
            () = tokio::time::sleep(SILENCE / 5) => worker.heartbeat(&[&leases[0], &leases[1]]).await,
        }
    }
    cancelled.sort();
    let mut expected = [leases[0].lease_id.clone(), leases[1].lease_id.clone()];
    expected.sort();
    assert_eq!(cancelled, expected);
    assert_ne!(action_of(&leases[0]), action.to_wire());
    assert!(variable(&other, &leases[0], "KILN_SHARD").await.unwrap().ends_with("/2"));
}
