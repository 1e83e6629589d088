//! What one instance may have waiting and running.

use std::time::Duration;

use kiln_protos::reapi::execution_stage::Value as Stage;
use kiln_scheduler::SchedulerConfig;
use kiln_scheduler::queue::{Limits, Quota};
use tonic::Code;

use crate::harness::{Kiln, request};

async fn kiln(instance: Quota) -> Kiln {
    let limits = Limits { instance, ..Limits::default() };
    Kiln::with(SchedulerConfig { limits, ..SchedulerConfig::default() }).await
}

#[tokio::test]
async fn more_than_may_wait_is_refused_with_the_reason() {
    let kiln = kiln(Quota { queued: 2, ..Quota::NONE }).await;
    let (first, second) = (kiln.simple().await, kiln.simple().await);
    let mut clients = [kiln.execute(&first).await, kiln.execute(&second).await];
    let error = kiln.try_execute(request(&kiln.simple().await)).await.err().unwrap();
    assert_eq!(error.code(), Code::ResourceExhausted);
    for said in ["2 actions of this instance", "quotas.instance_queued"] {
        assert!(error.message().contains(said), "{error}");
    }
    // Another instance is not concerned, and neither is a request for what waits already.
    let mut other = request(&first);
    other.instance_name = "other".to_owned();
    let mut other = kiln.try_execute(other).await.unwrap();
    assert_eq!(other.update().await.stage, Stage::Queued);
    let mut joined = kiln.execute(&first).await;
    let mut worker = kiln.worker("w", 3, &[]).await;
    for _ in 0..3 {
        worker.succeed_next().await;
    }
    for client in clients.iter_mut().chain([&mut other, &mut joined]) {
        assert_eq!(client.status().await.code, 0);
    }
    let mut next = kiln.execute(&kiln.simple().await).await;
    worker.succeed_next().await;
    assert_eq!(next.status().await.code, 0);
}

#[tokio::test]
async fn more_than_may_run_waits_though_slots_are_free() {
    let kiln = kiln(Quota { running: 1, ..Quota::NONE }).await;
    let mut worker = kiln.worker("w", 3, &[]).await;
    let mut other_worker = kiln.worker("v", 1, &[("kind", "other")]).await;
    let mut first = kiln.execute(&kiln.simple().await).await;
    let mut second = kiln.execute(&kiln.simple().await).await;
    let lease = worker.lease().await;
    assert_eq!(second.update().await.stage, Stage::Queued);
    tokio::time::timeout(Duration::from_millis(200), worker.next()).await.unwrap_err();
    let mut other = request(&kiln.simple().await);
    other.instance_name = "other".to_owned();
    let mut other = kiln.try_execute(other).await.unwrap();
    worker.succeed_next().await;
    assert_eq!(other.status().await.code, 0);
    // What waits for room may need another worker than the one whose slot is free now.
    let spec =
        crate::harness::ActionSpec { platform: vec![("kind", "other")], ..Default::default() };
    let mut elsewhere = kiln.execute(&kiln.action(spec).await).await;
    assert_eq!(elsewhere.update().await.stage, Stage::Queued);
    worker.succeed(&lease).await;
    worker.succeed_next().await;
    other_worker.succeed_next().await;
    for client in [&mut first, &mut second, &mut elsewhere] {
        assert_eq!(client.status().await.code, 0);
    }
}
