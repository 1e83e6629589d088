//! Two builds side by side.

use http::StatusCode;

use super::pages::{json, open, page};
use super::sample::{self, told};
use crate::router;

const PASSED: &str = "11111111-0000-4333-8444-555555555555";
const FAILED: &str = "22222222-0000-4333-8444-555555555555";

#[tokio::test]
async fn flags_and_outcomes_of_two_builds_are_compared() {
    let state = sample::empty().await;
    told::passed(&state, PASSED).await;
    told::failed(&state, FAILED).await;
    let router = router(state);
    let address = format!("/builds/compare?before={PASSED}&after={FAILED}");
    // The page of the failed build leads to its comparison with the last build of the same command and
    // patterns.
    let link = address.replace('&', "&amp;");
    assert!(page(&router, &format!("/builds/{FAILED}")).await.contains(&link), "{link}");
    let body = page(&router, &address).await;
    for part in
        ["0ddba11", "c0ffee5ca1ab1e", "--copt", "&lt;-O3&gt;", "--keep_going", "failed to build"]
    {
        assert!(body.contains(part), "{part} is not on the page: {body}");
    }
    assert!(!body.contains("--jobs"), "it is the same: {body}");

    let it = json(&router, &format!("/api/v1{address}")).await;
    let of = |list: &str, name: &str| {
        let all = it[list].as_array().expect(list);
        let found = all.iter().find(|it| it["name"] == name);
        found.map(|it| (it["before"].clone(), it["after"].clone()))
    };
    let texts = |before: &str, after: &str| Some((before.into(), after.into()));
    assert_eq!(of("facts", "commit"), texts("0ddba11", "c0ffee5ca1ab1e"));
    assert_eq!(of("facts", "branch"), None);
    assert_eq!(of("outcomes", "//app/parser:parser_test"), texts("passed", "failed"));
    let broken = of("outcomes", "//app/parser:broken").expect("it is new").1;
    assert_eq!(broken, "failed to build");
    assert_eq!(
        of("options", "--keep_going"),
        Some((serde_json::json!([]), serde_json::json!([""])))
    );
    assert_eq!((&it["is_told"], &it["executed"]), (&true.into(), &0.into()));
}

#[tokio::test]
async fn what_was_not_cached_any_more_says_why() {
    let sample = sample::full().await;
    let router = router(sample.state);
    let two = format!("before={}&after={}", sample.earlier_build, sample.last_build);
    let it = json(&router, &format!("/api/v1/builds/compare?{two}")).await;
    let actions = it["actions"].as_array().expect("a list");
    let test = actions.iter().find(|it| it["execution"] == "operations/failed-1");
    let test = test.unwrap_or_else(|| panic!("it ran: {actions:?}"));
    assert_eq!(test["before_execution"], "operations/failed-0");
    let causes = it["causes"].as_array().expect("a list");
    let is_source = |it: &&serde_json::Value| it["name"] == "storage/log.cc";
    assert_eq!(
        causes.iter().find(is_source).map(|it| &it["actions"]),
        Some(&1.into()),
        "{causes:?}"
    );
    let body = page(&router, &format!("/builds/compare?{two}")).await;
    for part in ["storage/log.cc", "//storage/log:", "Only builds that told of themselves"] {
        assert!(body.contains(part), "{part} is not on the page: {body}");
    }
}

#[tokio::test]
async fn who_names_one_build_or_none_that_is_known_is_told() {
    let router = router(sample::empty().await);
    let status = async |query: &str| {
        open(&router, &format!("/api/v1/builds/compare{query}")).await.0.status()
    };
    assert_eq!(status("?before=x").await, StatusCode::BAD_REQUEST);
    assert_eq!(status("").await, StatusCode::BAD_REQUEST);
    assert_eq!(status("?before=none-such&after=none-such").await, StatusCode::NOT_FOUND);
}
