//! Environments, as pages and programs see them.

use super::pages::{json, page};
use super::sample;
use crate::router;

#[tokio::test]
async fn environments_are_side_by_side_with_what_waits_and_why() {
    let router = router(sample::empty().await);
    let page = page(&router, "/environments").await;
    for part in [
        "href=\"/releases/team/server:1.1\"",
        "moving &lt;house&gt;",
        "it stood in dev for 0 s of 86400 s",
        "0 of 1 approvals",
        "after dev",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(!page.contains("<house>"), "{page}");
    let shown = json(&router, "/api/v1/environments").await;
    let [dev, prod] = [&shown["environments"][0], &shown["environments"][1]];
    assert_eq!((&dev["name"], &dev["generation"]), (&"dev".into(), &2.into()), "{shown:#}");
    assert_eq!(prod["current"], serde_json::Value::Null);
    let waits = prod["waiting"]["reasons"].as_array().expect("reasons");
    assert!(waits.iter().all(|it| it["standing"] == "waits"), "{shown:#}");
    let one = json(&router, "/api/v1/environments/dev?limit=1").await;
    assert_eq!((&one["past"][0]["generation"], &one["next_before"]), (&2.into(), &2.into()));
}

#[tokio::test]
async fn a_server_without_a_policy_says_how_to_get_one() {
    let state = crate::WebState { promotion: None, ..sample::empty().await };
    let page = page(&router(state), "/environments").await;
    assert!(page.contains("promotion.policy"), "{page}");
}
