//! The tracker as agents reach it.

use std::time::Duration;

use super::{House, order, place, report, settled, speaker, version};
use crate::fleet::FleetError;
use crate::oci::ContentDigest;
use crate::rollouts::parts::Targets as _;
use crate::swarm::pass::{Bearer, is_valid};
use crate::swarm::{Share, Shared};

fn share(name: &str, has: u32) -> Share {
    Share {
        version: version("one"),
        list: version("list"),
        pieces: 8,
        has,
        seeded: Vec::new(),
        starving: Vec::new(),
        near: "a".to_owned(),
        fingerprint: ContentDigest::of(name.as_bytes()).hex().to_owned(),
        address: Some(format!("{name}:9000")),
    }
}

async fn house() -> House {
    let house = House::new();
    for name in ["web-1", "web-2"] {
        house.fleet.report(&report(name, settled("one", 0)), name).await.unwrap();
        house.fleet.tell(name, &order("one", 1)).await.unwrap();
    }
    house
}

#[tokio::test]
async fn agents_hear_of_each_other_at_any_frontend_and_their_passes_are_one_kind() {
    let house = house().await;
    let other = House::frontend(&house.records, &house.now);
    let first = house.fleet.share(&speaker("web-1"), "web-1", &share("web-1", 8)).await.unwrap();
    assert!(first.peers.is_empty() && first.grants.is_empty(), "it has all: {first:?}");
    let second = other.share(&speaker("web-2"), "web-2", &share("web-2", 1)).await.unwrap();
    let names = |it: &Shared| it.peers.iter().map(|it| it.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&second), ["web-1"]);
    assert!(second.peers[0].is_near && second.peers[0].address == "web-1:9000");
    assert_eq!(second.peers[0].fingerprint, share("web-1", 0).fingerprint);
    assert!(!second.grants.is_empty(), "few are granted much");
    let (place, list) = (place(), version("list"));
    let fingerprint = share("web-2", 0).fingerprint;
    let bearer = Bearer { place: &place, list: &list, fingerprint: &fingerprint };
    assert!(is_valid(&second.pass, &bearer, &first.keys), "whoever made the keys");

    house.later(Duration::from_secs(60));
    let later = other.share(&speaker("web-2"), "web-2", &share("web-2", 1)).await.unwrap();
    assert!(later.peers.is_empty(), "web-1 was not heard for long: {later:?}");
    house.fleet.share(&speaker("web-1"), "web-1", &share("web-1", 8)).await.unwrap();
    house.later(Duration::from_secs(4));
    let again = other.share(&speaker("web-2"), "web-2", &share("web-2", 1)).await.unwrap();
    assert_eq!(names(&again), ["web-1"]);
    other.remove(&place, "web-1").await.unwrap();
    house.later(Duration::from_secs(4));
    let gone = other.share(&speaker("web-2"), "web-2", &share("web-2", 1)).await.unwrap();
    assert!(gone.peers.is_empty(), "{gone:?}");
}

#[tokio::test]
async fn who_was_not_told_a_version_or_speaks_for_another_hears_of_nobody() {
    let house = house().await;
    let asked = |name: &'static str, account: &'static str, share: Share| {
        let fleet = house.fleet.clone();
        async move { fleet.share(&speaker(name), account, &share).await }
    };
    let other = Share { version: version("two"), ..share("web-1", 0) };
    assert!(matches!(asked("web-1", "web-1", other).await, Err(FleetError::NotTold(_))));
    let stranger = asked("web-1", "web-2", share("web-1", 0)).await;
    assert!(matches!(stranger, Err(FleetError::Bound { .. })), "{stranger:?}");
    for odd in [
        Share { fingerprint: "AB".repeat(32), ..share("web-1", 0) },
        Share { fingerprint: String::new(), ..share("web-1", 0) },
        Share { address: Some("nowhere".to_owned()), ..share("web-1", 0) },
        Share { near: "a\nb".to_owned(), ..share("web-1", 0) },
        Share { starving: vec![0; 17], ..share("web-1", 0) },
        Share { has: 9, ..share("web-1", 0) },
    ] {
        let answer = asked("web-1", "web-1", odd.clone()).await;
        assert!(matches!(answer, Err(FleetError::Name(_))), "{odd:?}: {answer:?}");
    }
}
