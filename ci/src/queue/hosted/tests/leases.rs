//! A queue has one runner at a time; tests of that.

use proptest::prelude::*;

use super::super::LEASE;
use super::*;

#[tokio::test]
async fn a_second_runner_is_refused_until_the_first_is_silent() {
    let world = World::new();
    let queues = world.server();
    let (name, other) = (queue(), world.server());
    let first = queues.take(&name, &runner("one")).await.expect("it is free");
    let refused = other.take(&name, &runner("two")).await.unwrap_err();
    assert!(matches!(&refused, HostedError::Busy { holder, .. } if holder == "one"), "{refused}");
    let lane = Lane::new(branch("main"), Options::default());
    queues.step(&name, first.fence, 1, &step(&lane)).await.expect("it holds");
    // Each call renews the lease.
    for _ in 0..4 {
        world.wait(LEASE / 2);
        queues.pending(&name, first.fence).await.expect("it is heard");
        assert!(other.take(&name, &runner("two")).await.is_err());
    }
    world.wait(LEASE);
    assert!(!queues.head(&name).await.expect("a queue").connected(queues.now()));
    let second = other.take(&name, &runner("two")).await.expect("the first is silent");
    assert!(second.fence > first.fence);
    // The queue refuses everything that the first runner still says.
    let lost = |it: Result<(), HostedError>| matches!(it, Err(HostedError::Lost(_)));
    assert!(lost(queues.step(&name, first.fence, 2, &step(&lane)).await));
    assert!(lost(queues.pending(&name, first.fence).await.map(drop)));
    assert!(lost(queues.leave(&name, first.fence).await));
    assert_eq!(other.lane(&name, second.fence).await.expect("it holds"), Some(lane));
    other.leave(&name, second.fence).await.expect("it holds");
    let third = queues.take(&name, &runner("one")).await.expect("it was given back");
    assert!(third.fence > second.fence);
}

#[tokio::test]
async fn a_step_is_written_once_and_only_in_its_place() {
    let world = World::new();
    let mut driver = Driver::begin(world.server(), "one").await.expect("it is free");
    driver.take(Event::Target(commit('0')), None, None).await.expect("it is written");
    let (name, lane) = (queue(), driver.lane.clone());
    let other = Lane::new(branch("main"), Options::default());
    driver.queues.step(&name, driver.fence, 1, &step(&other)).await.expect("it is the same");
    assert_eq!(driver.queues.lane_of(&name).await.expect("a lane"), Some(lane));
    for number in [0, 3, u64::MAX] {
        let wrong = driver.queues.step(&name, driver.fence, number, &step(&other)).await;
        assert!(matches!(wrong, Err(HostedError::Invalid(_))), "{number}");
    }
    let elsewhere = Lane::new(branch("other"), Options::default());
    let wrong = driver.queues.step(&name, driver.fence, 2, &step(&elsewhere)).await;
    assert!(matches!(wrong, Err(HostedError::OtherTarget { .. })));
    let mut other = runner("one");
    other.about.target = "other".to_owned();
    let wrong = driver.queues.take(&name, &other).await;
    assert!(matches!(wrong, Err(HostedError::OtherTarget { .. })));
}

#[tokio::test]
async fn a_clock_that_ran_backwards_keeps_nobody_from_a_queue() {
    let world = World::new();
    let queues = world.server();
    world.wait(Duration::from_secs(7_200));
    let first = queues.take(&queue(), &runner("one")).await.expect("it is free");
    world.clock.0.fetch_sub(3_600_000, Ordering::Relaxed);
    // The queue hears a runner that lives, although the clock was set back. When a runner is silent, another
    // one takes its place.
    queues.pending(&queue(), first.fence).await.expect("it holds");
    assert!(queues.take(&queue(), &runner("two")).await.is_err());
    world.clock.0.fetch_sub(1_800_000, Ordering::Relaxed);
    queues.take(&queue(), &runner("two")).await.expect("the first one is silent");
}

/// What happens next in a test.
#[derive(Clone, Debug)]
enum Act {
    Take(usize),
    Ask,
    Work(usize),
    Again(usize),
    Leave(usize),
    Wait(u64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let who = || 0..3_usize;
    let act = prop_oneof![
        who().prop_map(Act::Take),
        Just(Act::Ask),
        who().prop_map(Act::Work),
        who().prop_map(Act::Again),
        who().prop_map(Act::Leave),
        (0..20_000_u64).prop_map(Act::Wait),
    ];
    proptest::collection::vec(act, 1..60)
}

/// Runs acts, and says what must hold after each.
async fn play(acts: Vec<Act>) {
    let world = World::new();
    let name = queue();
    // The fence that each runner believes to hold.
    let mut held: [Option<(u64, u64)>; 3] = [None; 3];
    let (mut fence, mut left, mut asked) = (0, false, Vec::new());
    let lane = Lane::new(branch("main"), Options::default());
    for act in acts {
        let queues = world.server();
        match act {
            Act::Wait(time) => world.wait(Duration::from_millis(time)),
            Act::Take(who) => {
                let connected = match queues.head(&name).await {
                    Ok(head) => head.connected(queues.now()),
                    Err(_) => false,
                };
                let own = held[who].is_some_and(|it| it.0 == fence);
                let taken = queues.take(&name, &runner(&who.to_string())).await;
                assert_eq!(taken.is_ok(), own || !connected, "{taken:?}");
                if let Ok(taken) = taken {
                    assert!(taken.fence > fence, "it grows");
                    (fence, left) = (taken.fence, false);
                    held[who] = Some((fence, 0));
                }
            }
            Act::Ask => {
                if fence > 0 {
                    asked.push(queues.ask(&name, &add("a")).await.expect("there is room"));
                }
            }
            Act::Work(who) => {
                let Some((own, number)) = held[who] else { continue };
                let pending = queues.pending(&name, own).await;
                assert_eq!(pending.is_ok(), own == fence && !left);
                let Ok(pending) = pending else { continue };
                let answered = pending.iter().map(|it| (it.id, Reply::Done)).collect();
                let step = Step { answered, ..step(&lane) };
                queues.step(&name, own, number + 1, &step).await.expect("it holds");
                held[who] = Some((own, number + 1));
                assert!(queues.pending(&name, own).await.expect("it holds").is_empty());
            }
            Act::Again(who) => {
                let Some((own, number)) = held[who] else { continue };
                let again = queues.step(&name, own, number, &step(&lane)).await;
                assert_eq!(again.is_ok(), own == fence && !left, "{again:?}");
            }
            Act::Leave(who) => {
                let Some((own, _)) = held[who] else { continue };
                let gone = queues.leave(&name, own).await;
                assert_eq!(gone.is_ok(), own == fence && !left);
                left |= gone.is_ok();
            }
        }
    }
    let queues = world.server();
    let mut ids = asked.clone();
    ids.dedup();
    assert_eq!(ids, asked, "each has a number of its own");
    for id in asked {
        assert!(queues.asked(&name, id).await.expect("it is read").is_some());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whoever_took_a_queue_last_has_it_alone(acts in acts()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(play(acts));
    }
}
