//! What people ask for, and what became of it.

use super::super::keys;
use super::*;
use crate::queue::Refused;
use crate::queue::serving::MAX_TAKEN;
use crate::storage::{Expect, Records, Write};

async fn replied(queues: &Queues, id: RequestId) -> Option<Reply> {
    queues.request(&queue(), id).await.expect("it is known").reply
}

#[tokio::test]
async fn a_request_is_answered_once_it_was_taken_in() {
    let world = World::new();
    let queues = world.server();
    let nobody = queues.ask(&queue(), &add("b")).await.unwrap_err();
    assert!(matches!(nobody, HostedError::NoQueue(_)), "no runner has ever been there");
    let mut driver = Driver::begin(world.server(), "one").await.expect("it is free");
    let id = queues.ask(&queue(), &add("b")).await.expect("it is left");
    let next = queues.ask(&queue(), &add("c")).await.expect("in the same millisecond");
    assert_ne!(id, next);
    assert_eq!(replied(&queues, id).await, None);
    driver.work().await.expect("it works");
    assert_eq!(replied(&queues, id).await, Some(Reply::Done));
    let shown = queues.show(&queue(), 10).await.expect("a queue");
    assert_eq!((shown.waiting.len(), shown.head.totals.landed), (0, 2));
    let later = queues.ask(&queue(), &add("d")).await.expect("it is left");
    assert!(later != id && later != next, "a number is never given again");
}

#[tokio::test]
async fn what_cannot_be_read_holds_up_no_other_request() {
    let world = World::new();
    let queues = world.server();
    let mut driver = Driver::begin(world.server(), "one").await.expect("it is free");
    // There are as many odd records as a runner takes in at once, and all come before the real requests.
    let odd = |at: usize| Write {
        key: format!("{}{at:016}", queue().inbox()),
        expect: Expect::Anything,
        value: Some("no request".into()),
    };
    world.memory.write((0..MAX_TAKEN).map(odd).collect()).await.expect("they are written");
    let id = queues.ask(&queue(), &add("b")).await.expect("it is left");
    driver.work().await.expect("it works");
    assert_eq!(replied(&queues, id).await, Some(Reply::Done));
    let shown = queues.show(&queue(), 10).await.expect("a queue");
    assert_eq!((shown.waiting.len(), shown.head.totals.landed), (0, 1));
    let left = world.memory.list(&queue().inbox(), None, false, 1_000).await.expect("a list");
    assert_eq!(left.len(), MAX_TAKEN, "nobody removes what nobody has read");
}

#[tokio::test]
async fn what_cannot_be_read_of_the_past_hides_nothing_else() {
    let world = World::new();
    let queues = world.server();
    let mut driver = Driver::begin(world.server(), "one").await.expect("it is free");
    queues.ask(&queue(), &add("b")).await.expect("it is left");
    driver.work().await.expect("it works");
    let before = queues.show(&queue(), 10).await.expect("a queue");
    assert_eq!((before.ended.len(), before.ran.len()), (1, 1));
    let odd = |key| Write { key, expect: Expect::Anything, value: Some("nothing".into()) };
    let odd = [format!("{}odd", keys::runs(&queue())), queue().key("ended/odd")].map(odd);
    world.memory.write(odd.into()).await.expect("they are written");
    let after = queues.show(&queue(), 10).await.expect("a queue");
    assert_eq!((after.ended, after.ran), (before.ended, before.ran));
}

#[tokio::test]
async fn what_is_not_there_cannot_be_removed_and_is_said_at_once() {
    let world = World::new();
    let queues = world.server();
    let mut driver = Driver::begin(world.server(), "one").await.expect("it is free");
    driver.work().await.expect("it works");
    let gone = queues.ask(&queue(), &remove("b")).await.unwrap_err();
    assert!(matches!(gone, HostedError::NoChange(_)), "{gone}");
    let target = queues.ask(&queue(), &add("main")).await.unwrap_err();
    assert!(matches!(target, HostedError::Refused(Refused::Target(_))), "{target}");
    // The change is on its way into the queue, and is removed before it was tested.
    queues.ask(&queue(), &add("b")).await.expect("it is left");
    let first = queues.ask(&queue(), &remove("b")).await.expect("it is asked for");
    let second = queues.ask(&queue(), &remove("b")).await.expect("nobody has heard the first");
    driver.requests().await.expect("they are taken in");
    assert_eq!(replied(&queues, first).await, Some(Reply::Done));
    assert!(replied(&queues, second).await.is_some());
    let shown = queues.show(&queue(), 10).await.expect("a queue");
    assert!(shown.lane.expect("a lane").changes.is_empty());
    assert_eq!((shown.head.totals.left, shown.head.totals.landed), (1, 0));
}

#[tokio::test]
async fn there_is_an_end_to_what_is_kept() {
    let world = World::new();
    let queues = world.server();
    let driver = Driver::begin(world.server(), "one").await.expect("it is free");
    let long = Ask { request: Request::Pause { why: "x".repeat(5_000) }, by: "y\n".repeat(500) };
    let id = queues.ask(&queue(), &long).await.expect("it is left");
    let kept = queues.request(&queue(), id).await.expect("it is known");
    let Request::Pause { why } = &kept.ask.request else { panic!("{kept:?}") };
    assert!(why.len() <= 300 && kept.ask.by.len() <= 300 && !kept.ask.by.contains('\n'));
    let value = queues.encoded("k", &kept).expect("it is written");
    let inbox = |at: u64| Write {
        key: format!("{}{at:016}", queue().inbox()),
        expect: Expect::Anything,
        value: Some(value.clone()),
    };
    world.memory.write((0..999).map(inbox).collect()).await.expect("they are written");
    let crowded = queues.ask(&queue(), &add("b")).await.unwrap_err();
    assert!(matches!(crowded, HostedError::Crowded(1_000)), "{crowded}");
    // A runner that says too much is refused, and nothing of it is kept.
    let lane = &driver.lane;
    let answered = vec![(RequestId(1), Reply::Done); 101];
    let ended = Ended {
        id: crate::queue::ChangeId(1),
        branch: branch("b"),
        head: None,
        added: Time(0),
        at: Time(0),
        end: crate::queue::End::Removed,
    };
    for much in [Step { answered, ..step(lane) }, Step { ended: vec![ended; 701], ..step(lane) }] {
        let refused = driver.queues.step(&queue(), driver.fence, 1, &much).await;
        assert!(matches!(refused, Err(HostedError::Invalid(_))));
    }
    assert_eq!(queues.head(&queue()).await.expect("a queue").steps, 0);
    for number in 1..100 {
        let name = LaneName::new(&format!("q{number}")).expect("a name");
        queues.take(&name, &runner("one")).await.expect("there is room");
    }
    let name = LaneName::new("more").expect("a name");
    let full = queues.take(&name, &runner("one")).await.unwrap_err();
    assert!(matches!(full, HostedError::Full(100)), "{full}");
}

#[tokio::test]
async fn a_queue_goes_with_all_that_was_kept_of_it_once_nobody_runs_it() {
    let world = World::new();
    let queues = world.server();
    let mut driver = Driver::begin(world.server(), "one").await.expect("it is free");
    queues.ask(&queue(), &add("b")).await.expect("it is left");
    driver.work().await.expect("it works");
    let busy = queues.forget(&queue()).await;
    assert!(matches!(busy, Err(HostedError::Busy { .. })));
    queues.leave(&queue(), driver.fence).await.expect("it holds");
    queues.forget(&queue()).await.expect("nobody runs it");
    assert_eq!(world.memory.records(), 0);
    assert!(matches!(queues.forget(&queue()).await, Err(HostedError::NoQueue(_))));
    world.wait(Duration::from_secs(1));
    let again = Driver::begin(world.server(), "two").await.expect("it is free");
    assert!(again.lane.changes.is_empty() && again.lane.base.is_none(), "it begins anew");
    // The runner of the forgotten queue comes back. The new queue must not take it for its own runner.
    let late = queues.pending(&queue(), driver.fence).await;
    assert!(matches!(late, Err(HostedError::Lost(_))), "{late:?}");
    let late = queues.leave(&queue(), driver.fence).await;
    assert!(matches!(late, Err(HostedError::Lost(_))), "{late:?}");
}

#[tokio::test]
async fn runs_are_kept_with_their_logs_and_the_oldest_go() {
    let world = World::new();
    let mut driver = Driver::begin(world.server(), "one").await.expect("it is free");
    driver.take(Event::Target(commit('0')), None, None).await.expect("it is written");
    for number in 1..=205_u64 {
        let ran = Ran {
            run: RunId(number),
            base: commit('0'),
            commit: None,
            members: Vec::new(),
            began: Time(0),
            ended: Time(2_000 * number),
            verdict: Verdict::Passed,
            log: format!("log of {number}"),
        };
        driver.take(Event::Tick, None, Some(ran)).await.expect("it is written");
    }
    let queues = world.server();
    let (first, last) = (queues.run_of(&queue(), RunId(5)).await, RunId(205));
    assert!(matches!(first, Err(HostedError::NoRun(5))));
    assert_eq!(queues.run_of(&queue(), last).await.expect("it is kept").log, "log of 205");
    assert_eq!(queues.ran(&queue()).await.expect("they are kept").len(), 200);
    let head = queues.head(&queue()).await.expect("a queue");
    assert_eq!(head.totals.runs, 205);
    assert_eq!(head.usual(), Some(Duration::from_secs(380)), "the middle of the last 31");
    let log = keys::log(&queue(), RunId(5));
    assert_eq!(world.memory.get(&log).await.expect("it is read"), None);
}

#[tokio::test]
async fn a_request_is_left_once_with_what_is_noted_beside_it() {
    let world = World::new();
    let (queues, other) = (world.server(), world.server());
    let mut driver = Driver::begin(world.server(), "one").await.expect("it is free");
    let once = [Write { key: "noted".into(), expect: Expect::Absent, value: Some("x".into()) }];
    let left = queues.ask_once(&queue(), &add("b"), &once).await.expect("it is left");
    assert!(left.is_some());
    for _ in 0..2 {
        let again = other.ask_once(&queue(), &add("b"), &once).await.expect("it is known");
        assert_eq!(again, None);
        // The request stays known after the runner has taken it in.
        driver.requests().await.expect("it takes them");
    }
    let shown = queues.show(&queue(), 10).await.expect("a queue");
    assert_eq!(shown.waiting.len(), 0);
    // A request that the queue refuses does not write the note that goes with it, either.
    let once = [Write { key: "other".into(), expect: Expect::Absent, value: Some("x".into()) }];
    queues.ask_once(&queue(), &remove("z"), &once).await.expect_err("it is not there");
    assert!(world.memory.get("other").await.expect("it answers").is_none());
}

#[tokio::test]
async fn what_was_left_before_is_not_refused_because_it_was_done_since() {
    let world = World::new();
    let queues = world.server();
    let mut driver = Driver::begin(world.server(), "one").await.expect("it is free");
    queues.ask(&queue(), &add("b")).await.expect("it is left");
    let once = [Write { key: "noted".into(), expect: Expect::Absent, value: Some("x".into()) }];
    let left = queues.ask_once(&queue(), &remove("b"), &once).await.expect("it is left");
    assert!(left.is_some());
    driver.requests().await.expect("it takes them");
    let refused = queues.ask(&queue(), &remove("b")).await.expect_err("it is gone");
    assert!(matches!(refused, HostedError::NoChange(_)), "{refused}");
    let again = queues.ask_once(&queue(), &remove("b"), &once).await.expect("it is known");
    assert_eq!(again, None);
}

#[tokio::test]
async fn requests_are_taken_in_the_order_in_which_they_were_left_whatever_clocks_say() {
    let world = World::new();
    let clock = Arc::new(Hand(AtomicU64::new(9_000_000)));
    let (ahead, behind) = (Queues::new(Arc::new(world.memory.clone()), clock), world.server());
    let mut driver = Driver::begin(world.server(), "one").await.expect("it is free");
    let first = ahead.ask(&queue(), &add("b")).await.expect("it is left");
    let second = behind.ask(&queue(), &remove("b")).await.expect("it is there to be removed");
    assert!(first < second, "{first:?} {second:?}");
    driver.requests().await.expect("it takes them");
    assert!(driver.lane.changes.is_empty(), "it was removed after it was added");
}
