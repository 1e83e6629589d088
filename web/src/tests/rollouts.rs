//! Rollouts, as pages and programs see them.

use super::pages::{json, page};
use super::sample;
use crate::router;

#[tokio::test]
async fn a_rollout_is_shown_with_its_steps_and_who_has_a_lock() {
    let router = router(sample::empty().await);
    let list = page(&router, "/rollouts").await;
    for part in ["team/server:1.1", "moving &lt;house&gt;", "0 of 2", "verifying", "a migration"] {
        assert!(list.contains(part), "{part}: {list}");
    }
    let listed = json(&router, "/api/v1/rollouts").await;
    let id = listed["rollouts"][0]["id"].as_str().expect("an id");
    let shown = page(&router, &format!("/rollouts/{id}")).await;
    for part in
        ["50 %", "100 %", "nothing: it is the first", "http-equiv=\"refresh\"", "begins, by ana"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let one = json(&router, &format!("/api/v1/rollouts/{id}")).await;
    assert_eq!((&one["steps"][0]["targets"], &one["phase"]), (&1.into(), &"verifying".into()));
    let locks = json(&router, "/api/v1/locks").await;
    assert_eq!(locks["locks"][0]["owner"], "bob");
}
