//! Whatever dies at whatever moment: what was asked for is done once.

use super::super::LEASE;
use super::*;

/// A runner that comes again and again, until what there is to do is done.
async fn survive(world: &World, calls: u64, last_is_done: bool) {
    let queues = world.server();
    let first = Driver::begin(world.server(), "setup").await.expect("it is free");
    let good = queues.ask(&queue(), &add("b")).await.expect("it is left");
    let gone = queues.ask(&queue(), &add("c")).await.expect("it is left");
    let out = queues.ask(&queue(), &remove("c")).await.expect("it is left");
    queues.leave(&queue(), first.fence).await.expect("it holds");
    world.memory.fail_after(calls, last_is_done);
    let mut runs = 0;
    loop {
        runs += 1;
        assert!(runs < 4, "it ends");
        let name = format!("runner {runs}");
        let worked = async {
            let mut driver = Driver::begin(world.server(), &name).await?;
            driver.work().await
        };
        if worked.await.is_ok() {
            break;
        }
        // The process is gone; another one comes when the lease is over.
        world.memory.recover();
        world.wait(LEASE);
    }
    world.memory.recover();
    for id in [good, gone, out] {
        let reply = queues.request(&queue(), id).await.expect("it is known").reply;
        assert_eq!(reply, Some(Reply::Done), "after {calls} calls");
    }
    let shown = queues.show(&queue(), 10).await.expect("a queue");
    let totals = shown.head.totals;
    assert_eq!((totals.landed, totals.left, totals.rejected), (1, 1, 0), "after {calls} calls");
    assert_eq!(shown.ended.len(), 2, "after {calls} calls");
    assert_eq!(totals.runs, shown.ran.len() as u64, "a run is counted once");
    assert!(shown.waiting.is_empty() && shown.lane.expect("a lane").changes.is_empty());
}

#[tokio::test]
async fn a_runner_is_killed_between_every_two_calls() {
    let whole = {
        let world = World::new();
        survive(&world, u64::MAX / 2, false).await;
        world.memory.calls()
    };
    for calls in 0..whole {
        for last_is_done in [false, true] {
            survive(&World::new(), calls, last_is_done).await;
        }
    }
}
