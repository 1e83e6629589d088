//! What is unfinished, at servers whose clocks are apart.

use std::sync::atomic::Ordering;
use std::time::Duration;

use kiln_cas::pins::Pin;

use super::rig::House;
use crate::catalog::{By, PINS, Prepared, keys};
use crate::executions::tests::rig::{DAY, content};
use crate::signing::{Scheme, Signer as _, SigningKey};

#[tokio::test]
async fn what_one_server_has_begun_stays_at_another_one_whose_clock_is_ahead() {
    let house = House::start().await;
    house.build("one", "1").await;
    let asked = house.asked("team/app:1.0", "one");
    let prepared = house.catalog.prepare(asked, By::Client).await.unwrap();
    let Prepared::Draft(draft, messages) = prepared else { panic!("it is not there yet") };
    // What a release that is being made has pinned.
    let digest = content("program 1");
    let pin = Pin { digest, kind: PINS.to_owned(), name: Pin::fresh_name(), at: 0 };
    house.pins.pin(&pin).await.unwrap();
    let ahead = house.again();
    ahead.rig.now.fetch_add(DAY, Ordering::Relaxed);
    assert_eq!(ahead.catalog.sweep(Duration::ZERO).await.unwrap(), 0);
    assert_eq!(house.pins.list(PINS, None, 10).await.unwrap(), [pin]);
    let (key, _) = SigningKey::generate(Scheme::Ed25519).unwrap();
    let signatures = messages.iter().map(|it| key.sign(it).unwrap()).collect();
    let signed = (key.public_key().clone(), signatures);
    let made = ahead.catalog.signed_elsewhere("", &draft.id, signed, "somebody").await.unwrap();
    // The pin of no release goes after an hour of the server's own, and none of the release.
    assert_eq!(ahead.swept().await, 1);
    let left = house.pins.list(PINS, None, 1_000).await.unwrap();
    assert!(left.len() == made.content.len() && left.iter().all(|it| it.name == made.pin));
}

#[tokio::test]
async fn a_draft_goes_when_a_server_has_seen_it_for_an_hour() {
    let house = House::start().await;
    house.build("one", "1").await;
    let asked = house.asked("team/app:1.0", "one");
    let prepared = house.catalog.prepare(asked, By::Client).await.unwrap();
    let Prepared::Draft(draft, _) = prepared else { panic!("it is not there yet") };
    let stored = async || house.rig.records.get(&keys::draft(&draft.id)).await.unwrap();
    // The clock is set back meanwhile.
    house.rig.now.fetch_sub(DAY, Ordering::Relaxed);
    assert!(stored().await.is_some());
    house.swept().await;
    assert!(stored().await.is_none());
}
