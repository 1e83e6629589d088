//! Pipelines, as pages and programs see them.

use axum::body::Body;
use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use tower::ServiceExt;

use super::pages::{json, open, page};
use super::sample;
use crate::router;

#[tokio::test]
async fn a_run_is_shown_with_its_way_and_what_waits_for_people() {
    let state = sample::empty().await;
    let id = sample::pipeline::driven(&state.pipelines).await;
    let router = router(state);
    let list = page(&router, "/pipelines").await;
    for part in ["app", "manual, ana", "1 of 4"] {
        assert!(list.contains(part), "{part}: {list}");
    }
    let shown = page(&router, &format!("/pipelines/{id}")).await;
    for part in [
        "builds &lt;b&gt; and ships",
        "ship &lt;it&gt;?",
        &format!("kiln pipeline approve {id} --stage sign-off"),
        "class=\"critical\"",
        "it is for runs begun by schedule",
        "http-equiv=\"refresh\"",
        "on the critical path",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let log = page(&router, &format!("/pipelines/{id}/log/0")).await;
    assert!(log.contains("build is &lt;done&gt;") && log.contains("class=\"c2\""), "{log}");
    let (none, _) = open(&router, &format!("/pipelines/{id}/log/9")).await;
    assert_eq!(none.status(), StatusCode::NOT_FOUND);
    let one = json(&router, &format!("/api/v1/pipelines/{id}")).await;
    assert_eq!(
        (&one["run"]["passed"], &one["stages"][2]["stands"]),
        (&1.into(), &"waiting".into())
    );
    let part = json(&router, &format!("/api/v1/pipelines/{id}/log?stage=0&attempt=1")).await;
    assert!(part["text"].as_str().expect("text").contains("build is <done>"));
    let (none, _) = open(&router, "/api/v1/pipelines/none").await;
    assert_eq!(none.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_run_that_can_be_read_is_not_given_up() {
    let state = sample::empty().await;
    let id = sample::pipeline::driven(&state.pipelines).await;
    let router = router(state);
    for (id, status, said) in [
        (&*id, StatusCode::CONFLICT, "kiln pipeline cancel"),
        ("none", StatusCode::NOT_FOUND, "kiln pipeline list"),
    ] {
        let body = serde_json::json!({ "id": id, "reason": "a disk is lost" }).to_string();
        let request = Request::post("/api/v1/pipelines/abandon");
        let request = request.header(CONTENT_TYPE, "application/json").body(Body::from(body));
        let answer = router.clone().oneshot(request.expect("a request")).await.expect("an answer");
        assert_eq!(answer.status(), status, "{id}");
        let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.expect("a body");
        let body = String::from_utf8_lossy(&body);
        assert!(body.contains(said), "{body}");
    }
    let one = json(&router, &format!("/api/v1/pipelines/{id}")).await;
    assert_eq!(one["run"]["ended"], false, "it goes on");
}
