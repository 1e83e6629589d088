//! Rollouts, as pages and programs see them.

use kiln_deploy::rollouts::plan::Plan;

use super::pages::{json, page};
use super::sample;
use crate::json::RolloutPlanned;
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
    let brief = json(&router, &format!("/api/v1/rollouts/{id}?looks=1")).await;
    assert_eq!(brief["id"], one["id"]);
    let locks = json(&router, "/api/v1/locks").await;
    assert_eq!(locks["locks"][0]["owner"], "bob");
}

#[tokio::test]
async fn a_plan_says_what_is_down_and_who_is_started_anew() {
    let state = sample::empty().await;
    let declared = "name = \"api\"\ntargets = 2\nsteps = [50, 100]\nunavailable = 1\n[judge]\nbaseline = \"fresh\"";
    let preview = state.rollouts.preview(declared, "prod").await.expect("a plan");
    let plan = preview.plan.clone();
    let planned = serde_json::to_value(RolloutPlanned::from(preview)).expect("JSON");
    let read: Plan = serde_json::from_value(planned["plan"].clone()).expect("a plan");
    assert_eq!(read, plan, "the command shows the server's plan");
    assert_eq!(planned["targets"], serde_json::json!(["api-1", "api-2"]));
    assert_eq!(planned["fresh"], serde_json::json!([["api-2"], []]));
    assert_eq!(planned["down"][0]["why"], "it is not heard");
    assert_eq!(planned["plan"]["steps"][0]["waves"], 2);
    assert_eq!(planned["plan"]["steps"][1]["names"], serde_json::json!(["api-2"]));
}
