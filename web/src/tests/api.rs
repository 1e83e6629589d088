use http::StatusCode;
use serde_json::Value;

use super::pages::{json, open};
use super::sample::{self, Sample};
use crate::router;

#[tokio::test]
async fn the_api_pages_through_executions_and_builds() {
    let Sample { state, failed_operation, last_build, failed, .. } = sample::full().await;
    let router = router(state);
    let status = json(&router, "/api/v1/status").await;
    assert_eq!((&status["slots"], &status["queued"]), (&8.into(), &3.into()));

    let all =
        json(&router, &format!("/api/v1/executions?invocation={last_build}&limit=1000")).await;
    let all = all["executions"].as_array().expect("a list");
    let mut seen = 0;
    let mut path = format!("/api/v1/executions?invocation={last_build}&limit=30");
    loop {
        let part = json(&router, &path).await;
        seen += part["executions"].as_array().expect("a list").len();
        let Some(next) = part["next_before"].as_str() else { break };
        path = format!("/api/v1/executions?invocation={last_build}&limit=30&before={next}");
    }
    assert_eq!(seen, all.len());

    let one = json(&router, &format!("/api/v1/executions/{failed_operation}")).await;
    assert_eq!(one["action"]["hash"], failed.hex());
    assert_eq!(one["action"]["size_bytes"], failed.size);
    assert_eq!((&one["origin"], &one["exit_code"]), (&"executed".into(), &1.into()));
    assert_eq!(one["result"]["output_files"][0]["path"], "test.log");
    let action = format!("/api/v1/executions?action={}/{}", failed.hex(), failed.size);
    assert_eq!(json(&router, &action).await["executions"][0]["id"], failed_operation);

    let build = json(&router, &format!("/api/v1/builds/{last_build}")).await;
    let total = ["executed", "cache_hits", "merged"].map(|k| build[k].as_u64().expect("a count"));
    assert_eq!(total.iter().sum::<u64>(), all.len() as u64);
    let builds = json(&router, "/api/v1/builds?limit=5").await;
    assert_eq!(builds["builds"][0]["invocation_id"], last_build);
    assert_eq!(json(&router, "/api/v1/workers").await["workers"][0]["slots"], 4);
    assert_eq!(json(&router, "/api/v1/queue").await["queue_depth"], 3);
}

#[tokio::test]
async fn errors_of_the_api_are_json_with_a_hint() {
    let router = router(sample::empty().await);
    for (path, status) in [
        ("/api/v1/executions/none/such", StatusCode::NOT_FOUND),
        ("/api/v1/builds/none", StatusCode::NOT_FOUND),
        ("/api/v1/nothing", StatusCode::NOT_FOUND),
        ("/api/v1/executions?limit=0", StatusCode::BAD_REQUEST),
        ("/api/v1/executions?limit=many", StatusCode::BAD_REQUEST),
        ("/api/v1/executions?before=zz", StatusCode::BAD_REQUEST),
        ("/api/v1/executions?mnemonic=X", StatusCode::BAD_REQUEST),
        ("/api/v1/executions?action=abc", StatusCode::BAD_REQUEST),
        ("/api/v1/executions?target=a&invocation=b", StatusCode::BAD_REQUEST),
    ] {
        let (response, body) = open(&router, path).await;
        assert_eq!(response.status(), status, "{path}: {body}");
        let error: Value = serde_json::from_str(&body).expect("JSON");
        for field in ["message", "hint"] {
            let text = error["error"][field].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{path}: {body}");
        }
    }
}
