//! What workers say of themselves is the truth: what they hold, refuse, and that they are sick.

use std::time::Duration;

use kiln_protos::reapi::execution_stage::Value as Stage;
use kiln_protos::worker::worker_failure::Kind;
use kiln_scheduler::SchedulerConfig;
use kiln_scheduler::queue::Limits;
use tonic::Code;

use crate::harness::{Kiln, failure};

fn config(limits: Limits) -> SchedulerConfig {
    SchedulerConfig { limits, ..SchedulerConfig::default() }
}

#[tokio::test]
async fn what_a_worker_runs_for_an_earlier_server_is_stopped_before_it_gets_more() {
    let (earlier, kiln) = (Kiln::start().await, Kiln::start().await);
    let _running = earlier.execute(&earlier.simple().await).await;
    let mut worker = earlier.worker("w", 1, &[]).await;
    let old = worker.lease().await;
    drop(worker);
    let mut worker = kiln.worker_again("w", 1, &[&old]).await;
    assert_eq!(worker.cancelled().await, old.lease_id);
    let mut client = kiln.execute(&kiln.simple().await).await;
    assert_eq!(client.update().await.stage, Stage::Queued);
    worker.heartbeat(&[&old]).await;
    assert_eq!(kiln.snapshot().await.workers[0].occupied, 1);
    worker.fail(&old, failure(Kind::Cancelled, "")).await;
    let lease = worker.lease().await;
    assert_eq!(lease.attempt, 1);
    worker.succeed(&lease).await;
    assert_eq!(client.status().await.code, 0);
    let counters = kiln.snapshot().await.counters;
    assert_eq!((counters.retries, counters.leases_refused), (0, 0));
}

#[tokio::test]
async fn a_refusal_is_no_try() {
    let limits = Limits { max_retries: 0, retry_delay: 1, ..Limits::default() };
    let kiln = Kiln::with(config(limits)).await;
    let mut worker = kiln.worker("w", 1, &[]).await;
    let mut client = kiln.execute(&kiln.simple().await).await;
    for _ in 0..10 {
        let lease = worker.lease().await;
        assert_eq!(lease.attempt, 1);
        worker.refuse(&lease, &[]).await;
    }
    // The scheduler cancels the unknown lease that the worker names, and counts its slot as taken until the
    // worker says otherwise.
    let lease = worker.lease().await;
    worker.refuse(&lease, &["of nobody"]).await;
    assert_eq!(worker.cancelled().await, "of nobody");
    assert_eq!(kiln.snapshot().await.workers[0].occupied, 1);
    worker.heartbeat(&[]).await;
    // A queue in Redis hears a heartbeat together with those of other workers, so an unknown lease in a
    // heartbeat is tried there as well.
    if crate::SHARED {
        let strange = kiln_protos::worker::Lease { lease_id: "x".into(), ..lease };
        worker.heartbeat(&[&strange]).await;
        assert_eq!(worker.cancelled().await, "x");
        worker.fail(&strange, failure(Kind::Cancelled, "")).await;
    }
    let lease = worker.lease().await;
    worker.succeed(&lease).await;
    assert_eq!(client.status().await.code, 0);
    let counters = kiln.snapshot().await.counters;
    assert_eq!((counters.retries, counters.leases_refused), (0, 11));
}

#[tokio::test]
async fn a_lease_is_another_workers_only_for_who_knows_its_whole_name() {
    let kiln = Kiln::start().await;
    let mut client = kiln.execute(&kiln.simple().await).await;
    let mut worker = kiln.worker("w", 1, &[]).await;
    let lease = worker.lease().await;
    let (front, code) = lease.lease_id.rsplit_once('-').unwrap();
    let guess = kiln_protos::worker::Lease {
        lease_id: format!("{front}-{}", "0".repeat(code.len())),
        ..lease.clone()
    };
    // A caller who takes over the worker's name gets the worker's action only as a new run.
    let mut thief = kiln.worker_again("w", 2, &[&guess]).await;
    assert_eq!(thief.cancelled().await, guess.lease_id);
    assert_eq!(thief.lease().await.attempt, 2);
    drop(client.update().await);
}

#[tokio::test]
async fn a_worker_that_has_paused_gets_nothing_until_it_goes_on() {
    let kiln = Kiln::start().await;
    let mut sick = kiln.worker("sick", 1, &[]).await;
    sick.pause("the disk\nis full").await;
    while kiln.snapshot().await.workers[0].paused.is_none() {
        tokio::task::yield_now().await;
    }
    let reason = kiln.snapshot().await.workers[0].paused.clone();
    assert_eq!(reason.as_deref(), Some("the disk is full"), "one line, whatever a worker says");
    let mut client = kiln.execute(&kiln.simple().await).await;
    assert_eq!(client.update().await.stage, Stage::Queued);
    sick.pause("").await;
    sick.succeed_next().await;
    assert_eq!(client.status().await.code, 0);
}

#[tokio::test]
async fn where_all_workers_have_paused_clients_hear_why_and_may_try_again() {
    let limits = Limits { unsatisfiable_grace: 100, ..Limits::default() };
    let kiln = Kiln::with(config(limits)).await;
    let worker = kiln.worker("w", 1, &[]).await;
    worker.pause("the disk is full").await;
    while kiln.snapshot().await.workers[0].paused.is_none() {
        tokio::task::yield_now().await;
    }
    let mut client = kiln.execute(&kiln.simple().await).await;
    let status = client.status().await;
    assert_eq!(status.code, Code::Unavailable as i32);
    assert!(status.message.contains("w: the disk is full"), "{}", status.message);
}

#[tokio::test]
async fn an_action_that_failed_on_one_worker_waits_for_another() {
    let limits = Limits { retry_delay: 1, elsewhere_wait: 1_000, ..Limits::default() };
    let kiln = Kiln::with(config(limits)).await;
    let mut good = kiln.worker("good", 1, &[]).await;
    let mut busy = kiln.execute(&kiln.simple().await).await;
    let running = good.lease().await;
    let mut sick = kiln.worker("sick", 1, &[]).await;
    let mut client = kiln.execute(&kiln.simple().await).await;
    sick.fail_next(failure(Kind::Infrastructure, "the disk is full")).await;
    client.until(Stage::Executing).await;
    client.until(Stage::Queued).await;
    // The failed action waits for the good worker. It does not hold up another action, which may go to the
    // sick one.
    let mut next = kiln.execute(&kiln.simple().await).await;
    sick.succeed_next().await;
    assert_eq!(next.status().await.code, 0);
    tokio::time::timeout(Duration::from_millis(200), sick.next()).await.unwrap_err();
    good.succeed(&running).await;
    assert_eq!(busy.status().await.code, 0);
    let again = good.lease().await;
    assert_eq!(again.attempt, 2);
    // A worker that is the only one left gets it all the same.
    good.fail(&again, failure(Kind::Infrastructure, "broken")).await;
    drop(good);
    let third = sick.lease().await;
    assert_eq!(third.attempt, 3);
    sick.fail(&third, failure(Kind::Infrastructure, "broken")).await;
    sick.succeed_next().await;
    assert_eq!(client.status().await.code, 0);
}
