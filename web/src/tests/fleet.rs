//! Hosts with an agent, as they are shown.

use std::collections::BTreeMap;

use kiln_deploy::agent::{Health, Report, Speaker, Status};
use kiln_deploy::oci::ContentDigest;
use kiln_deploy::rollouts::parts::Place;

use super::pages::{json, page};
use super::sample::{self, Sample};
use crate::{WebState, router};

/// A host whose name and words are markup, as far as they may be.
pub async fn registered(state: &WebState) {
    let place = Place { service: "api".to_owned(), environment: "prod".to_owned() };
    let version = ContentDigest::of(b"one");
    let status = Status {
        running: Some(version.clone()),
        health: Health::Unwell("<b>503</b>".to_owned()),
        crashes: 2,
        ..Status::default()
    };
    let report = Report {
        from: Speaker { place: place.clone(), name: "web-1".to_owned(), identity: "i".to_owned() },
        address: Some("web-1:80".to_owned()),
        labels: BTreeMap::from([("zone".to_owned(), "<a>".to_owned())]),
        software: "1".to_owned(),
        status,
    };
    state.fleet.report(&report, "token web-1").await.expect("it is taken in");
    state.fleet.tell_by_hand(&place, "web-1", &version, "ana").await.expect("it is told");
}

#[tokio::test]
async fn hosts_are_shown_with_what_they_run_and_were_told() {
    let Sample { state, .. } = sample::full().await;
    let none = page(&router(state.clone()), "/fleet").await;
    assert!(none.contains("kiln agent"), "{none}");
    registered(&state).await;
    let router = router(state);
    let shown = page(&router, "/fleet?service=api&environment=prod").await;
    for part in [
        "web-1",
        "behind",
        "&lt;b&gt;503",
        "zone=&lt;a&gt;",
        "ended by itself 2 times",
        "generation 0.1",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let others = page(&router, "/fleet?condition=well").await;
    assert!(others.contains("no such agent") && !others.contains("kiln agent"), "{others}");
    let list = json(&router, "/api/v1/fleet?condition=behind").await;
    let agent = &list["agents"][0];
    assert_eq!((&agent["name"], &agent["told"]["by"]), (&"web-1".into(), &"ana".into()));
    assert!(agent.get("identity").is_none(), "it is a secret of the host");
    let others = json(&router, "/api/v1/fleet?condition=well").await;
    assert_eq!(others["agents"].as_array().map(Vec::len), Some(0));
}
