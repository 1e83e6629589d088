//! Which requests share a run, and which never do.

use kiln_protos::events::execution::Origin;
use kiln_protos::reapi::{self, execution_stage::Value as Stage};
use tonic::Code;

use crate::harness::{ActionSpec, Kiln, request};

async fn submit(kiln: &Kiln, request: reapi::ExecuteRequest) -> crate::harness::Client {
    let mut client = kiln.try_execute(request).await.unwrap();
    // After this update the request is in the queue.
    client.update().await;
    client
}

#[tokio::test]
async fn requests_for_one_action_share_a_run_and_each_is_recorded() {
    let mut kiln = Kiln::start().await;
    let action = kiln.simple().await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(submit(&kiln, request(&action)).await);
    }
    let mut worker = kiln.worker("w", 8, &[]).await;
    worker.succeed_next().await;
    for client in &mut clients {
        assert_eq!(client.status().await.code, 0);
    }
    let snapshot = kiln.snapshot().await;
    assert_eq!((snapshot.counters.dispatched, snapshot.counters.merged), (1, 2));
    let mut seen = Vec::new();
    for _ in 0..3 {
        let event = kiln.events.recv().await.unwrap();
        seen.push((event.origin(), event.id.clone()));
    }
    assert_eq!(seen[0].0, Origin::Executed);
    assert!(seen[1..].iter().all(|(origin, _)| *origin == Origin::Merged));
    seen.dedup_by_key(|(_, id)| id.clone());
    assert_eq!(seen.len(), 3, "each request has an id of its own");
}

/// Runs that two requests lead to.
async fn runs(first: reapi::ExecuteRequest, second: reapi::ExecuteRequest, kiln: &Kiln) -> u64 {
    let before = kiln.snapshot().await.counters;
    let mut clients = [submit(kiln, first).await, submit(kiln, second).await];
    let after = kiln.snapshot().await.counters;
    let runs = after.submitted - before.submitted;
    let mut worker = kiln.worker("w", 8, &[]).await;
    for _ in 0..runs {
        worker.succeed_next().await;
    }
    for client in &mut clients {
        assert_eq!(client.status().await.code, 0);
    }
    drop(worker);
    runs
}

#[tokio::test]
async fn what_must_not_be_merged_is_not() {
    let kiln = Kiln::start().await;
    let skip = |mut request: reapi::ExecuteRequest| {
        request.skip_cache_lookup = true;
        request
    };
    let uncached = kiln.action(ActionSpec { do_not_cache: true, ..Default::default() }).await;
    assert_eq!(runs(request(&uncached), request(&uncached), &kiln).await, 2);
    let action = kiln.simple().await;
    assert_eq!(runs(skip(request(&action)), skip(request(&action)), &kiln).await, 2);
    let action = kiln.simple().await;
    assert_eq!(runs(request(&action), skip(request(&action)), &kiln).await, 1);
    let action = kiln.simple().await;
    let other = reapi::ExecuteRequest { instance_name: "other".to_owned(), ..request(&action) };
    assert_eq!(runs(request(&action), other, &kiln).await, 2);
}

#[tokio::test]
async fn cancelling_one_of_two_requests_leaves_the_other() {
    let mut kiln = Kiln::start().await;
    let action = kiln.simple().await;
    let mut first = kiln.execute(&action).await;
    let mut second = kiln.execute(&action).await;
    let names = [first.update().await.name, second.update().await.name];
    assert_ne!(names[0], names[1]);
    let cancel =
        |name: &String| kiln_protos::longrunning::CancelOperationRequest { name: name.clone() };
    kiln.operations().cancel_operation(cancel(&names[0])).await.unwrap();
    assert_eq!(first.status().await.code, Code::Cancelled as i32);
    assert_eq!(kiln.events.recv().await.unwrap().status_code, Code::Cancelled as i32);

    let mut worker = kiln.worker("w", 1, &[]).await;
    let lease = worker.lease().await;
    second.until(Stage::Executing).await;
    // A client that comes back for the cancelled one still sees it cancelled.
    let mut again = kiln.wait(&names[0]).await.unwrap();
    assert_eq!(again.status().await.code, Code::Cancelled as i32);
    worker.succeed(&lease).await;
    assert_eq!(second.status().await.code, 0);
    assert_eq!(kiln.events.recv().await.unwrap().origin(), Origin::Merged);
}
