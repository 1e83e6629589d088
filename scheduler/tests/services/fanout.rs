//! Tests that run in parts.

use std::time::Duration;

use kiln_cas::{Digest, DigestFunction};
use kiln_protos::longrunning::CancelOperationRequest;
use kiln_protos::reapi::{self, execution_stage::Value as Stage};
use kiln_protos::worker::{Lease, scheduler_message, worker_failure};
use kiln_scheduler::SchedulerConfig;
use kiln_scheduler::queue::{Limits, Quota};
use tonic::Code;

use crate::fanout_rig::{
    REPORT, action_of, content, ended, parts, run, run_again, test_action, test_action_of, try_run,
    variable,
};
use crate::harness::{Kiln, failure, request};

#[tokio::test]
async fn parts_become_one_result_under_the_actions_own_digest() {
    let mut kiln = Kiln::start().await;
    let mut worker = kiln.worker("w", 4, &[]).await;
    let action = test_action(&kiln, &[("kiln-shards", "3")]).await;
    let mut client = run(&kiln, &action).await;
    let leases = parts(&kiln, &mut worker, 3).await;
    let name = client.until(Stage::Executing).await.name;
    for (index, cases) in [(2, ["e"].as_slice()), (0, &["a", "b"]), (1, &["c", "d"])] {
        worker.answer(&leases[index], ended(&kiln, 0, cases, true).await).await;
    }
    let done = client.until(Stage::Completed).await;
    assert_eq!((done.name, done.metadata.action_digest), (name, Some(action.to_wire())));
    let response = done.response.unwrap();
    assert_eq!(response.status.unwrap_or_default().code, 0);
    let result = response.result.unwrap();
    let paths: Vec<_> = result.output_files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, [REPORT], "the status file is not the client's");
    let report = content(&kiln, result.output_files[0].digest.as_ref()).await;
    assert_eq!(report, "a 5000\nb 5000\nc 5000\nd 5000\ne 5000\n");
    let log = content(&kiln, result.stdout_digest.as_ref()).await;
    assert_eq!(log.split(|byte| *byte == b'\n').count(), 7, "{log:?}");

    assert!(kiln.cached(&action).await);
    for lease in &leases {
        let part = Digest::from_wire(&action_of(lease), DigestFunction::Sha256).unwrap();
        assert!(!kiln.cached(&part).await, "a part is published by itself");
    }
    assert_eq!(*kiln.notes.lock().unwrap(), ["sync", "put"]);
    let mut numbers = Vec::new();
    for _ in 0..4 {
        let event = kiln.events.recv().await.unwrap();
        let shard = event.shard.clone().unwrap();
        assert_eq!((shard.count, event.invocation_id.as_str()), (3, "build-1"));
        let whole = shard.whole.map(|whole| whole.hash);
        assert_eq!(whole, (shard.number > 0).then(|| action.hex()));
        numbers.push(shard.number);
    }
    assert_eq!(numbers.pop(), Some(0), "the whole ends last");
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3]);
    assert!(run(&kiln, &action).await.response().await.cached_result);
}

#[tokio::test]
async fn a_failure_or_timeout_of_one_part_is_the_actions() {
    let kiln = Kiln::start().await;
    let mut worker = kiln.worker("w", 2, &[]).await;
    let action = test_action(&kiln, &[("kiln-shards", "2")]).await;
    let mut client = run(&kiln, &action).await;
    let leases = parts(&kiln, &mut worker, 2).await;
    worker.answer(&leases[1], ended(&kiln, 7, &["b"], true).await).await;
    worker.answer(&leases[0], ended(&kiln, 0, &["a"], true).await).await;
    let response = client.response().await;
    assert!(response.message.contains("of 2 shards 2 failed"), "{}", response.message);
    let result = response.result.unwrap();
    assert_eq!(result.exit_code, 7);
    let log = content(&kiln, result.stdout_digest.as_ref()).await;
    assert!(log.ends_with(b"shard 2 of 2, exit code 7 ====\nran b\n"), "{log:?}");
    assert!(!kiln.cached(&action).await);

    let mut client = run(&kiln, &action).await;
    let leases = parts(&kiln, &mut worker, 2).await;
    let late = reapi::ExecuteResponse {
        status: Some(kiln_protos::rpc::Status {
            code: Code::DeadlineExceeded as i32,
            message: "too slow".to_owned(),
            details: Vec::new(),
        }),
        ..ended(&kiln, 124, &[], true).await
    };
    worker.answer(&leases[0], late).await;
    worker.answer(&leases[1], ended(&kiln, 0, &["b"], true).await).await;
    let response = client.response().await;
    let (status, result) = (response.status.unwrap(), response.result.unwrap());
    assert_eq!((status.code, result.exit_code), (Code::DeadlineExceeded as i32, 124));
    assert!(status.message.contains("of 2 shards 1 ran into the timeout"), "{}", status.message);
    assert!(!kiln.cached(&action).await);
}

#[tokio::test]
async fn a_runner_that_ignores_shards_counts_once_and_is_not_asked_again() {
    let kiln = Kiln::start().await;
    let mut worker = kiln.worker("w", 2, &[]).await;
    let action = test_action(&kiln, &[("kiln-shards", "2")]).await;
    let mut client = run(&kiln, &action).await;
    let leases = parts(&kiln, &mut worker, 2).await;
    worker.answer(&leases[0], ended(&kiln, 0, &["a", "b"], false).await).await;
    let (mut stopped, mut whole) = (None, None);
    while stopped.is_none() || whole.is_none() {
        match worker.next().await {
            Some(scheduler_message::Kind::Cancel(cancel)) => stopped = Some(cancel.lease_id),
            Some(scheduler_message::Kind::Lease(lease)) => whole = Some(lease),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(stopped, Some(leases[1].lease_id.clone()), "the other part is of no use");
    let lease = whole.unwrap();
    worker.fail(&leases[1], failure(worker_failure::Kind::Cancelled, "stopped")).await;
    worker.answer(&lease, ended(&kiln, 0, &["a", "b"], false).await).await;
    let result = client.response().await.result.unwrap();
    assert_eq!(content(&kiln, result.output_files[0].digest.as_ref()).await, "a 5000\nb 5000\n");
    assert_eq!(content(&kiln, result.stdout_digest.as_ref()).await, "ran a b");
    assert!(kiln.cached(&action).await);

    let mut client = run_again(&kiln, &action).await;
    let lease = worker.lease().await;
    assert_eq!(action_of(&lease), action.to_wire());
    worker.answer(&lease, ended(&kiln, 0, &["a", "b"], false).await).await;
    assert_eq!(client.status().await.code, 0);
}

#[tokio::test]
async fn where_it_cannot_be_told_the_whole_runs() {
    let kiln = Kiln::start().await;
    let mut worker = kiln.worker("w", 2, &[]).await;
    let action = test_action(&kiln, &[("kiln-shards", "2")]).await;
    let mut client = run(&kiln, &action).await;
    let leases = parts(&kiln, &mut worker, 2).await;
    worker.answer(&leases[1], ended(&kiln, 1, &[], false).await).await;
    let (mut stopped, mut whole) = (None, None);
    while stopped.is_none() || whole.is_none() {
        match worker.next().await {
            Some(scheduler_message::Kind::Cancel(cancel)) => stopped = Some(cancel.lease_id),
            Some(scheduler_message::Kind::Lease(lease)) => whole = Some(lease),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(stopped, Some(leases[0].lease_id.clone()), "the other part is of no use");
    let lease = whole.unwrap();
    assert_eq!(action_of(&lease), action.to_wire());
    worker.fail(&leases[0], failure(worker_failure::Kind::Cancelled, "stopped")).await;
    worker.answer(&lease, ended(&kiln, 0, &["a", "b"], false).await).await;
    assert_eq!(client.response().await.result.unwrap().exit_code, 0);
    assert!(kiln.cached(&action).await);
    let mut again = run_again(&kiln, &action).await;
    let lease = worker.lease().await;
    assert_eq!(action_of(&lease), action.to_wire(), "it is remembered");
    worker.succeed(&lease).await;
    assert_eq!(again.status().await.code, 0);
}

#[tokio::test]
async fn parts_that_lack_a_case_of_the_last_full_run_do_not_count() {
    let kiln = Kiln::start().await;
    let mut worker = kiln.worker("w", 2, &[]).await;
    // The test has never run, so nothing is known of how long it takes.
    let action = test_action(&kiln, &[("kiln-shards", "auto")]).await;
    let mut client = run(&kiln, &action).await;
    let lease = worker.lease().await;
    assert_eq!(action_of(&lease), action.to_wire());
    worker.answer(&lease, ended(&kiln, 0, &["a", "b", "c"], false).await).await;
    assert_eq!(client.status().await.code, 0);

    kiln.cases_are_known().await;

    let wished = test_action(&kiln, &[("kiln-shards", "2")]).await;
    let mut client = run_again(&kiln, &wished).await;
    let leases = parts(&kiln, &mut worker, 2).await;
    worker.answer(&leases[0], ended(&kiln, 0, &["a"], true).await).await;
    worker.answer(&leases[1], ended(&kiln, 0, &["b"], true).await).await;
    let lease = worker.lease().await;
    assert_eq!(action_of(&lease), wished.to_wire());
    // The full run shows that the case is gone for good.
    worker.answer(&lease, ended(&kiln, 0, &["a", "b"], false).await).await;
    assert_eq!(client.status().await.code, 0);
    let mut client = run_again(&kiln, &wished).await;
    let leases = parts(&kiln, &mut worker, 2).await;
    worker.answer(&leases[0], ended(&kiln, 0, &["a"], true).await).await;
    worker.answer(&leases[1], ended(&kiln, 0, &["b"], true).await).await;
    assert_eq!(client.status().await.code, 0);
}

#[tokio::test]
async fn a_worker_that_is_lost_costs_its_part_alone() {
    let kiln = Kiln::start().await;
    let (mut one, mut two) = (kiln.worker("one", 1, &[]).await, kiln.worker("two", 1, &[]).await);
    let action = test_action(&kiln, &[("kiln-shards", "2")]).await;
    let mut client = run(&kiln, &action).await;
    let (lost, lease) = (one.lease().await, two.lease().await);
    drop(one);
    two.answer(&lease, ended(&kiln, 0, &["a"], true).await).await;
    let again = two.lease().await;
    assert_eq!((again.action, again.attempt), (lost.action, 2));
    let again = Lease { action: None, ..again };
    two.answer(&again, ended(&kiln, 0, &["b"], true).await).await;
    let result = client.response().await.result.unwrap();
    assert_eq!(result.exit_code, 0);
    assert_eq!(kiln.snapshot().await.counters.dispatched, 3);
    assert!(kiln.cached(&action).await);
}

#[tokio::test]
async fn a_cancelled_operation_ends_all_parts() {
    let mut kiln = Kiln::start().await;
    let mut worker = kiln.worker("w", 2, &[]).await;
    let action = test_action(&kiln, &[("kiln-shards", "2")]).await;
    let mut client = run(&kiln, &action).await;
    let leases = parts(&kiln, &mut worker, 2).await;
    let name = client.until(Stage::Executing).await.name;
    let get = kiln_protos::longrunning::GetOperationRequest { name: name.clone() };
    let found = kiln.operations().get_operation(get).await.unwrap().into_inner();
    assert_eq!(found.name, name);
    kiln.operations()
        .cancel_operation(CancelOperationRequest { name: name.clone() })
        .await
        .unwrap();
    assert_eq!(client.status().await.code, Code::Cancelled as i32);
    let mut cancelled = [worker.cancelled().await, worker.cancelled().await];
    let mut expected = [leases[0].lease_id.clone(), leases[1].lease_id.clone()];
    cancelled.sort();
    expected.sort();
    assert_eq!(cancelled, expected);
    assert_eq!(kiln.wait(&name).await.unwrap().status().await.code, Code::Cancelled as i32);
    let event = kiln.events.recv().await.unwrap();
    assert_eq!((event.id.as_str(), event.cancelled), (name.as_str(), true));
}

#[tokio::test]
async fn a_client_that_is_gone_may_come_back_before_its_parts_end() {
    const GRACE: u64 = 1_000;
    let limits = Limits { abandon_grace: GRACE, ..Limits::default() };
    let config = SchedulerConfig { limits, ..SchedulerConfig::default() };
    let kiln = Kiln::with(config).await;
    let mut worker = kiln.worker("w", 2, &[]).await;
    let action = test_action(&kiln, &[("kiln-shards", "2")]).await;
    let mut client = run(&kiln, &action).await;
    let leases = parts(&kiln, &mut worker, 2).await;
    let name = client.until(Stage::Executing).await.name;
    drop(client);
    let client = kiln.wait(&name).await.unwrap();
    // The client has come back, so nothing happens when the time for that is over.
    tokio::time::sleep(Duration::from_millis(GRACE + 300)).await;
    assert_eq!(kiln.snapshot().await.running_count, 2);
    drop(client);
    let mut cancelled = [worker.cancelled().await, worker.cancelled().await];
    let mut expected = [leases[0].lease_id.clone(), leases[1].lease_id.clone()];
    cancelled.sort();
    expected.sort();
    assert_eq!(cancelled, expected);
}

#[tokio::test]
async fn a_command_that_is_too_long_for_leases_is_run_in_parts_as_well() {
    let kiln = Kiln::start().await;
    let mut worker = kiln.worker("w", 2, &[]).await;
    let long = "x".repeat(64 << 10);
    let action = test_action_of(&kiln, &[("kiln-shards", "2")], &[long]).await;
    let mut client = run(&kiln, &action).await;
    let leases = parts(&kiln, &mut worker, 2).await;
    worker.answer(&leases[0], ended(&kiln, 0, &["a"], true).await).await;
    worker.answer(&leases[1], ended(&kiln, 0, &["b"], true).await).await;
    assert_eq!(client.status().await.code, 0);
}

#[tokio::test]
async fn two_clients_share_one_fan_out() {
    let kiln = Kiln::start().await;
    let action = test_action(&kiln, &[("kiln-shards", "2")]).await;
    let mut clients = [run(&kiln, &action).await, run(&kiln, &action).await];
    let names = [clients[0].update().await.name, clients[1].update().await.name];
    assert_ne!(names[0], names[1]);
    kiln.operations()
        .cancel_operation(CancelOperationRequest { name: names[0].clone() })
        .await
        .unwrap();
    assert_eq!(clients[0].status().await.code, Code::Cancelled as i32);
    let listed = kiln
        .operations()
        .list_operations(kiln_protos::longrunning::ListOperationsRequest::default())
        .await
        .unwrap()
        .into_inner();
    let listed: Vec<_> = listed.operations.iter().map(|operation| &operation.name).collect();
    assert!(names.iter().all(|name| listed.contains(&name)), "{listed:?}");
    let mut worker = kiln.worker("w", 4, &[]).await;
    let leases = parts(&kiln, &mut worker, 2).await;
    worker.answer(&leases[0], ended(&kiln, 0, &["a"], true).await).await;
    worker.answer(&leases[1], ended(&kiln, 0, &["b"], true).await).await;
    assert_eq!(clients[1].status().await.code, 0);
    assert_eq!(kiln.snapshot().await.counters.submitted, 2);
}

#[tokio::test]
async fn what_the_queue_does_not_take_in_parts_runs_whole() {
    let instance = Quota { queued: 3, ..Quota::NONE };
    let limits = Limits { instance, ..Limits::default() };
    let kiln = Kiln::with(SchedulerConfig { limits, ..SchedulerConfig::default() }).await;
    let action = test_action(&kiln, &[("kiln-shards", "8")]).await;
    let mut client = run(&kiln, &action).await;
    let mut worker = kiln.worker("w", 8, &[]).await;
    let lease = worker.lease().await;
    assert_eq!(action_of(&lease), action.to_wire());
    worker.succeed(&lease).await;
    assert_eq!(client.status().await.code, 0);
}

#[tokio::test]
async fn auto_takes_as_many_parts_as_slots_are_idle_and_help() {
    let kiln = Kiln::start().await;
    let mut worker = kiln.worker("w", 3, &[]).await;
    let action = test_action(&kiln, &[("kiln-shards", "auto")]).await;
    let mut client = run(&kiln, &action).await;
    let lease = worker.lease().await;
    let mut response = ended(&kiln, 0, &["a", "b", "c", "d", "e"], false).await;
    let time = |seconds| Some(kiln_protos::protobuf::Timestamp { seconds, nanos: 0 });
    response.result.as_mut().unwrap().execution_metadata = Some(reapi::ExecutedActionMetadata {
        execution_start_timestamp: time(1_700_000_000),
        execution_completed_timestamp: time(1_700_000_025),
        ..Default::default()
    });
    worker.answer(&lease, response).await;
    assert_eq!(client.status().await.code, 0);
    kiln.cases_are_known().await;
    let mut client = run_again(&kiln, &action).await;
    let first = worker.lease().await;
    assert_eq!(variable(&kiln, &first, "TEST_TOTAL_SHARDS").await.unwrap(), "3");
    let leases = [first, worker.lease().await, worker.lease().await];
    for (lease, cases) in leases.iter().zip([["a"].as_slice(), &["b", "c"], &["d", "e"]]) {
        worker.answer(lease, ended(&kiln, 0, cases, true).await).await;
    }
    assert_eq!(client.status().await.code, 0);
}

#[tokio::test]
async fn cases_of_known_time_go_in_lists_to_a_runner_that_filters() {
    let kiln = Kiln::start().await;
    let mut worker = kiln.worker("w", 2, &[]).await;
    let properties = [("kiln-shards", "2"), ("kiln-shard-filter", "googletest")];
    let action = test_action(&kiln, &properties).await;
    let mut client = run(&kiln, &action).await;
    let leases = parts(&kiln, &mut worker, 2).await;
    worker.answer(&leases[0], ended(&kiln, 0, &["a", "b"], true).await).await;
    worker.answer(&leases[1], ended(&kiln, 0, &["c"], true).await).await;
    assert_eq!(client.status().await.code, 0);

    let mut client = run_again(&kiln, &action).await;
    let leases = [worker.lease().await, worker.lease().await];
    let mut filters = Vec::new();
    for lease in &leases {
        assert_eq!(variable(&kiln, lease, "TEST_TOTAL_SHARDS").await, None);
        let filter = variable(&kiln, lease, "TESTBRIDGE_TEST_ONLY").await.unwrap();
        let cases = if filter.starts_with("*-") { ["b", "new"] } else { ["a", "c"] };
        worker.answer(lease, ended(&kiln, 0, &cases, false).await).await;
        filters.push(filter);
    }
    filters.sort();
    assert_eq!(filters, ["*-S.a:S.c", "S.a:S.c"]);
    let result = client.response().await.result.unwrap();
    let report = content(&kiln, result.output_files[0].digest.as_ref()).await;
    assert_eq!(report.iter().filter(|byte| **byte == b'\n').count(), 4);
}

#[tokio::test]
async fn a_number_of_shards_that_is_none_is_refused_and_named() {
    let kiln = Kiln::start().await;
    let action = test_action(&kiln, &[("kiln-shards", "100")]).await;
    let error = try_run(&kiln, request(&action)).await.err().unwrap();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("kiln-shards"), "{error}");
}

#[tokio::test]
async fn other_actions_run_as_if_nothing_was_asked_for() {
    let kiln = Kiln::start().await;
    let mut worker = kiln.worker("w", 2, &[]).await;
    let action = test_action(&kiln, &[("kiln-shards", "2")]).await;
    // The action has another mnemonic. It has the properties of its target all the same, as all actions of a
    // target have.
    let mut client = kiln.try_execute(request(&action)).await.unwrap();
    let lease = worker.lease().await;
    assert_eq!(action_of(&lease), action.to_wire());
    worker.succeed(&lease).await;
    assert_eq!(client.status().await.code, 0);
}
