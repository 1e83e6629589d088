//! What clients require of Execute and WaitExecution.

use std::time::Duration;

use bytes::Bytes;
use kiln_cas::{ActionCache, BlobStore, Digest, DigestFunction};
use kiln_protos::events::execution::Origin;
use kiln_protos::reapi::{self, execution_stage::Value as Stage};
use kiln_protos::rpc;
use kiln_scheduler::SchedulerConfig;
use prost::Message;
use tonic::Code;

use crate::errors::missing;
use crate::harness::{ActionSpec, Failover, Kiln, exited, request};

#[tokio::test]
async fn a_run_goes_through_its_stages_and_is_published_after_its_blobs_are_durable() {
    let config = SchedulerConfig { base_url: "http://kiln".to_owned(), ..Default::default() };
    let mut kiln = Kiln::with(config).await;
    let action = kiln.simple().await;
    let mut client = kiln.execute(&action).await;
    let first = client.update().await;
    assert_eq!(first.stage, Stage::Queued);
    assert!(first.name.starts_with("main/operations/"));
    assert!(first.metadata.stdout_stream_name.starts_with("main/logstreams/"));
    assert!(first.metadata.stderr_stream_name.ends_with("/stderr"));

    let mut worker = kiln.worker("w", 1, &[]).await;
    let lease = worker.lease().await;
    assert_eq!((lease.attempt, lease.operation_name.as_str()), (1, first.name.as_str()));
    assert_eq!(lease.instance_name, "main");
    assert_eq!(lease.action.as_ref().unwrap().hash, action.hex());
    assert!(!lease.request_metadata.is_empty());
    client.until(Stage::Executing).await;
    assert!(!kiln.cached(&action).await);
    worker.succeed(&lease).await;

    let response = client.response().await;
    assert!(!response.cached_result);
    let link = format!(
        "http://kiln/actions/sha256/{}/{}?instance=main&operation={}",
        action.hex(),
        action.size,
        first.name
    );
    assert_eq!(response.message, link);
    let metadata = response.result.unwrap().execution_metadata.unwrap();
    assert_eq!(metadata.worker, "w");
    for timestamp in [
        metadata.queued_timestamp,
        metadata.worker_start_timestamp,
        metadata.worker_completed_timestamp,
        metadata.input_fetch_start_timestamp,
        metadata.input_fetch_completed_timestamp,
        metadata.execution_start_timestamp,
        metadata.execution_completed_timestamp,
        metadata.output_upload_start_timestamp,
        metadata.output_upload_completed_timestamp,
    ] {
        assert!(timestamp.is_some_and(|timestamp| timestamp.seconds > 1_600_000_000));
    }
    assert_eq!(*kiln.notes.lock().unwrap(), ["sync", "put"]);
    assert!(kiln.cached(&action).await);

    let event = kiln.events.recv().await.unwrap();
    assert_eq!((event.id.as_str(), event.origin()), (first.name.as_str(), Origin::Executed));
    assert_eq!((event.target_id.as_str(), event.mnemonic.as_str()), ("//a:b", "Genrule"));
    assert_eq!((event.invocation_id.as_str(), event.tool_name.as_str()), ("build-1", "bazel"));
    assert_eq!((event.worker.as_str(), event.attempts), ("w", 1));
    assert!(event.command.is_some() && event.input_root.is_some());
    let times = event.timeline.unwrap();
    // The clock of a queue in Redis tells milliseconds.
    let order = [times.received, times.queued, times.leased, times.finished];
    let order = order.map(|nanos| nanos / 1_000_000);
    assert!(order.is_sorted() && order[0] > 0, "{order:?}");
    assert!(reapi::ActionResult::decode(event.action_result.clone()).is_ok());
}

#[tokio::test]
async fn a_cached_result_is_answered_at_once_unless_the_client_wants_a_run() {
    let mut kiln = Kiln::start().await;
    let action = kiln.simple().await;
    let result = reapi::ActionResult { stdout_raw: b"hit".to_vec(), ..Default::default() };
    kiln.actions.put(&kiln.key(&action), result.encode_to_vec().into()).await.unwrap();
    let response = kiln.execute(&action).await.response().await;
    assert!(response.cached_result);
    assert_eq!(response.result.unwrap().stdout_raw, b"hit");
    let event = kiln.events.recv().await.unwrap();
    assert_eq!(event.origin(), Origin::CacheHit);
    assert!(event.command.is_some() && !event.action_result.is_empty());
    assert_eq!(kiln.snapshot().await.cache_hits, 1);

    // Another instance does not see it; skip_cache_lookup runs, and still writes.
    let mut worker = kiln.worker("w", 2, &[]).await;
    let elsewhere = reapi::ExecuteRequest { instance_name: "other".to_owned(), ..request(&action) };
    let again = reapi::ExecuteRequest { skip_cache_lookup: true, ..request(&action) };
    kiln.notes.lock().unwrap().clear();
    for request in [elsewhere, again] {
        let mut client = kiln.try_execute(request).await.unwrap();
        worker.succeed_next().await;
        assert!(!client.response().await.cached_result);
    }
    assert_eq!(*kiln.notes.lock().unwrap(), ["sync", "put", "sync", "put"]);
}

#[tokio::test]
async fn a_result_is_published_again_when_redis_fails_over_meanwhile() {
    let kiln = Kiln::start().await;
    let mut worker = kiln.worker("w", 1, &[]).await;
    for failover in [Failover::BeforePut, Failover::AfterPut] {
        let action = kiln.simple().await;
        kiln.notes.lock().unwrap().clear();
        kiln.actions.fail_over(failover);
        let mut client = kiln.execute(&action).await;
        worker.succeed_next().await;
        assert!(client.response().await.result.is_some());
        // Perhaps a little after its client has the answer.
        let published = async {
            while !kiln.cached(&action).await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), published).await.expect("it is lost");
        // After the failover the blobs are made durable and the result is put once more, because the old
        // master's do not count.
        assert_eq!(*kiln.notes.lock().unwrap(), ["sync", "put", "sync", "put"]);
    }
}

#[tokio::test]
async fn a_result_whose_outputs_are_not_in_the_store_is_not_published() {
    let kiln = Kiln::start().await;
    let mut worker = kiln.worker("w", 1, &[]).await;
    let there = Bytes::from_static(b"an output that was stored");
    let stored = DigestFunction::Sha256.digest(&there);
    kiln.blobs.write(&stored, there).await.unwrap();
    let lost = DigestFunction::Sha256.digest(b"an output that was not");
    let file = |digest: &Digest| reapi::OutputFile {
        path: digest.hex(),
        digest: Some(digest.to_wire()),
        ..Default::default()
    };
    let directory = reapi::OutputDirectory {
        path: "tree".to_owned(),
        tree_digest: Some(lost.to_wire()),
        ..Default::default()
    };
    let with_file = reapi::ActionResult {
        output_files: vec![file(&stored), file(&lost)],
        ..Default::default()
    };
    let with_tree =
        reapi::ActionResult { output_directories: vec![directory], ..Default::default() };
    for result in [with_file, with_tree] {
        let action = kiln.simple().await;
        let mut client = kiln.execute(&action).await;
        let answer = reapi::ExecuteResponse { result: Some(result), ..Default::default() };
        worker.answer_next(answer).await;
        let status = client.status().await;
        assert_eq!(status.code, Code::Unavailable as i32);
        assert!(status.message.contains(&lost.to_string()), "{}", status.message);
        assert!(!kiln.cached(&action).await);
    }
    assert!(kiln.notes.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_failed_or_must_not_be_cached_is_not_published() {
    let kiln = Kiln::start().await;
    let mut worker = kiln.worker("w", 1, &[]).await;

    let failing = kiln.simple().await;
    let mut client = kiln.execute(&failing).await;
    worker.answer_next(exited(7)).await;
    let response = client.response().await;
    assert_eq!(response.result.unwrap().exit_code, 7);
    assert_eq!(response.status.unwrap_or_default().code, 0);
    // A log for people comes with a failure.
    let log = response.server_logs.values().next().expect("a failure has a server log");
    assert!(log.human_readable);
    let digest = Digest::from_wire(log.digest.as_ref().unwrap(), DigestFunction::Sha256).unwrap();
    let text = kiln.blobs.read(&digest, 0, None).await.unwrap().collect(1 << 20).await.unwrap();
    let text = String::from_utf8(text.to_vec()).unwrap();
    assert!(text.contains("exit code: 7") && text.contains("worker: w"), "{text}");

    let timed_out = kiln.simple().await;
    let mut client = kiln.execute(&timed_out).await;
    let status = rpc::Status {
        code: Code::DeadlineExceeded as i32,
        message: "after 5 s".to_owned(),
        details: Vec::new(),
    };
    let mut late = exited(0);
    late.result.as_mut().unwrap().stdout_raw = b"so far".to_vec();
    late.status = Some(status);
    worker.answer_next(late).await;
    let response = client.response().await;
    assert_eq!(response.status.unwrap().code, Code::DeadlineExceeded as i32);
    assert_eq!(response.result.unwrap().stdout_raw, b"so far");

    let uncached = kiln.action(ActionSpec { do_not_cache: true, ..Default::default() }).await;
    let mut client = kiln.execute(&uncached).await;
    worker.succeed_next().await;
    assert_eq!(client.status().await.code, 0);

    for action in [failing, timed_out, uncached] {
        assert!(!kiln.cached(&action).await);
    }
    assert!(kiln.notes.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_platform_of_the_command_counts_where_the_action_has_none() {
    let kiln = Kiln::start().await;
    let mut linux = kiln.worker("linux", 1, &[("os", "linux")]).await;
    let mut mac = kiln.worker("mac", 1, &[("os", "mac")]).await;
    let spec = ActionSpec {
        platform: vec![("os", "mac")],
        platform_on_command: true,
        ..Default::default()
    };
    let mut client = kiln.execute(&kiln.action(spec).await).await;
    mac.succeed_next().await;
    let result = client.response().await.result.unwrap();
    assert_eq!(result.execution_metadata.unwrap().worker, "mac");
    let spec = ActionSpec { platform: vec![("os", "linux")], ..Default::default() };
    let mut client = kiln.execute(&kiln.action(spec).await).await;
    linux.succeed_next().await;
    assert_eq!(client.status().await.code, 0);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_client_hears_heartbeats() {
    let kiln = Kiln::in_memory(SchedulerConfig {
        operation_heartbeat: Duration::from_secs(4),
        ..Default::default()
    })
    .await;
    let mut client = kiln.execute(&kiln.simple().await).await;
    let begun = tokio::time::Instant::now();
    let name = client.update().await.name;
    assert_eq!(begun.elapsed().as_secs(), 0, "the first update does not wait");
    for n in 1..5 {
        assert_eq!(client.update().await.name, name);
        assert_eq!(begun.elapsed().as_secs(), 4 * n);
    }
}

#[tokio::test(start_paused = true)]
async fn what_no_worker_can_run_fails_with_the_reason_after_a_grace_period() {
    let config = SchedulerConfig { base_url: "http://kiln".to_owned(), ..Default::default() };
    let mut kiln = Kiln::in_memory(config).await;
    let worker = kiln.worker("w", 1, &[("os", "linux")]).await;
    let spec = ActionSpec { platform: vec![("os", "plan9")], ..Default::default() };
    let action = kiln.action(spec).await;
    let begun = tokio::time::Instant::now();
    let mut client = kiln.execute(&action).await;
    // The worker goes on sending heartbeats meanwhile.
    let alive = tokio::spawn(async move {
        loop {
            worker.heartbeat(&[]).await;
            tokio::time::sleep(Duration::from_secs(10)).await;
            if worker.outbound.is_closed() {
                return;
            }
        }
    });
    let status = client.status().await;
    assert_eq!(status.code, Code::FailedPrecondition as i32);
    assert!(status.details.is_empty(), "uploading blobs would not help");
    assert!(
        status.message.contains("no worker offers os=plan9 (workers offer os: linux)"),
        "{}",
        status.message
    );
    let (told, link) = status.message.rsplit_once('\n').expect("a line of its own for the link");
    assert!(link.starts_with("http://kiln/actions/sha256/"), "{link}");
    assert!(told.ends_with("correct its platform properties or add a worker"), "{told}");
    assert_eq!(begun.elapsed().as_secs(), 30);
    assert_eq!(kiln.events.recv().await.unwrap().status_code, Code::FailedPrecondition as i32);
    alive.abort();
}

#[tokio::test(start_paused = true)]
async fn a_worker_may_join_within_the_grace_period() {
    let kiln = Kiln::in_memory(SchedulerConfig::default()).await;
    let spec = ActionSpec { platform: vec![("os", "linux")], ..Default::default() };
    let mut client = kiln.execute(&kiln.action(spec).await).await;
    assert_eq!(client.update().await.stage, Stage::Queued);
    tokio::time::sleep(Duration::from_secs(29)).await;
    let mut worker = kiln.worker("w", 1, &[("os", "*")]).await;
    worker.succeed_next().await;
    assert_eq!(client.status().await.code, 0);
}

#[tokio::test]
async fn contents_are_inlined_only_where_asked_for() {
    let kiln = Kiln::start().await;
    let mut worker = kiln.worker("w", 1, &[]).await;
    let stdout = kiln.blob(b"hello".to_vec(), DigestFunction::Sha256).await;
    for (inline_stdout, expected) in [(false, b"".as_slice()), (true, b"hello")] {
        let action = kiln.simple().await;
        let request = reapi::ExecuteRequest { inline_stdout, ..request(&action) };
        let mut client = kiln.try_execute(request).await.unwrap();
        let mut response = exited(0);
        response.result.as_mut().unwrap().stdout_digest = Some(stdout.to_wire());
        worker.answer_next(response).await;
        assert_eq!(client.response().await.result.unwrap().stdout_raw, expected);
    }
}

#[tokio::test]
async fn wait_execution_reconnects_also_to_what_is_finished() {
    let kiln = Kiln::start().await;
    let error = kiln.wait("main/operations/unknown").await.err().unwrap();
    assert_eq!(error.code(), Code::NotFound);
    let mut first = kiln.execute(&kiln.simple().await).await;
    let name = first.update().await.name;
    let elsewhere = name.replace("main/", "other/");
    assert_eq!(kiln.wait(&elsewhere).await.err().unwrap().code(), Code::NotFound);
    drop(first);
    let mut second = kiln.wait(&name).await.unwrap();
    assert_eq!(second.update().await.name, name);
    let mut worker = kiln.worker("w", 1, &[]).await;
    worker.succeed_next().await;
    assert_eq!(second.status().await.code, 0);
    assert_eq!(kiln.wait(&name).await.unwrap().status().await.code, 0);
}

#[tokio::test(start_paused = true)]
async fn a_slow_cache_is_announced_and_its_errors_are_in_the_response() {
    let kiln = Kiln::in_memory(SchedulerConfig::default()).await;
    kiln.blobs.delay(Duration::from_secs(3));
    let missing_action = DigestFunction::Sha256.digest(b"missing");
    let mut client = kiln.execute(&missing_action).await;
    assert_eq!(client.update().await.stage, Stage::CacheCheck);
    assert_eq!(missing(&client.status().await).len(), 1);
}
