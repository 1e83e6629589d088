//! Shards of tests that their clients cut themselves.

use kiln_protos::reapi::execution_stage::Value as Stage;

use crate::fanout_rig::{report_of_client, run, shard_of_client, variable};
use crate::harness::Kiln;

#[tokio::test]
async fn the_shard_that_is_expected_to_take_longest_runs_first() {
    let kiln = Kiln::start().await;
    let mut worker = kiln.worker("w", 1, &[]).await;
    let mut first = kiln.execute(&kiln.simple().await).await;
    let busy = worker.lease().await;
    let mut clients = Vec::new();
    // Each shard is known to take longer than the one before it.
    for index in 0..4 {
        let mut client = run(&kiln, &shard_of_client(&kiln, index, 4).await).await;
        client.until(Stage::Queued).await;
        clients.push(client);
    }
    worker.succeed(&busy).await;
    assert_eq!(first.status().await.code, 0);
    let mut ran = Vec::new();
    for _ in 0..4 {
        let lease = worker.lease().await;
        ran.push(variable(&kiln, &lease, "TEST_SHARD_INDEX").await.unwrap());
        worker.succeed(&lease).await;
    }
    assert_eq!(ran, ["3", "2", "1", "0"]);
    for client in &mut clients {
        assert_eq!(client.status().await.code, 0);
    }
}

#[tokio::test]
async fn the_report_of_a_test_that_has_run_waits_for_no_test() {
    let kiln = Kiln::start().await;
    let mut worker = kiln.worker("w", 1, &[]).await;
    let mut first = kiln.execute(&kiln.simple().await).await;
    let busy = worker.lease().await;
    let mut clients = Vec::new();
    // The report is of the shard that is known to be the shortest, and it comes last.
    let (long, longer) = (shard_of_client(&kiln, 1, 4).await, shard_of_client(&kiln, 2, 4).await);
    for action in [long, longer, report_of_client(&kiln, 0, 4).await] {
        let mut client = run(&kiln, &action).await;
        client.until(Stage::Queued).await;
        clients.push(client);
    }
    worker.succeed(&busy).await;
    assert_eq!(first.status().await.code, 0);
    let mut ran = Vec::new();
    for _ in 0..3 {
        let lease = worker.lease().await;
        ran.push(variable(&kiln, &lease, "TEST_SHARD_INDEX").await.unwrap());
        worker.succeed(&lease).await;
    }
    assert_eq!(ran, ["0", "2", "1"]);
    for client in &mut clients {
        assert_eq!(client.status().await.code, 0);
    }
}
