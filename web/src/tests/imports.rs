use axum::Router;
use axum::body::Body;
use http::{Request, StatusCode};
use kiln_ci::attempts::Known;
use kiln_ci::model::{Outcome, TestKey};
use serde_json::Value;
use tower::ServiceExt;

use super::sample;
use crate::router;

const REPORT: &str = r#"<testsuite name="unit"><testcase name="a" classname="C" time="1"/>
    <testcase name="b" classname="C" time="2"><failure message="boom"/></testcase></testsuite>"#;

async fn post(router: &Router, query: &str, body: &str) -> (StatusCode, Value) {
    let request = Request::post(format!("/api/v1/tests/import{query}"));
    let request = request.body(Body::from(body.to_owned())).expect("a proper address");
    let (parts, body) = router.clone().oneshot(request).await.expect("an answer").into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
    (parts.status, serde_json::from_slice(&body).expect("JSON"))
}

#[tokio::test]
async fn a_report_becomes_history_and_counts_once() {
    let state = sample::empty().await;
    let history = state.tests.history.clone();
    let at = state.tests.clock.now().0 - 1_000;
    let router = router(state);
    let query = &format!("?commit=c0ffee&branch=main&instance=team&at={at}");
    let (status, receipt) = post(&router, query, REPORT).await;
    assert_eq!(status, StatusCode::OK, "{receipt}");
    assert_eq!((&receipt["suite"], &receipt["outcome"]), (&"unit".into(), &"failed".into()));
    assert_eq!((&receipt["cases"], &receipt["failed"]), (&2.into(), &1.into()));
    assert_eq!(post(&router, query, REPORT).await.1, receipt);
    let test =
        TestKey { instance: "team".into(), label: "unit".into(), configuration: String::new() };
    let attempts = history.newest(&test, 10, true).await.expect("a history");
    let [attempt] = &attempts[..] else { panic!("{attempts:?}") };
    assert_eq!((attempt.outcome, attempt.known), (Outcome::Failed, Known::IMPORTED));
    assert_eq!((attempt.cases.len(), attempt.started.0), (2, at));
    assert_eq!(attempt.invocation, receipt["invocation"]);
}

#[tokio::test]
async fn what_is_no_report_says_so_and_leaves_nothing() {
    let router = router(sample::empty().await);
    for (query, body) in [
        ("", REPORT),
        ("?commit=", REPORT),
        ("?commit=c", "<testsuite><testcase"),
        ("?commit=c", "<!DOCTYPE x><testsuite/>"),
        ("?commit=c", ""),
    ] {
        let (status, answer) = post(&router, query, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query} {body}: {answer}");
        assert!(answer["error"]["hint"].is_string(), "{answer}");
    }
}
