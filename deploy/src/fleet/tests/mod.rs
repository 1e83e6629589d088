//! What agents may say, and what follows from it.

mod sharing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use kiln_cas::records::{Expect, Records as _, Write};
use kiln_cas::stores::MemoryRecords;

use super::{Condition, FORGOTTEN, Filter, Fleet, FleetError, MAX_AGENTS, SILENT};
use crate::agent::{Health, Report, Speaker, Status};
use crate::oci::ContentDigest;
use crate::rollouts::machine::Generation;
use crate::rollouts::parts::{self, Order, Place, Selector, Targets as _, Told};

const SECOND: i64 = 1_000_000_000;

struct House {
    fleet: Fleet,
    records: Arc<MemoryRecords>,
    now: Arc<AtomicI64>,
}

impl House {
    fn new() -> Self {
        let (records, now) =
            (Arc::new(MemoryRecords::default()), Arc::new(AtomicI64::new(1_000_000 * SECOND)));
        let fleet = Self::frontend(&records, &now);
        Self { fleet, records, now }
    }

    fn frontend(records: &Arc<MemoryRecords>, now: &Arc<AtomicI64>) -> Fleet {
        let now = now.clone();
        Fleet::new(records.clone(), Arc::new(move || now.load(Ordering::Relaxed)))
    }

    fn later(&self, time: Duration) {
        self.now.fetch_add(time.as_nanos() as i64, Ordering::Relaxed);
    }

    async fn say(&self, status: Status) {
        self.fleet.report(&report("web-1", status), "").await.unwrap();
    }

    /// web-1 is told to run "one", and turns from well to unwell and back, twice.
    async fn flap(&self) {
        self.say(settled("one", 0)).await;
        self.fleet.tell("web-1", &order("one", 1)).await.unwrap();
        let unwell = || Health::Unwell("503".to_owned());
        for health in [unwell(), Health::Well, unwell(), Health::Well] {
            self.later(Duration::from_secs(1));
            self.say(Status { health, ..settled("one", 1) }).await;
        }
        assert_eq!(self.condition().await, Condition::Flapping);
    }

    async fn condition(&self) -> Condition {
        self.fleet.show_agent(&place(), "web-1").await.unwrap().condition
    }

    async fn observed(&self) -> Option<parts::Observation> {
        let observed = self.fleet.observe(&place(), &["web-1".to_owned()]).await.unwrap();
        observed.into_iter().next().unwrap()
    }
}

fn place() -> Place {
    Place { service: "api".to_owned(), environment: "prod".to_owned() }
}

fn version(text: &str) -> ContentDigest {
    ContentDigest::of(text.as_bytes())
}

fn speaker(name: &str) -> Speaker {
    Speaker { place: place(), name: name.to_owned(), identity: "of its directory".to_owned() }
}

fn report(name: &str, status: Status) -> Report {
    Report {
        from: speaker(name),
        address: Some(format!("{name}:80")),
        labels: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
        software: "0.1.0".to_owned(),
        status,
    }
}

fn generation(change: u64) -> Generation {
    Generation { fence: 1, change }
}

fn order(text: &str, change: u64) -> Order {
    Order {
        place: place(),
        version: version(text),
        generation: generation(change),
        rollout: "r".to_owned(),
    }
}

/// An agent that has carried out what it was told.
fn settled(text: &str, change: u64) -> Status {
    Status {
        running: Some(version(text)),
        accepted: generation(change),
        settled: generation(change),
        health: Health::Well,
        ..Status::default()
    }
}

#[tokio::test]
async fn a_name_belongs_to_whoever_registered_it() {
    let house = House::new();
    let fleet = &house.fleet;
    fleet.report(&report("web-1", Status::default()), "token one").await.unwrap();
    let other = fleet.report(&report("web-1", Status::default()), "token two").await;
    assert!(matches!(other, Err(FleetError::Bound { .. })), "{other:?}");
    let asks =
        fleet.next_order(&speaker("web-1"), "token two", generation(0), Duration::ZERO).await;
    assert!(matches!(asks, Err(FleetError::Bound { .. })), "{asks:?}");
    // The twin is another host that has the same name and credentials.
    let mut twin = report("web-1", Status::default());
    twin.from.identity = "of another directory".to_owned();
    let two = fleet.report(&twin, "token one").await;
    assert!(matches!(two, Err(FleetError::Twice { .. })), "{two:?}");
    house.later(SILENT);
    fleet.report(&twin, "token one").await.unwrap();
    // A host that was removed has to register again, and anybody may register under its name.
    fleet.remove(&place(), "web-1").await.unwrap();
    assert!(matches!(fleet.remove(&place(), "web-1").await, Err(FleetError::Unknown { .. })));
    fleet.report(&report("web-1", Status::default()), "token two").await.unwrap();
}

#[tokio::test]
async fn what_nobody_in_particular_registered_is_bound_to_the_first_with_a_name() {
    let house = House::new();
    let fleet = &house.fleet;
    for account in ["", "token one", "token one"] {
        fleet.report(&report("web-1", Status::default()), account).await.unwrap();
    }
    for account in ["", "token two"] {
        let other = fleet.report(&report("web-1", Status::default()), account).await;
        assert!(matches!(other, Err(FleetError::Bound { .. })), "{account}: {other:?}");
    }
}

#[tokio::test]
async fn what_an_agent_says_is_bounded() {
    let house = House::new();
    for broken in [
        |it: &mut Report| it.from.name = "../x".to_owned(),
        |it: &mut Report| it.from.place.service = String::new(),
        |it: &mut Report| it.from.identity = "x".repeat(65),
        |it: &mut Report| it.labels = (0..33).map(|n| (format!("l{n}"), String::new())).collect(),
        |it: &mut Report| it.address = Some("web 1".to_owned()),
        |it: &mut Report| it.status.failed = Some("x".repeat(2_000)),
        |it: &mut Report| it.status.health = Health::Unwell("x".repeat(2_000)),
    ] {
        let mut said = report("web-1", Status::default());
        broken(&mut said);
        let refused = house.fleet.report(&said, "").await;
        assert!(matches!(refused, Err(FleetError::Name(_))), "{refused:?}");
    }
    let full = serde_json::to_vec(&MAX_AGENTS).unwrap().into();
    let write = Write { key: super::keys::COUNT.into(), expect: Expect::Absent, value: Some(full) };
    house.records.write(vec![write]).await.unwrap();
    let one_more = house.fleet.report(&report("web-1", Status::default()), "").await;
    assert!(matches!(one_more, Err(FleetError::Full)), "{one_more:?}");
}

#[tokio::test]
async fn orders_grow_newer_and_one_generation_means_one_version() {
    let house = House::new();
    let unknown = house.fleet.tell("web-1", &order("one", 1)).await;
    assert!(unknown.unwrap_err().to_string().contains("no agent web-1"));
    house.fleet.report(&report("web-1", Status::default()), "").await.unwrap();
    let tell = async |of: &str, change| house.fleet.tell("web-1", &order(of, change)).await;
    assert_eq!(tell("one", 2).await.unwrap(), Told::Accepted);
    assert_eq!(tell("one", 2).await.unwrap(), Told::Accepted, "again");
    assert!(tell("two", 2).await.is_err());
    assert_eq!(tell("two", 1).await.unwrap(), Told::Stale(generation(2)));
    let by_hand = house.fleet.tell_by_hand(&place(), "web-1", &version("two"), "ana").await;
    assert_eq!(by_hand.unwrap(), generation(3));
    // The fleet has forgotten this host, which obeys an order that is no longer written down.
    house.fleet.report(&report("web-2", settled("one", 7)), "").await.unwrap();
    let by_hand = house.fleet.tell_by_hand(&place(), "web-2", &version("two"), "ana").await;
    assert_eq!(by_hand.unwrap(), generation(8));
    let fetch = async |of: &str| house.fleet.may_fetch(&speaker("web-1"), "", &version(of)).await;
    assert!(fetch("one").await.is_ok() && fetch("two").await.is_ok());
    assert!(matches!(fetch("three").await, Err(FleetError::NotTold(_))));
    for change in 4..10 {
        tell(&change.to_string(), change).await.unwrap();
    }
    assert!(matches!(fetch("one").await, Err(FleetError::NotTold(_))), "that was long ago");
}

#[tokio::test]
async fn an_open_question_is_answered_when_something_is_told_here_or_elsewhere() {
    let house = House::new();
    house.fleet.report(&report("web-1", Status::default()), "").await.unwrap();
    let wait = Duration::from_secs(20);
    let ask = |known| {
        let fleet = house.fleet.clone();
        tokio::spawn(async move { fleet.next_order(&speaker("web-1"), "", known, wait).await })
    };
    let here = ask(Generation::default());
    house.fleet.tell("web-1", &order("one", 1)).await.unwrap();
    assert_eq!(here.await.unwrap().unwrap().unwrap().generation, generation(1));
    let elsewhere = House::frontend(&house.records, &house.now);
    let there = ask(generation(1));
    elsewhere.tell("web-1", &order("two", 2)).await.unwrap();
    assert_eq!(there.await.unwrap().unwrap().unwrap().version, version("two"));
    let known = house.fleet.next_order(&speaker("web-1"), "", generation(2), Duration::ZERO).await;
    assert_eq!(known.unwrap(), None);
}

#[tokio::test]
async fn an_agent_is_believed_as_far_as_it_can_be() {
    let house = House::new();
    let say = async |status| house.say(status).await;
    say(Status::default()).await;
    assert_eq!(house.condition().await, Condition::Unassigned);
    house.fleet.tell("web-1", &order("one", 1)).await.unwrap();
    assert_eq!(house.condition().await, Condition::Behind);
    say(settled("one", 1)).await;
    assert_eq!(house.condition().await, Condition::Well);
    let observed = house.observed().await.unwrap();
    assert_eq!((observed.version, observed.generation), (Some(version("one")), generation(1)));

    // The host says that it has done what it was told, but it runs another version.
    say(settled("two", 1)).await;
    assert_eq!(house.condition().await, Condition::Drifted);
    assert_eq!(house.observed().await.unwrap().version, Some(version("two")));
    // The host says that it obeys an order that nobody gave. A rollout must not hear of that.
    say(settled("one", 9)).await;
    assert_eq!(house.condition().await, Condition::Untruthful);
    assert_eq!(house.observed().await, None);

    say(Status { failed: Some("it is not well".to_owned()), ..settled("one", 1) }).await;
    assert_eq!(house.condition().await, Condition::Failed);
    assert_eq!(house.observed().await.unwrap().failed.as_deref(), Some("it is not well"));
    say(settled("one", 1)).await;
    house.later(SILENT);
    assert_eq!(house.condition().await, Condition::Silent);
    assert_eq!(house.observed().await, None);
    // A clock that was set back makes nobody silent, and one that goes on does.
    say(settled("one", 1)).await;
    house.now.fetch_sub(3_600 * SECOND, Ordering::Relaxed);
    assert_eq!(house.condition().await, Condition::Well);
    say(settled("one", 1)).await;
    house.later(SILENT);
    assert_eq!(house.condition().await, Condition::Silent);
}

#[tokio::test]
async fn who_flaps_is_named() {
    let house = House::new();
    house.flap().await;
    assert!(matches!(house.observed().await.unwrap().health, parts::Health::Unwell(_)));
    for _ in 0..30 {
        house.later(Duration::from_secs(20));
        house.say(settled("one", 1)).await;
    }
    assert_eq!(house.condition().await, Condition::Well, "it has been well for ten minutes");
}

#[tokio::test]
async fn what_flapped_before_an_order_is_no_fault_of_what_was_ordered() {
    let house = House::new();
    house.flap().await;
    house.fleet.tell("web-1", &order("two", 2)).await.unwrap();
    house.say(settled("two", 2)).await;
    assert_eq!(house.condition().await, Condition::Well);
    assert!(matches!(house.observed().await.unwrap().health, parts::Health::Well));
}

#[tokio::test]
async fn who_is_silent_for_long_is_forgotten_and_nobody_else() {
    let house = House::new();
    for name in ["web-1", "web-2"] {
        house.fleet.report(&report(name, Status::default()), "token one").await.unwrap();
    }
    house.later(FORGOTTEN - Duration::from_secs(1));
    assert_eq!(house.fleet.sweep().await.unwrap(), 0);
    house.fleet.report(&report("web-2", Status::default()), "token one").await.unwrap();
    house.later(Duration::from_secs(1));
    assert_eq!(house.fleet.sweep().await.unwrap(), 1);
    assert!(matches!(
        house.fleet.show_agent(&place(), "web-1").await,
        Err(FleetError::Unknown { .. })
    ));
    let other = house.fleet.report(&report("web-1", Status::default()), "token two").await;
    other.expect("its name is free again");
    assert_eq!(house.fleet.conditions().await.unwrap().values().sum::<u64>(), 2);
}

#[tokio::test]
async fn what_cannot_be_read_holds_up_no_other_agent() {
    let house = House::new();
    let (fleet, names) = (&house.fleet, ["web-1".to_owned(), "web-2".to_owned()]);
    for name in &names {
        fleet.report(&report(name, settled("one", 0)), "").await.unwrap();
        fleet.tell(name, &order("one", 1)).await.unwrap();
    }
    let damage = async |key: &str| {
        let (key, value) = (key.to_owned(), Some("no agent".into()));
        let write = Write { key, expect: Expect::Anything, value };
        house.records.write(vec![write]).await.unwrap();
    };
    let key = "fleet/agent/api/prod/web-1";
    damage(key).await;
    let seen = fleet.observe(&place(), &names).await.unwrap();
    assert!(seen[0].is_none() && seen[1].is_some(), "{seen:?}");
    assert!(matches!(fleet.show_agent(&place(), "web-1").await, Err(FleetError::Damaged { .. })));
    damage("fleet/order/api/prod/web-2").await;
    let listed = fleet.list_agents(&Filter::default(), None, 10).await.unwrap();
    let listed: Vec<_> = listed.iter().map(|it| (it.name.as_str(), it.order.is_some())).collect();
    assert_eq!(listed, [("web-2", false)]);
    assert_eq!(fleet.conditions().await.unwrap().values().sum::<u64>(), 1);
    // The record does not say how long the host has been silent, so a sweep keeps it. An administrator may
    // remove the host.
    house.later(FORGOTTEN);
    assert_eq!(fleet.sweep().await.unwrap(), 1);
    assert!(house.records.get(key).await.unwrap().is_some());
    fleet.remove(&place(), "web-1").await.unwrap();
    assert!(house.records.get(key).await.unwrap().is_none());
}

#[tokio::test]
async fn targets_are_those_of_a_place_with_these_labels() {
    let house = House::new();
    for number in 0..40 {
        let mut said = report(&format!("web-{number:02}"), settled("one", 0));
        let zone = if number % 2 == 0 { "a" } else { "b" };
        said.labels.insert("zone".to_owned(), zone.to_owned());
        house.fleet.report(&said, "").await.unwrap();
    }
    let mut other = report("web-00", Status::default());
    other.from.place.environment = "prod-2".to_owned();
    house.fleet.report(&other, "").await.unwrap();
    let select = |labels: &[(&str, &str)]| Selector {
        place: place(),
        labels: labels.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect(),
    };
    assert_eq!(house.fleet.list(&select(&[])).await.unwrap().len(), 40);
    let found = house.fleet.list(&select(&[("zone", "b")])).await.unwrap();
    let names: Vec<_> = found.iter().map(|it| it.name.clone()).collect();
    assert_eq!((names.len(), names[0].as_str()), (20, "web-01"));
    assert_eq!(found[0].address.as_deref(), Some("web-01:80"));
    let mut asked = names.clone();
    asked.push("nobody".to_owned());
    let seen = house.fleet.observe(&place(), &asked).await.unwrap();
    // The hosts were told nothing, so no order counts as obeyed, whatever they say.
    let obeyed: Vec<_> = seen.iter().map(|it| it.as_ref().map(|it| it.generation)).collect();
    assert_eq!(obeyed[..20], [Some(Generation::default()); 20]);
    assert_eq!(obeyed[20..], [None]);
    let page = house.fleet.list_agents(&Filter::default(), None, 30).await.unwrap();
    let after = page.last().map(super::Listed::cursor);
    let rest = house.fleet.list_agents(&Filter::default(), after.as_deref(), 30).await.unwrap();
    assert_eq!((page.len(), rest.len()), (30, 11));
    let counts = house.fleet.conditions().await.unwrap();
    assert_eq!(counts.values().sum::<u64>(), 41);
}
