//! Parts of tests that are slow.

use std::time::Duration;

use kiln_cas::{Digest, DigestFunction};
use kiln_protos::worker::worker_failure;
use kiln_scheduler::SchedulerConfig;
use kiln_scheduler::fanout::Hedge;

use crate::fanout_rig::{action_of, ended_after, parts, run, run_again, test_action};
use crate::harness::{Kiln, failure};

#[tokio::test]
async fn a_slow_part_runs_a_second_time_and_the_first_answer_counts() {
    let hedge = Hedge { factor: 1.0, least: Duration::ZERO, look: Duration::from_millis(10) };
    let mut kiln = Kiln::with(SchedulerConfig { hedge, ..SchedulerConfig::default() }).await;
    let mut worker = kiln.worker("w", 3, &[]).await;
    let action = test_action(&kiln, &[("kiln-shards", "2")]).await;
    // Nothing is known of the first run, so that none of its parts is slow.
    let mut client = run(&kiln, &action).await;
    let leases = parts(&kiln, &mut worker, 2).await;
    for (lease, case) in leases.iter().zip(["a", "b"]) {
        worker.answer(lease, ended_after(&kiln, 1, 0, &[case], true).await).await;
    }
    assert_eq!(client.status().await.code, 0);
    for _ in 0..3 {
        kiln.events.recv().await.unwrap();
    }

    let mut client = run_again(&kiln, &action).await;
    let leases = parts(&kiln, &mut worker, 2).await;
    worker.answer(&leases[0], ended_after(&kiln, 1, 0, &["a"], true).await).await;
    let copy = worker.lease().await;
    assert_eq!(action_of(&copy), action_of(&leases[1]), "the part that has not come back");
    assert_ne!(copy.lease_id, leases[1].lease_id);
    // It fails, and that counts: not the first pass, the first answer.
    worker.answer(&copy, ended_after(&kiln, 1, 7, &["b"], true).await).await;
    assert_eq!(client.response().await.result.unwrap().exit_code, 7);
    assert_eq!(worker.cancelled().await, leases[1].lease_id, "nobody waits for it any more");
    worker.fail(&leases[1], failure(worker_failure::Kind::Cancelled, "stopped")).await;
    let mut told = Vec::new();
    for _ in 0..3 {
        let event = kiln.events.recv().await.unwrap();
        told.push((event.shard.as_ref().unwrap().number, event.exit_code, event.cancelled));
    }
    told.sort_unstable();
    let expected = [(0, 7, false), (1, 0, false), (2, 0, true)];
    assert_eq!(told, expected, "the copy is an execution of nobody's");
    let part = Digest::from_wire(&action_of(&copy), DigestFunction::Sha256).unwrap();
    assert!(!kiln.cached(&part).await);
}
