//! Parts of tests that are slow, with workers and clients at different frontends.

use std::time::Duration;

use kiln_protos::worker::worker_failure;
use kiln_scheduler::SchedulerConfig;
use kiln_scheduler::snapshot::WorkerView;

use crate::fanout_fleet::expect_cancelled;
use crate::fanout_rig::{action_of, ended_after, parts, run_again};
use crate::fleet::quick;
use crate::harness::{Kiln, Worker, failure};
use crate::hedging::{is_cached, learned, soon, told};

/// Returns when the queue knows of it. Without a reason it goes on.
async fn pause(kiln: &Kiln, worker: &Worker, reason: &str) {
    worker.pause(reason).await;
    let is_known = |it: &WorkerView| it.id == "far" && it.paused.is_none() == reason.is_empty();
    while !kiln.snapshot().await.workers.iter().any(is_known) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_copy_runs_at_a_worker_of_another_frontend_and_of_both_the_sooner_one_counts() {
    let mut one = Kiln::with(soon(SchedulerConfig::default())).await;
    let other = one.beside(soon(SchedulerConfig::default())).await;
    let mut near = one.worker("near", 2, &[]).await;
    let action = learned(&mut one, &mut near).await;
    let mut far = other.worker("far", 1, &[]).await;
    for is_copy_sooner in [true, false] {
        // All parts are at the one frontend, and an idle slot at the other.
        pause(&other, &far, "not yet").await;
        let mut client = run_again(&one, &action).await;
        let leases = parts(&one, &mut near, 2).await;
        pause(&other, &far, "").await;
        near.answer(&leases[0], ended_after(&one, 1, 0, &["a"], true).await).await;
        let copy = far.lease().await;
        assert_eq!(action_of(&copy), action_of(&leases[1]), "the part that has not come back");
        let answer = ended_after(&one, 1, 0, &["b"], true).await;
        let stopped = || failure(worker_failure::Kind::Cancelled, "stopped");
        if is_copy_sooner {
            far.answer(&copy, answer).await;
            assert_eq!(near.cancelled().await, leases[1].lease_id);
            near.fail(&leases[1], stopped()).await;
        } else {
            near.answer(&leases[1], answer).await;
            assert_eq!(far.cancelled().await, copy.lease_id);
            far.fail(&copy, stopped()).await;
        }
        assert_eq!(client.response().await.result.unwrap().exit_code, 0);
        // A copy that comes second is an execution of nobody's.
        let mut expected = vec![(0, 0, false), (1, 0, false), (2, 0, false)];
        expected.extend(is_copy_sooner.then_some((2, 0, true)));
        assert_eq!(told(&mut one, expected.len()).await, expected);
        assert!(one.cached(&action).await);
        assert!(!is_cached(&one, &copy).await && !is_cached(&one, &leases[0]).await);
    }
    let counters = other.snapshot().await.counters;
    assert_eq!(counters.dispatched, 2 + 2 * 3, "each part once, and each copy");
    assert!(one.events.try_recv().is_err(), "an end was recorded twice");
}

#[tokio::test]
async fn a_part_and_its_copy_end_with_the_frontend_that_waited_for_them() {
    let mut one = Kiln::with(soon(quick())).await;
    let other = one.beside(soon(quick())).await;
    let mut worker = other.worker("w", 3, &[]).await;
    let action = learned(&mut one, &mut worker).await;
    let client = run_again(&one, &action).await;
    let leases = parts(&one, &mut worker, 2).await;
    worker.answer(&leases[0], ended_after(&one, 1, 0, &["a"], true).await).await;
    let copy = worker.lease().await;
    assert_eq!(action_of(&copy), action_of(&leases[1]));
    // The first frontend says nothing more to anybody, as after kill -9.
    one.scheduler.shutdown();
    drop(client);
    expect_cancelled(&mut worker, &[&leases[1], &copy]).await;
    for lease in [&leases[1], &copy] {
        worker.fail(lease, failure(worker_failure::Kind::Cancelled, "stopped")).await;
    }
    // A client that asks the other frontend for the action has both parts run, once each.
    let mut again = run_again(&other, &action).await;
    let leases = parts(&other, &mut worker, 2).await;
    for (lease, case) in leases.iter().zip(["a", "b"]) {
        worker.answer(lease, ended_after(&other, 1, 0, &[case], true).await).await;
    }
    assert_eq!(again.response().await.result.unwrap().exit_code, 0);
    assert!(!is_cached(&other, &copy).await);
}
