//! Lost workers, lost clients, late and repeated answers, shutdown.

use std::time::Duration;

use kiln_protos::reapi::execution_stage::Value as Stage;
use kiln_protos::worker::{scheduler_message, worker_failure::Kind, worker_message};
use kiln_scheduler::SchedulerConfig;
use kiln_scheduler::queue::Limits;
use tonic::Code;

use crate::fanout_rig;
use crate::harness::{ActionSpec, Failover, Kiln, exited, failure, request};

#[tokio::test]
async fn an_action_outlives_its_worker() {
    let kiln = Kiln::start().await;
    let mut client = kiln.execute(&kiln.simple().await).await;
    let mut first = kiln.worker("first", 1, &[]).await;
    assert_eq!(first.lease().await.attempt, 1);
    client.until(Stage::Executing).await;
    drop(first);
    client.until(Stage::Queued).await;
    let mut second = kiln.worker("second", 1, &[]).await;
    let lease = second.lease().await;
    assert_eq!(lease.attempt, 2);
    second.succeed(&lease).await;
    let result = client.response().await.result.unwrap();
    assert_eq!(result.execution_metadata.unwrap().worker, "second");
    let counters = kiln.snapshot().await.counters;
    assert_eq!((counters.workers_lost, counters.retries), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_silent_worker_is_lost_and_its_late_answer_thrown_away() {
    let mut kiln = Kiln::in_memory(SchedulerConfig::default()).await;
    let action = kiln.simple().await;
    let mut client = kiln.execute(&action).await;
    let mut silent = kiln.worker("silent", 1, &[]).await;
    let old = silent.lease().await;
    let begun = tokio::time::Instant::now();
    // The scheduler closes the silent worker's session after the heartbeat timeout.
    assert!(silent.next().await.is_none());
    assert_eq!(begun.elapsed().as_secs(), 35);
    let mut lively = kiln.worker("lively", 1, &[]).await;
    let new = lively.lease().await;
    assert_ne!(old.lease_id, new.lease_id);
    // The scheduler drops an answer under the old lease, whatever session sends it.
    lively.answer(&old, exited(1)).await;
    lively.succeed(&new).await;
    let result = client.response().await.result.unwrap();
    assert_eq!(
        (result.exit_code, result.execution_metadata.unwrap().worker.as_str()),
        (0, "lively")
    );
    // The same answer a second time changes nothing.
    lively.answer(&new, exited(1)).await;
    lively.succeed(&new).await;
    lively.heartbeat(&[]).await;
    kiln.events.recv().await.unwrap();
    let mut next = kiln.execute(&kiln.simple().await).await;
    lively.succeed_next().await;
    assert_eq!(next.status().await.code, 0);
    assert_eq!(kiln.snapshot().await.counters.stale_results, 3);
    assert_eq!(kiln.notes.lock().unwrap().iter().filter(|note| **note == "put").count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_with_the_actions_timeout_and_its_slack() {
    let limits = Limits { lease_slack: 20_000, heartbeat_timeout: 3_600_000, ..Default::default() };
    let kiln = Kiln::in_memory(SchedulerConfig { limits, ..Default::default() }).await;
    let spec = ActionSpec { timeout_s: Some(60), ..Default::default() };
    let mut client = kiln.execute(&kiln.action(spec).await).await;
    let mut worker = kiln.worker("w", 2, &[]).await;
    let lease = worker.lease().await;
    let begun = tokio::time::Instant::now();
    client.until(Stage::Executing).await;
    let Some(scheduler_message::Kind::Cancel(cancel)) = worker.next().await else {
        panic!("the lease is not cancelled");
    };
    assert_eq!((cancel.lease_id, begun.elapsed().as_secs()), (lease.lease_id.clone(), 80));
    worker.fail(&lease, failure(Kind::Cancelled, "")).await;
    let again = worker.lease().await;
    assert_eq!(again.attempt, 2);
    worker.succeed(&again).await;
    assert_eq!(client.status().await.code, 0);
}

#[tokio::test(start_paused = true)]
async fn infrastructure_failures_are_tried_again_and_end_with_the_last_reason() {
    let kiln = Kiln::in_memory(SchedulerConfig::default()).await;
    let mut worker = kiln.worker("w", 1, &[]).await;
    let mut client = kiln.execute(&kiln.simple().await).await;
    for attempt in 1..=4 {
        let lease = worker.lease().await;
        assert_eq!(lease.attempt, attempt);
        worker.fail(&lease, failure(Kind::Infrastructure, "the sandbox broke")).await;
    }
    let status = client.status().await;
    assert_eq!(status.code, Code::Internal as i32);
    assert!(status.message.contains("4 times") && status.message.contains("the sandbox broke"));

    // The client does not see a single failure of a worker.
    let mut client = kiln.execute(&kiln.simple().await).await;
    worker.fail_next(failure(Kind::Infrastructure, "once")).await;
    worker.succeed_next().await;
    assert_eq!(client.status().await.code, 0);
}

#[tokio::test]
async fn an_action_that_kills_its_workers_is_stopped() {
    let kiln = Kiln::start().await;
    let mut client = kiln.execute(&kiln.simple().await).await;
    for n in 0..3 {
        let mut worker = kiln.worker(&format!("victim-{n}"), 1, &[]).await;
        worker.lease().await;
        drop(worker);
        // The next one joins when this one is gone.
        while !kiln.snapshot().await.workers.is_empty() {
            tokio::task::yield_now().await;
        }
    }
    let status = client.status().await;
    assert_eq!(status.code, Code::FailedPrecondition as i32);
    assert!(status.message.contains("victim-0, victim-1, victim-2"), "{}", status.message);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_is_cancelled_after_a_grace_period() {
    let mut kiln = Kiln::in_memory(SchedulerConfig::default()).await;
    let mut worker = kiln.worker("w", 1, &[]).await;
    let mut client = kiln.execute(&kiln.simple().await).await;
    let lease = worker.lease().await;
    let name = client.update().await.name;
    drop(client);
    tokio::time::sleep(Duration::from_secs(20)).await;
    // Within the grace period a client may come back.
    let mut client = kiln.wait(&name).await.unwrap();
    client.update().await;
    worker.heartbeat(&[&lease]).await;
    drop(client);
    let begun = tokio::time::Instant::now();
    let Some(scheduler_message::Kind::Cancel(cancel)) = worker.next().await else {
        panic!("the lease is not cancelled");
    };
    assert_eq!((cancel.lease_id, begun.elapsed().as_secs()), (lease.lease_id.clone(), 30));
    assert_eq!(kiln.events.recv().await.unwrap().status_code, Code::Unavailable as i32);
    // The slot is free again only when the worker says so.
    let mut next = kiln.execute(&kiln.simple().await).await;
    assert_eq!(next.update().await.stage, Stage::Queued);
    worker.fail(&lease, failure(Kind::Cancelled, "")).await;
    worker.succeed_next().await;
    assert_eq!(next.status().await.code, 0);
}

#[tokio::test]
async fn a_cancelled_action_is_stopped_and_answered() {
    let mut kiln = Kiln::start().await;
    let mut worker = kiln.worker("w", 1, &[]).await;
    let mut client = kiln.execute(&kiln.simple().await).await;
    let lease = worker.lease().await;
    let name = client.update().await.name;
    let cancel = kiln_protos::longrunning::CancelOperationRequest { name };
    kiln.operations().cancel_operation(cancel).await.unwrap();
    assert_eq!(client.status().await.code, Code::Cancelled as i32);
    assert_eq!(kiln.events.recv().await.unwrap().status_code, Code::Cancelled as i32);
    assert!(matches!(worker.next().await, Some(scheduler_message::Kind::Cancel(_))));
    // An answer that comes all the same is not published.
    worker.succeed(&lease).await;
    let mut next = kiln.execute(&kiln.simple().await).await;
    let lease = worker.lease().await;
    assert!(kiln.notes.lock().unwrap().is_empty());
    worker.succeed(&lease).await;
    assert_eq!(next.status().await.code, 0);
}

#[tokio::test(start_paused = true)]
async fn leases_that_heartbeats_omit_are_lost_after_two() {
    let kiln = Kiln::in_memory(SchedulerConfig::default()).await;
    let mut worker = kiln.worker("w", 1, &[]).await;
    let mut client = kiln.execute(&kiln.simple().await).await;
    assert_eq!(worker.lease().await.attempt, 1);
    worker.heartbeat(&[]).await;
    client.until(Stage::Executing).await;
    worker.heartbeat(&[]).await;
    let lease = worker.lease().await;
    assert_eq!(lease.attempt, 2);
    worker.succeed(&lease).await;
    assert_eq!(client.status().await.code, 0);
}

#[tokio::test]
async fn a_draining_worker_gets_nothing_more() {
    let kiln = Kiln::start().await;
    let mut first = kiln.worker("first", 2, &[]).await;
    let mut running = kiln.execute(&kiln.simple().await).await;
    let lease = first.lease().await;
    let told = kiln.drain_worker("first").await.unwrap();
    assert_eq!((told.already_draining, told.occupied), (false, 1));
    let unknown = kiln.drain_worker("unknown").await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    assert!(unknown.message().contains("there are first"), "{unknown}");
    assert!(matches!(first.next().await, Some(scheduler_message::Kind::Drain(_))));
    assert!(kiln.drain_worker("first").await.unwrap().already_draining);
    let noted = kiln.audit_log().list(0, 10).await.unwrap();
    let noted: Vec<_> = noted.iter().map(|entry| &entry.event).collect();
    assert_eq!(noted.len(), 2, "{noted:?}");
    assert!(noted.iter().all(|event| event.action == "worker.drain" && event.subject == "first"));
    assert!(matches!(first.next().await, Some(scheduler_message::Kind::Drain(_))));
    let mut waiting = kiln.execute(&kiln.simple().await).await;
    assert_eq!(waiting.update().await.stage, Stage::Queued);
    first.succeed(&lease).await;
    assert_eq!(running.status().await.code, 0);
    let mut second = kiln.worker("second", 1, &[]).await;
    second.succeed_next().await;
    assert_eq!(waiting.status().await.code, 0);
}

#[tokio::test]
async fn a_drained_scheduler_finishes_what_runs_and_refuses_the_rest() {
    let kiln = Kiln::start().await;
    let mut worker = kiln.worker("w", 1, &[]).await;
    let mut running = kiln.execute(&kiln.simple().await).await;
    let lease = worker.lease().await;
    let mut waiting = kiln.execute(&kiln.simple().await).await;
    assert_eq!(waiting.update().await.stage, Stage::Queued);
    let scheduler = kiln.scheduler.clone();
    let drained = tokio::spawn(async move { scheduler.drain().await });
    while !kiln.snapshot().await.draining {
        tokio::task::yield_now().await;
    }
    let error = kiln.try_execute(request(&kiln.simple().await)).await.err().unwrap();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(!drained.is_finished());
    worker.succeed(&lease).await;
    assert_eq!(running.status().await.code, 0);
    drained.await.unwrap();
    kiln.scheduler.shutdown();
    // The client may try the action again elsewhere, because it never ran.
    let error = waiting.next().await.unwrap().err().unwrap();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(worker.next().await.is_none());
}

#[tokio::test]
async fn a_lease_that_its_worker_does_not_know_keeps_no_server_from_draining() {
    let limits = Limits { heartbeat_timeout: 200, ..Limits::default() };
    let kiln = Kiln::with(SchedulerConfig { limits, ..SchedulerConfig::default() }).await;
    let mut worker = kiln.worker("w", 1, &[]).await;
    let _client = kiln.execute(&kiln.simple().await).await;
    worker.lease().await;
    let scheduler = kiln.scheduler.clone();
    let drained = tokio::time::timeout(Duration::from_secs(10), scheduler.drain());
    tokio::pin!(drained);
    loop {
        tokio::select! {
            drained = &mut drained => break drained.unwrap(),
            () = tokio::time::sleep(Duration::from_millis(20)) => worker.heartbeat(&[]).await,
        }
    }
}

#[tokio::test]
async fn a_worker_that_drains_by_itself_leaves_without_being_counted_as_lost() {
    let kiln = Kiln::start().await;
    let worker = kiln.worker("w", 1, &[]).await;
    worker.say(worker_message::Kind::Draining(kiln_protos::worker::Draining {})).await;
    drop(worker);
    while !kiln.snapshot().await.workers.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(kiln.snapshot().await.counters.workers_lost, 0);
}

#[tokio::test]
async fn who_waits_for_parts_is_told_when_the_server_ends() {
    let kiln = Kiln::start().await;
    let mut worker = kiln.worker("w", 2, &[]).await;
    let action = fanout_rig::test_action(&kiln, &[("kiln-shards", "2")]).await;
    let mut client = fanout_rig::run(&kiln, &action).await;
    fanout_rig::parts(&kiln, &mut worker, 2).await;
    client.until(Stage::Executing).await;
    kiln.scheduler.shutdown();
    let error = loop {
        if let Err(error) = client.next().await.expect("it is told") {
            break error;
        }
    };
    assert_eq!(error.code(), Code::Unavailable);
}

#[tokio::test]
async fn who_waits_hears_of_a_fault_while_the_answer_is_published() {
    let kiln = Kiln::start().await;
    let mut worker = kiln.worker("w", 1, &[]).await;
    let mut client = kiln.execute(&kiln.simple().await).await;
    let lease = worker.lease().await;
    kiln.blobs.is_at_fault(true);
    worker.succeed(&lease).await;
    let status = client.status().await;
    assert_eq!(status.code, Code::Internal as i32);
    assert!(status.message.contains("was lost"), "{}", status.message);
    kiln.blobs.is_at_fault(false);
    let mut next = kiln.execute(&kiln.simple().await).await;
    worker.succeed_next().await;
    assert_eq!(next.status().await.code, 0);
    // Nothing is left that is to be published.
    kiln.scheduler.drain().await;
}

#[tokio::test]
async fn an_answer_that_was_given_is_not_taken_back_by_a_fault_after_it() {
    let mut kiln = Kiln::start().await;
    let mut worker = kiln.worker("w", 1, &[]).await;
    let mut client = kiln.execute(&kiln.simple().await).await;
    // Before the result is put and after that; the next look is whether it is still there.
    kiln.actions.fail_over(Failover::FaultAfterLooks(2));
    worker.succeed_next().await;
    assert_eq!(client.status().await.code, 0);
    // Nothing is left that is to be published, so that the fault has happened.
    kiln.scheduler.drain().await;
    assert_eq!(kiln.events.recv().await.unwrap().exit_code, 0);
    assert!(kiln.events.try_recv().is_err(), "an end was recorded twice");
}

#[tokio::test(start_paused = true)]
async fn who_waits_hears_of_a_store_that_never_answers() {
    let kiln = Kiln::in_memory(SchedulerConfig::default()).await;
    let mut client = kiln.execute(&kiln.simple().await).await;
    let mut worker = kiln.worker("w", 1, &[]).await;
    let lease = worker.lease().await;
    let begun = tokio::time::Instant::now();
    kiln.blobs.delay(Duration::from_secs(7 * 24 * 3600));
    worker.succeed(&lease).await;
    assert_eq!(client.status().await.code, Code::Internal as i32);
    assert!(begun.elapsed() < Duration::from_secs(3600), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn who_waits_hears_of_a_fault_while_a_test_in_parts_is_put_together() {
    let kiln = Kiln::start().await;
    let mut worker = kiln.worker("w", 2, &[]).await;
    let action = fanout_rig::test_action(&kiln, &[("kiln-shards", "2")]).await;
    let mut client = fanout_rig::run(&kiln, &action).await;
    let leases = fanout_rig::parts(&kiln, &mut worker, 2).await;
    let answer = fanout_rig::ended(&kiln, 0, &["a"], true).await;
    kiln.blobs.is_at_fault(true);
    worker.answer(&leases[0], answer).await;
    assert_eq!(client.status().await.code, Code::Internal as i32);
    // The other part is not wanted any more.
    worker.cancelled().await;
    worker.fail(&leases[1], failure(Kind::Cancelled, "")).await;
    kiln.blobs.is_at_fault(false);
    // The scheduler has forgotten the task with all its parts, so the next request begins anew.
    let mut client = fanout_rig::run(&kiln, &action).await;
    let leases = fanout_rig::parts(&kiln, &mut worker, 2).await;
    for (lease, case) in leases.iter().zip(["a", "b"]) {
        worker.answer(lease, fanout_rig::ended(&kiln, 0, &[case], true).await).await;
    }
    assert_eq!(client.response().await.status.unwrap_or_default().code, 0);
}
