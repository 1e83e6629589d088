//! How many tools are kept, and for how long.

use std::time::Duration;

use kiln_protos::worker::scheduler_message::Kind;

use crate::harness::{Done, Fixture, ask, processes};

#[tokio::test(flavor = "multi_thread")]
async fn the_tool_that_waits_longest_makes_room() {
    let mut worker = Fixture::with(1, |config| config.persistent.tools = 2).await;
    let mut tools = ["a", "b", "c"].map(|_| ask(&[]));
    for (tool, key) in tools.iter_mut().zip(["a", "b", "c"]) {
        tool.key = Some(key.to_owned());
    }
    let [a, b, c] = &tools;
    let first = worker.done(a).await.by().0;
    worker.done(b).await;
    assert_eq!(worker.done(a).await.by(), (first.clone(), 2));
    worker.done(c).await;
    assert_eq!((worker.ended("evicted"), worker.figures().running), (1, 2));
    assert_eq!(worker.done(a).await.by(), (first, 3), "b had waited longer");
    assert_eq!(worker.done(b).await.by().1, 1);
    assert_eq!(worker.stop().await.figures().running, 0);
}

/// A caller who makes a tool do what it should not harms no other caller.
#[tokio::test(flavor = "multi_thread")]
async fn callers_share_no_tool_and_who_may_use_none_gets_none() {
    let mut worker = Fixture::with(1, |config| config.persistent.tools = 3).await;
    let mut by = Vec::new();
    for (number, tools) in [Some("ci"), Some("al"), Some("ci"), None].into_iter().enumerate() {
        let asked = ask(&[]).input("number", &number.to_string());
        let action = asked.put(&worker.store).await;
        let lease = kiln_protos::worker::Lease {
            tools: tools.map(str::to_owned),
            ..crate::scheduler::lease(&number.to_string(), action)
        };
        worker.scheduler.send(Kind::Lease(lease)).await;
        let response = worker.scheduler.completed().await.1.unwrap();
        by.push(Done(response.result.unwrap()).by());
    }
    assert_eq!(by[2], (by[0].0.clone(), 2));
    assert_eq!((by[1].1, by[3].1), (1, 0));
    assert_ne!(by[1].0, by[0].0);
    assert_eq!(worker.unfit("caller"), 1);
    worker.stop().await;
}

/// Buck2 gives each action a scratch directory of its own: it makes no other tool.
#[tokio::test(flavor = "multi_thread")]
async fn a_scratch_directory_is_no_part_of_a_tool() {
    let mut worker = Fixture::new().await;
    let mut asked = ask(&[]);
    let mut counts = Vec::new();
    for action in ["one", "two", "three"] {
        asked.scratch = Some(format!("buck-out/v2/tmp/root/0123456789abcdef/compile/{action}"));
        counts.push(worker.done(&asked).await.by().1);
    }
    assert_eq!(counts, [1, 2, 3]);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_nobody_asks_is_ended() {
    let idle = Duration::from_millis(300);
    let mut worker = Fixture::with(1, |config| config.persistent.idle = idle).await;
    let mut asked = ask(&[]);
    asked.arguments.insert(1, "--marked-as-4711-idle".into());
    let first = worker.done(&asked).await.by().0;
    assert_eq!(processes("--marked-as-4711-idle"), 1);
    worker.await_ended("idle").await;
    assert_eq!(processes("--marked-as-4711-idle"), 0);
    assert_ne!(worker.done(&asked).await.by().0, first);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_is_ended_after_so_many_requests() {
    let mut worker = Fixture::with(1, |config| config.persistent.requests = 2).await;
    let mut counts = Vec::new();
    for _ in 0..5 {
        counts.push(worker.done(&ask(&[])).await.by().1);
    }
    assert_eq!(counts, [1, 2, 1, 2, 1]);
    assert_eq!(worker.ended("worn_out"), 2);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_at_a_time_are_two_tools_or_one_runs_by_itself() {
    for (tools, alone) in [(2, 0), (1, 1)] {
        let mut worker = Fixture::with(2, |config| config.persistent.tools = tools).await;
        for id in ["one", "two"] {
            // Different actions: an input that nobody reads.
            let asked = ask(&["sleep 1.5"]).input(id, id);
            let action = asked.put(&worker.store).await;
            worker.scheduler.lease(id, action).await;
        }
        for _ in 0..2 {
            let result = worker.scheduler.completed().await.1.unwrap().result.unwrap();
            assert_eq!(result.exit_code, 0);
        }
        assert_eq!((worker.unfit("no_room"), worker.figures().started), (alone, 2 - alone));
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_tool_outlives_its_worker() {
    let mut worker = Fixture::new().await;
    let mut asked = ask(&[]);
    asked.arguments.insert(1, "--marked-as-4711-stop".into());
    worker.done(&asked).await;
    assert_eq!(processes("--marked-as-4711-stop"), 1);
    let figures = worker.stop().await.figures();
    assert_eq!(processes("--marked-as-4711-stop"), 0);
    assert_eq!(figures.running, 0);
    assert_eq!(figures.ended.iter().find(|(name, _)| *name == "shutdown").unwrap().1, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tool_left_behind_fails_no_action() {
    let limit = 8 << 20;
    let mut worker = Fixture::with(1, |config| config.limits.disk_bytes = Some(limit)).await;
    assert_eq!(worker.done(&ask(&["fill 3000000"])).await.by().1, 1);
    // What the tool left behind leaves too little room for this action, which alone has enough. So it runs by
    // itself.
    assert_eq!(worker.done(&ask(&["use 6000000"])).await.by().1, 0);
    assert_eq!((worker.ended("worn_out"), worker.unfit("worn_out")), (1, 1));
    // With little room left the answer stands, and the tool gets no other request.
    assert_eq!(worker.done(&ask(&["fill 7000000"])).await.by().1, 1);
    assert_eq!((worker.ended("worn_out"), worker.unfit("worn_out")), (2, 1));
    // An action that fails through its own fault runs only once.
    let result = worker.run(&ask(&["fail 3"])).await.result.unwrap();
    assert_eq!((result.exit_code, worker.unfit("worn_out")), (3, 1));
    assert_eq!(worker.figures().running, 1);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tool_keeps_open_of_its_outputs_is_bounded() {
    let mut worker = Fixture::new().await;
    let mut counts = Vec::new();
    for round in 0..4 {
        let asked = ask(&["keep out/o 6000000"]).input("round", &round.to_string());
        counts.push(worker.done(&asked).await.by().1);
    }
    assert_eq!(counts, [1, 2, 1, 2], "two requests keep more than one tool may");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_disk_no_tool_is_kept() {
    let upper = kiln_executor::sandbox::UpperDir::Disk;
    let mut worker = Fixture::with(1, |config| config.upper = upper).await;
    assert_eq!(worker.done(&ask(&[])).await.by().1, 0);
    worker.stop().await;
}
