//! Examples, and what must hold whatever there is.

use proptest::prelude::*;

use super::{Fate, Held, Rules, Stays, retain};
use crate::oci::ContentDigest;
use crate::promotion::{How, Past, Place, Placed, World};
use crate::timestamp::Timestamp;

const DAY: i64 = 86_400;
const NOW: i64 = 1_780_000_000;

fn digest(text: &str) -> ContentDigest {
    ContentDigest::of(text.as_bytes())
}

/// A release with a layer of its own, one that all share, and a signature; `days` old.
fn held(name: &str, days: i64) -> Held {
    let content = vec![
        (digest(name), 10),
        (digest("shared"), 1_000),
        (digest(&format!("signature of {name}")), 1),
    ];
    Held {
        name: name.parse().unwrap(),
        digest: digest(name),
        created: Timestamp::from_unix(NOW - days * DAY),
        rejected: false,
        needed: Vec::new(),
        content,
    }
}

fn placed(name: &str) -> Placed {
    Placed {
        release: name.parse().unwrap(),
        digest: digest(name),
        generation: 1,
        at: Timestamp::from_unix(0),
        by: "ana".to_owned(),
        how: How::Promoted,
    }
}

fn world(current: &str, past: &[&str]) -> World {
    let past = past.iter().map(|it| Past {
        placed: placed(it),
        until: Timestamp::from_unix(1),
        rolled_back: false,
    });
    let place = Place { generation: 9, current: Some(placed(current)), past: past.collect() };
    World { places: [("prod".to_owned(), place)].into(), ..World::default() }
}

fn fates(releases: &[Held], world: &World, newest: usize) -> Vec<Fate> {
    let rules = Rules { predecessors: 2, newest, age: 90 * DAY };
    retain(releases, world, rules, Timestamp::from_unix(NOW))
}

#[test]
fn what_stands_and_what_may_be_returned_to_stays() {
    let names = ["a:1", "a:2", "a:3", "a:4", "a:5"];
    let releases: Vec<_> = names.iter().map(|it| held(it, 400)).collect();
    let world = world("a:5", &["a:4", "a:5", "a:3", "a:4", "a:2", "a:1"]);
    let fates = fates(&releases, &world, 0);
    let goes: Vec<_> =
        fates.iter().filter(|it| it.goes()).map(|it| it.release.to_string()).collect();
    assert_eq!(goes, ["a:1", "a:2"]);
    let back = |environment: &str, back| {
        vec![Stays::Predecessor { environment: environment.to_owned(), back }]
    };
    assert_eq!((&fates[2].stays, &fates[3].stays), (&back("prod", 2), &back("prod", 1)));
    assert_eq!(fates[4].stays, [Stays::Current { environment: "prod".to_owned() }]);
    // What others need is not freed.
    assert_eq!((fates[0].frees, fates[1].frees), (11, 11));
}

#[test]
fn the_newest_and_the_young_stay_and_what_is_rejected_takes_no_place() {
    let mut releases =
        vec![held("a:old", 300), held("a:bad", 200), held("a:young", 10), held("b:only", 900)];
    releases[1].rejected = true;
    let fates = fates(&releases, &World::default(), 2);
    assert_eq!(fates[0].stays, [Stays::Newest { place: 2 }]);
    assert!(fates[1].goes());
    let until = Timestamp::from_unix(NOW + 80 * DAY);
    assert_eq!(fates[2].stays, [Stays::Newest { place: 1 }, Stays::Young { until }]);
    assert_eq!(fates[3].stays, [Stays::Newest { place: 1 }]);
}

#[test]
fn names_of_the_same_content_stay_together() {
    let mut alias = held("a:alias", 400);
    alias.digest = digest("a:1");
    let releases = vec![alias, held("a:1", 400)];
    let fates = fates(&releases, &world("a:1", &[]), 0);
    // An environment holds a digest, so all names of that digest stay.
    assert!(fates.iter().all(|it| !it.goes()), "{fates:?}");
    let mut young = held("b:young", 1);
    young.digest = digest("b:old");
    let fates = super::retain(
        &[held("b:old", 400), young],
        &World::default(),
        Rules { predecessors: 0, newest: 0, age: 90 * DAY },
        Timestamp::from_unix(NOW),
    );
    assert_eq!(fates[0].stays, [Stays::Same { release: "b:young".parse().unwrap() }]);
}

proptest! {
    #[test]
    fn nothing_that_is_needed_goes_and_nothing_is_left_over(
        ages in proptest::collection::vec((0_usize..6, 0_i64..200, any::<bool>()), 1..20),
        current in 0_usize..6,
        newest in 0_usize..4,
    ) {
        let release = |(index, (content, days, rejected)): (usize, &(usize, i64, bool))| {
            let mut held = held(&format!("a:{index}"), *days);
            held.digest = digest(&format!("a:{content}"));
            held.content[0].0 = held.digest.clone();
            held.rejected = *rejected;
            held
        };
        let releases: Vec<_> = ages.iter().enumerate().map(release).collect();
        let world = world(&format!("a:{current}"), &[]);
        let fates = fates(&releases, &world, newest);
        let stands = digest(&format!("a:{current}"));
        let kept: Vec<_> = fates.iter().filter(|it| !it.goes()).map(|it| it.digest.clone()).collect();
        let mut freed = 0;
        for (release, fate) in releases.iter().zip(&fates) {
            prop_assert!(!fate.goes() || !kept.contains(&release.digest));
            prop_assert!(!fate.goes() || release.digest != stands);
            prop_assert!(fate.goes() || fate.frees == 0);
            freed += fate.frees;
        }
        // What is freed is all that nobody who stays needs, once.
        let stays = releases.iter().zip(&fates).filter(|(_, it)| !it.goes());
        let needed: std::collections::BTreeSet<_> =
            stays.flat_map(|(it, _)| it.content.iter().map(|(digest, _)| digest.clone())).collect();
        let all: std::collections::BTreeMap<_, _> =
            releases.iter().flat_map(|it| it.content.clone()).collect();
        let left: u64 = all.iter().filter(|(it, _)| !needed.contains(it)).map(|(_, size)| size).sum();
        prop_assert_eq!(freed, left);
    }
}
