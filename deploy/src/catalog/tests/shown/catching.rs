//! Releases of servers that did not show them.

use kiln_cas::records::{Expect, MAX_BATCH, Write};
use serde_json::{Map, Value};

use super::super::super::{PINS, keys};
use super::super::rig::House;
use super::Pulled;
use crate::catalog::CaughtUp;
use crate::registry::store::ReleasedRepository;

const NAMES: [&str; 3] = ["team/app:1.0", "team/app:2.0", "team/lib:1.0"];

/// Removes what is shown, so that all is as a server left it that knew of no registry.
async fn forget(house: &House) {
    let records = &house.rig.records;
    let shown = records.list("registry/", None, false, 10_000).await.unwrap();
    let delete = |key: &str| Write { key: key.to_owned(), expect: Expect::Anything, value: None };
    for some in shown.chunks(MAX_BATCH) {
        records.write(some.iter().map(|it| delete(&it.key)).collect()).await.unwrap();
    }
    for name in NAMES {
        let key = keys::entry("", &name.parse().unwrap());
        let found = records.get(&key).await.unwrap().unwrap();
        let mut entry: Map<String, Value> = serde_json::from_slice(&found.value).unwrap();
        assert!(entry.remove("tags").is_some());
        let value = Some(serde_json::to_vec(&entry).unwrap().into());
        records.write(vec![Write { key, expect: Expect::Anything, value }]).await.unwrap();
    }
}

#[tokio::test]
async fn releases_of_before_are_shown_once_whatever_ends_in_between() {
    let house = House::start().await;
    house.build("one", "1").await;
    house.build("two", "2").await;
    for (name, build) in NAMES.into_iter().zip(["one", "two", "one"]) {
        house.create(name, build).await.unwrap();
    }
    let rejected = NAMES[1].parse().unwrap();
    house.catalog.reject("", &rejected, "loses data", "somebody").await.unwrap();
    forget(&house).await;
    let records = house.rig.records.clone();
    let taken = ReleasedRepository::new(records.clone(), "team/lib".parse().unwrap());
    records.write(taken.claim("other").await.unwrap()).await.unwrap();
    let registry = Pulled::new(&house, "team/app");
    assert_eq!(registry.tag("1.0").await, None);

    let first = house.catalog.catch_up(1).await.unwrap();
    assert_eq!(first, CaughtUp { shown: 1, ..CaughtUp::default() });
    assert_eq!(registry.tags().await, ["1.0"]);
    let mut last = None;
    for writes in 0..100 {
        house.rig.faults.refuse_after(writes);
        last = house.catalog.catch_up(10).await.ok().filter(|it| it.done);
        house.rig.faults.refuse(false);
        if last.is_some() {
            break;
        }
    }
    let last = last.expect("it takes no more writes than that");
    let refused: Vec<_> = last.refused.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(refused, ["team/lib:1.0"], "it is a repository of another instance");
    assert_eq!(registry.tags().await, ["1.0"], "one that was rejected has no tag");
    for name in &NAMES[..2] {
        let entry = house.catalog.get("", &name.parse().unwrap()).await.unwrap();
        let subject = entry.release.digest();
        registry.pull(&subject.to_string()).await.unwrap();
        assert_eq!(registry.referrers(subject).await.len(), 5, "{name}");
        assert!(registry.tag(&format!("{}.att", subject.fallback_tag())).await.is_some());
        let pins = house.pins.list(PINS, None, 1_000).await.unwrap();
        let own = pins.iter().filter(|it| it.name == entry.pin).count();
        assert_eq!(own, entry.content.len(), "{name}");
    }
    let again = house.catalog.catch_up(10).await.unwrap();
    assert_eq!(again, CaughtUp { done: true, ..CaughtUp::default() });
}
