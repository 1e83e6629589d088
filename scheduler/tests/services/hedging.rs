//! Parts of tests that are slow.

use std::time::Duration;

use futures_util::future::join_all;
use kiln_cas::{Digest, DigestFunction};
use kiln_protos::worker::{Lease, worker_failure};
use kiln_scheduler::Hedge;
use kiln_scheduler::SchedulerConfig;
use kiln_scheduler::snapshot::MAX_LISTED;

use crate::fanout_rig::{action_of, ended_after, parts, run, run_again, test_action};
use crate::harness::{Kiln, Worker, failure};

/// The settings with which a part is slow as soon as it takes longer than expected.
pub fn soon(config: SchedulerConfig) -> SchedulerConfig {
    let hedge = Hedge { factor: 1.0, least: Duration::ZERO, look: Duration::from_millis(10) };
    SchedulerConfig { hedge, ..config }
}

/// A test of two parts that has run, so that it is known what its cases take.
pub async fn learned(kiln: &mut Kiln, worker: &mut Worker) -> Digest {
    let action = test_action(kiln, &[("kiln-shards", "2")]).await;
    // In the first run no duration is known, so none of its parts counts as slow.
    let mut client = run(kiln, &action).await;
    let leases = parts(kiln, worker, 2).await;
    for (lease, case) in leases.iter().zip(["a", "b"]) {
        worker.answer(lease, ended_after(kiln, 1, 0, &[case], true).await).await;
    }
    assert_eq!(client.status().await.code, 0);
    assert_eq!(told(kiln, 3).await, [(0, 0, false), (1, 0, false), (2, 0, false)]);
    action
}

/// So many events of a run of two parts: number, exit code, and whether it was stopped.
pub async fn told(kiln: &mut Kiln, events: usize) -> Vec<(u32, i32, bool)> {
    let mut told = Vec::new();
    for _ in 0..events {
        let event = kiln.events.recv().await.unwrap();
        told.push((event.shard.as_ref().unwrap().number, event.exit_code, event.cancelled));
    }
    told.sort_unstable();
    told
}

/// Whether what a lease ran is in the action cache.
pub async fn is_cached(kiln: &Kiln, lease: &Lease) -> bool {
    let part = Digest::from_wire(&action_of(lease), DigestFunction::Sha256).unwrap();
    kiln.cached(&part).await
}

#[tokio::test]
async fn a_slow_part_runs_a_second_time_and_the_first_answer_counts() {
    let mut kiln = Kiln::with(soon(SchedulerConfig::default())).await;
    let mut worker = kiln.worker("w", 3, &[]).await;
    let action = learned(&mut kiln, &mut worker).await;

    let mut client = run_again(&kiln, &action).await;
    let leases = parts(&kiln, &mut worker, 2).await;
    worker.answer(&leases[0], ended_after(&kiln, 1, 0, &["a"], true).await).await;
    let copy = worker.lease().await;
    assert_eq!(action_of(&copy), action_of(&leases[1]), "the part that has not come back");
    assert_ne!(copy.lease_id, leases[1].lease_id);
    // The copy fails, and that counts: the first answer decides, and not the first success.
    worker.answer(&copy, ended_after(&kiln, 1, 7, &["b"], true).await).await;
    assert_eq!(client.response().await.result.unwrap().exit_code, 7);
    assert_eq!(worker.cancelled().await, leases[1].lease_id, "nobody waits for it any more");
    worker.fail(&leases[1], failure(worker_failure::Kind::Cancelled, "stopped")).await;
    let expected = [(0, 7, false), (1, 0, false), (2, 0, true), (2, 7, false)];
    assert_eq!(told(&mut kiln, 4).await, expected, "the copy is the run of its part");
    assert!(!is_cached(&kiln, &copy).await);
}

#[tokio::test]
async fn a_slow_part_is_seen_where_more_runs_than_a_snapshot_lists() {
    let mut kiln = Kiln::with(soon(SchedulerConfig::default())).await;
    let more = MAX_LISTED + 1;
    let slots = u32::try_from(more + 3).unwrap();
    let mut worker = kiln.worker("w", slots, &[]).await;
    let action = learned(&mut kiln, &mut worker).await;
    let begin = || async { kiln.execute(&kiln.simple().await).await };
    let _others = join_all((0..more).map(|_| begin())).await;
    for _ in 0..more {
        worker.lease().await;
    }
    let mut client = run_again(&kiln, &action).await;
    let leases = parts(&kiln, &mut worker, 2).await;
    worker.answer(&leases[0], ended_after(&kiln, 1, 0, &["a"], true).await).await;
    let copy = worker.lease().await;
    assert_eq!(action_of(&copy), action_of(&leases[1]), "the part that has not come back");
    worker.answer(&copy, ended_after(&kiln, 1, 0, &["b"], true).await).await;
    assert_eq!(client.response().await.result.unwrap().exit_code, 0);
}
