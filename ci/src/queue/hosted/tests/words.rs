//! What a change waits for, in words, and for how long.

use super::super::{Before, Line, Place, expected, place, why};
use super::*;
use crate::queue::Change;

fn find(lane: &Lane, name: &str) -> Change {
    lane.changes.values().find(|it| it.branch.as_str() == name).expect("it is there").clone()
}

#[tokio::test]
async fn it_is_said_what_a_change_waits_for_and_for_how_long() {
    let world = World::new();
    let queues = world.server();
    let mut driver = Driver::begin(world.server(), "one").await.expect("it is free");
    let now = queues.now();
    let said = |lane: &Lane, name: &str| why(lane, &Line::of(lane, now), &find(lane, name));
    queues.ask(&queue(), &add("b")).await.expect("it is left");
    driver.requests().await.expect("it is taken in");
    assert_eq!(said(&driver.lane, "b"), "it is not known yet where the target is");
    driver.take(Event::Target(commit('0')), None, None).await.expect("it is written");
    let run = *driver.lane.runs.keys().next().expect("it is tested");
    assert_eq!(said(&driver.lane, "b"), format!("it is tested by itself in run {}", run.0));
    assert_eq!(place(&driver.lane, &find(&driver.lane, "b")), Place::Checking);
    queues.ask(&queue(), &add("c")).await.expect("it is left");
    driver.requests().await.expect("it is taken in");
    let waits = "1 change is before it, and the only worker is busy";
    assert_eq!(said(&driver.lane, "c"), waits);
    let head = queues.head(&queue()).await.expect("a queue");
    let later = find(&driver.lane, "c").id;
    let line = Line::of(&driver.lane, now);
    assert_eq!(line.before(later), Some(Before { all: 1, untested: 0 }));
    let left = expected(&driver.lane, &head, &line, later, now);
    assert_eq!(left, None, "no check was carried out yet");
    world.wait(Duration::from_secs(60));
    driver.check(run, Outcome::Passed).await.expect("it is written");
    assert_eq!(said(&driver.lane, "b"), format!("it lands with run {}", run.0));
    let head = queues.head(&queue()).await.expect("a queue");
    let line = Line::of(&driver.lane, queues.now());
    let left = expected(&driver.lane, &head, &line, later, queues.now()).expect("it is known");
    assert_eq!(left.check, Duration::from_secs(60));
    assert!(left.landed >= left.check && left.landed <= 2 * left.check, "{left:?}");
    driver.take(Event::Pause("lunch".to_owned()), None, None).await.expect("it is written");
    assert_eq!(said(&driver.lane, "c"), "the queue is paused: lunch");
    assert_eq!(expected(&driver.lane, &head, &line, later, queues.now()), None);
}
