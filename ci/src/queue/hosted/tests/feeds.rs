//! Tests of who is told what.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, advance, timeout};

use super::super::{Feed, News, Told, keys};
use super::*;
use crate::queue::serving::{decode, encode};
use crate::storage::{Expect, Records, Write};

/// Longer than a process that is silent keeps its turn.
const SILENT: Duration = Duration::from_secs(32);

fn names(told: &[Told]) -> Vec<&'static str> {
    told.iter().flat_map(|it| &it.news).map(News::name).collect()
}

async fn all(feed: &Feed) -> Vec<Told> {
    let told = feed.take(100).await.expect("it is read");
    for it in &told {
        feed.done(it).await.expect("it is noted");
    }
    told
}

#[tokio::test(start_paused = true)]
async fn each_is_told_what_becomes_of_changes_from_when_it_came() {
    let world = World::new();
    let queues = world.server();
    let mut driver = Driver::begin(world.server(), "one").await.expect("it is free");
    let feed = queues.feed("forges");
    assert!(all(&feed).await.is_empty(), "it begins with what happens from now on");
    queues.ask(&queue(), &add("b")).await.expect("it is left");
    driver.work().await.expect("it works");
    assert_eq!(names(&all(&feed).await), ["change.queued", "change.testing", "change.landed"]);
    assert!(all(&feed).await.is_empty());
    let request = Request::Pause { why: "lunch".to_owned() };
    queues.ask(&queue(), &Ask { request, by: "ana".to_owned() }).await.expect("it is left");
    driver.work().await.expect("it works");
    let told = feed.take(100).await.expect("it is read");
    assert_eq!(told[0].news, [News::Paused { why: "lunch".to_owned() }]);
    // The news could not be told to the forge: it comes again at the same server, and no other server tells
    // it meanwhile.
    let elsewhere = world.server().feed("forges");
    assert!(elsewhere.take(100).await.expect("it is read").is_empty());
    assert_eq!(feed.take(100).await.expect("it is read"), told);
    // A clock that somebody sets does not make the turn end.
    world.wait(Duration::from_secs(3_600));
    assert!(elsewhere.take(100).await.expect("it is read").is_empty());
    world.clock.0.fetch_sub(3_600_000, Ordering::Relaxed);
    assert_eq!(feed.take(100).await.expect("it is read"), told);
    advance(SILENT).await;
    assert_eq!(elsewhere.take(100).await.expect("the other one is silent"), told);
    assert!(feed.take(100).await.expect("it is read").is_empty(), "another one tells by now");
    elsewhere.done(&told[0]).await.expect("it is noted");
    assert!(elsewhere.take(100).await.expect("it is read").is_empty());
    // All news has been told and the turn given up, so the server that sees the next news first can tell it
    // at once.
    let resume = Ask { request: Request::Resume, by: "ana".to_owned() };
    queues.ask(&queue(), &resume).await.expect("it is left");
    driver.work().await.expect("it works");
    let third = world.server().feed("forges");
    assert_eq!(names(&all(&third).await), ["queue.resumed"]);
    let other = queues.feed("webhook");
    assert!(other.take(100).await.expect("it is read").is_empty(), "it has a place of its own");
}

#[tokio::test]
async fn no_queue_waits_for_another_whose_news_cannot_be_told() {
    let world = World::new();
    let queues = world.server();
    let feed = queues.feed("forges");
    assert!(all(&feed).await.is_empty());
    for name in ["one", "two"] {
        let name = LaneName::new(name).expect("a name");
        queues.take(&name, &runner("a")).await.expect("it is free");
    }
    let mut first = Vec::new();
    for number in 0..3 {
        first.extend(feed.take_from(1, number).await.expect("it is read"));
    }
    let names: Vec<_> = first.iter().map(|it| it.queue.as_str()).collect();
    assert_eq!(names, ["one", "two", "one"]);
    assert_eq!(all(&feed).await.len(), 2);
    assert!(all(&feed).await.is_empty());
}

#[tokio::test]
async fn a_rejected_change_is_told_with_the_run_that_failed() {
    let world = World::new();
    let queues = world.server();
    let options = Options { exact: true, ..Options::default() };
    let mut driver = Driver::begin(world.server(), "one").await.expect("it is free");
    driver.lane = Lane::new(branch("main"), options);
    driver.take(Event::Target(commit('0')), None, None).await.expect("it is written");
    let feed = queues.feed("webhook");
    all(&feed).await;
    queues.ask(&queue(), &add("b")).await.expect("it is left");
    driver.requests().await.expect("it is taken in");
    let mut checked = Vec::new();
    // The run of the change fails. The run of the base, which the queue looks at before it rejects anybody,
    // passes.
    while let Some((run, _)) = driver.lane.outstanding().into_iter().next() {
        let base = driver.lane.runs[&run].members.is_empty();
        let targets = BTreeSet::from(["//a".to_owned()]);
        let failed = Outcome::Failed { targets, proven: true, affecting: None };
        let outcome = if base { Outcome::Passed } else { failed };
        checked.push((run, base));
        driver.check(run, outcome).await.expect("it is written");
    }
    let told = all(&feed).await;
    let news: Vec<_> = told.iter().flat_map(|it| &it.news).collect();
    let failing = checked.iter().rev().find(|(_, base)| !base).expect("one failed").0;
    let Some(News::Rejected { why, run, .. }) = news.last() else { panic!("{news:?}") };
    assert_eq!((why.as_str(), *run), ("rejected: //a failed", Some(failing.0)));
    let ran = queues.run_of(&queue(), failing).await.expect("it is kept");
    assert_eq!(ran.log, format!("log of {}", failing.0));
}

async fn damage(world: &World, key: String) {
    let value = Some(Bytes::from_static(b"nothing that a queue writes"));
    let write = Write { key, expect: Expect::Anything, value };
    world.memory.write(vec![write]).await.expect("it is written");
}

#[tokio::test]
async fn what_cannot_be_read_holds_up_no_other_news() {
    let world = World::new();
    let queues = world.server();
    let feed = queues.feed("forges");
    assert!(all(&feed).await.is_empty());
    let name = |name: &str| LaneName::new(name).expect("a name");
    for it in ["one", "two"] {
        queues.take(&name(it), &runner("a")).await.expect("it is free");
    }
    let kept = world.memory.list(&keys::all_news(&name("one")), None, false, 10).await;
    damage(&world, kept.expect("it is read")[0].key.clone()).await;
    let told = all(&feed).await;
    let read = told.iter().filter(|it| !it.news.is_empty());
    assert_eq!(read.map(|it| it.queue.as_str()).collect::<Vec<_>>(), ["two"]);
    assert!(all(&feed).await.is_empty(), "it is passed by once and for all");
    // Nor does a queue whose head cannot be read, or whose lane cannot.
    damage(&world, keys::head(&name("one"))).await;
    damage(&world, name("two").key("lane")).await;
    queues.take(&name("three"), &runner("a")).await.expect("it is free");
    let told = all(&feed).await;
    assert_eq!(told.iter().map(|it| it.queue.as_str()).collect::<Vec<_>>(), ["three"]);
    let gauges = queues.gauges().await.expect("they are counted");
    assert_eq!(gauges.iter().map(|it| &*it.name).collect::<Vec<_>>(), ["three", "two"]);
}

#[tokio::test]
async fn who_is_told_begins_anew_where_it_cannot_be_read_how_far_that_came() {
    let world = World::new();
    let queues = world.server();
    let feed = queues.feed("forges");
    assert!(all(&feed).await.is_empty());
    let first = queues.take(&queue(), &runner("a")).await.expect("it is free");
    damage(&world, keys::feed("forges")).await;
    assert!(all(&feed).await.is_empty(), "nobody knows whether it was told");
    queues.leave(&queue(), first.fence).await.expect("it holds");
    queues.take(&queue(), &runner("b")).await.expect("it was given back");
    let told = all(&feed).await;
    let news: Vec<_> = told.iter().flat_map(|it| it.news.clone()).collect();
    assert_eq!(news, [News::Runner { name: "b".to_owned() }]);
}

/// A step may be of many changes, and a forge slow.
#[tokio::test(start_paused = true)]
async fn nobody_else_tells_what_takes_longer_than_the_lease() {
    let world = World::new();
    let queues = world.server();
    let feed = queues.feed("forges");
    assert!(all(&feed).await.is_empty());
    queues.take(&queue(), &runner("a")).await.expect("it is free");
    assert_eq!(feed.take(100).await.expect("it is read").len(), 1);
    let elsewhere = world.server().feed("forges");
    let slow = async {
        for _ in 0..12 {
            tokio::time::sleep(Duration::from_secs(9)).await;
            assert!(elsewhere.take(100).await.expect("it is read").is_empty());
        }
    };
    assert_eq!(feed.telling(slow).await, Some(()));
    // The record of whose turn it is was lost: another server tells the news, and this one stops.
    let lost = async {
        damage(&world, keys::feed_turn("forges")).await;
        let another = world.server().feed("forges");
        assert_eq!(another.take(100).await.expect("it is read").len(), 1);
        std::future::pending::<()>().await;
    };
    assert_eq!(feed.telling(lost).await, None);
    assert_eq!(feed.telling(async {}).await, None, "it does not even begin");
}

#[tokio::test(start_paused = true)]
async fn whoever_tells_stops_before_another_one_may_where_nobody_answers() {
    let world = World::new();
    let queues = world.server();
    let feed = queues.feed("forges");
    assert!(all(&feed).await.is_empty());
    queues.take(&queue(), &runner("a")).await.expect("it is free");
    assert_eq!(feed.take(100).await.expect("it is read").len(), 1);
    world.memory.fall_silent();
    let began = Instant::now();
    let told = timeout(2 * SILENT, feed.telling(std::future::pending::<()>())).await;
    assert_eq!(told, Ok(None), "it goes on");
    assert!(began.elapsed() < SILENT, "another one may tell by then");
}

#[tokio::test(start_paused = true)]
async fn nothing_more_is_told_once_the_lease_is_over() {
    // Chance would decide about each.
    for _ in 0..20 {
        let world = World::new();
        let queues = world.server();
        let feed = queues.feed("forges");
        assert!(all(&feed).await.is_empty());
        queues.take(&queue(), &runner("a")).await.expect("it is free");
        assert_eq!(feed.take(100).await.expect("it is read").len(), 1);
        let told_more = Cell::new(false);
        let work = async {
            tokio::time::sleep(SILENT).await;
            told_more.set(true);
        };
        let pause = async {
            world.memory.fall_silent();
            advance(2 * SILENT).await;
        };
        let (told, ()) = tokio::join!(feed.telling(work), pause);
        assert_eq!((told, told_more.get()), (None, false));
    }
}

/// How far somebody has heard, as earlier versions write and read it.
#[derive(Serialize, Deserialize)]
struct Earlier {
    holder: String,
    until: Time,
    heard: BTreeMap<String, u64>,
}

#[tokio::test(start_paused = true)]
async fn who_is_told_goes_on_where_an_earlier_version_stopped_and_that_version_behind_it() {
    let world = World::new();
    let queues = world.server();
    let first = queues.take(&queue(), &runner("a")).await.expect("it is free");
    let heard = queues.head(&queue()).await.expect("it is read").news;
    queues.leave(&queue(), first.fence).await.expect("it holds");
    queues.take(&queue(), &runner("b")).await.expect("it was given back");
    let key = keys::feed("forges");
    let heard = BTreeMap::from([("app".to_owned(), heard)]);
    let before = Earlier { holder: "before".to_owned(), until: queues.now(), heard };
    let value = Some(encode(&before).expect("it is encoded"));
    let write = Write { key: key.clone(), expect: Expect::Absent, value };
    world.memory.write(vec![write]).await.expect("it is written");
    let told = all(&queues.feed("forges")).await;
    let news: Vec<_> = told.iter().flat_map(|it| it.news.clone()).collect();
    assert_eq!(news, [News::Runner { name: "b".to_owned() }]);
    let kept = world.memory.get(&key).await.expect("it is read").expect("it is kept");
    let after: Earlier = decode(&key, &kept.value).expect("that version reads it");
    assert_eq!(after.heard["app"], told[0].number);
}
