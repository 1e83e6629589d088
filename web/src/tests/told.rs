//! The pages of builds that told of themselves.

use http::StatusCode;

use super::pages::{json, links, open, page};
use super::sample::{self, told};
use crate::router;

const FAILED: &str = "11111111-2222-4333-8444-555555555555";
const OPEN: &str = "99999999-2222-4333-8444-555555555555";

#[tokio::test]
async fn a_build_shows_what_it_told_with_what_failed_first() {
    let state = sample::empty().await;
    told::failed(&state, FAILED).await;
    let router = router(state);
    let body = page(&router, &format!("/builds/{FAILED}")).await;
    for part in [
        "tests failed",
        "exit code 3",
        "'--config=it'\\''s'",
        "c0ffee5ca1ab1e",
        "/home/ada/kiln",
        "CppCompile, exit code 1",
        "<span class=\"bold c1\">error:</span> use of undeclared identifier",
        "<span class=\"c1\">FAILED</span>: expected &lt;200&gt;",
        "test.xml",
        "test.outputs__outputs.zip",
        "k8-fastbuild",
        "app/libparser.a",
        "command.profile.gz",
        "//app/parser:parser_test &lt;script&gt;",
    ] {
        assert!(body.contains(part), "{part} is not on the page: {body}");
    }
    let place = |part: &str| body.find(part).expect(part);
    assert!(
        place("<h2>Failed<") < place("<h2>Tests<") && place("<h2>Tests<") < place("<h2>Targets<")
    );
    assert!(!body.contains("http-equiv"), "it has ended");
    let files = links(&body).into_iter().filter(|link| link.starts_with("/blobs/"));
    let mut followed = 0;
    for link in files {
        assert_eq!(open(&router, &link).await.0.status(), StatusCode::OK, "{link}");
        followed += 1;
    }
    assert!(followed > 8, "{followed} files");

    let told = &json(&router, &format!("/api/v1/builds/{FAILED}")).await["told"];
    assert_eq!((&told["exit_code"], &told["command"]), (&3.into(), &"test".into()));
    assert_eq!(told["test_runs"].as_array().map(Vec::len), Some(3));
    assert_eq!(told["target_outcomes"][1]["outcome"], "failed");
}

#[tokio::test]
async fn a_build_that_goes_on_is_shown_as_far_as_it_is() {
    let state = sample::empty().await;
    told::begun(&state, OPEN).await;
    let router = router(state.clone());
    let address = format!("/builds/{OPEN}");
    let body = page(&router, &address).await;
    for part in
        ["going on", "http-equiv=\"refresh\"", "Analyzing:</span> target //app:all &lt;b&gt;"]
    {
        assert!(body.contains(part), "{part} is not on the page: {body}");
    }
    told::failed(&state, OPEN).await;
    let body = page(&router, &address).await;
    assert!(body.contains("tests failed") && !body.contains("http-equiv"), "{body}");
    let (response, _) = open(&router, "/builds/none-such").await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn builds_are_found_by_what_they_told() {
    let state = sample::empty().await;
    let router = router(state.clone());
    assert!(
        !page(&router, "/builds").await.contains("name=\"branch\""),
        "there is nothing to find"
    );
    told::failed(&state, FAILED).await;
    told::begun(&state, OPEN).await;
    assert!(page(&router, "/builds").await.contains("name=\"branch\""));
    for (query, found) in [
        ("user=ADA", vec![FAILED]),
        ("branch=quic", vec![OPEN]),
        ("commit=c0ffee", vec![FAILED]),
        ("commit=ffee", vec![]),
        ("command=build", vec![OPEN]),
        ("target=app", vec![OPEN, FAILED]),
        ("outcome=failed", vec![FAILED]),
        ("outcome=open", vec![OPEN]),
        ("outcome=succeeded", vec![]),
        ("limit=1", vec![OPEN]),
    ] {
        let answer = json(&router, &format!("/api/v1/invocations?{query}")).await;
        let ids: Vec<&str> = answer["invocations"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|it| it["invocation_id"].as_str())
            .collect();
        assert_eq!(ids, found, "{query}");
        let body = page(&router, &format!("/builds?told=1&{query}")).await;
        for id in found.iter().filter(|_| query != "limit=1") {
            assert!(body.contains(id), "{query}: {body}");
        }
    }
    let first = json(&router, "/api/v1/invocations?limit=1").await;
    let before = first["next_before"].as_str().expect("there are more").replace('/', "%2F");
    let second = json(&router, &format!("/api/v1/invocations?limit=1&before={before}")).await;
    assert_eq!(second["invocations"][0]["invocation_id"], FAILED);
    let (response, _) = open(&router, "/api/v1/invocations?outcome=red").await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
}
