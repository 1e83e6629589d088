use axum::Router;
use axum::body::Body;
use http::header::{
    CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS,
};
use http::{Request, Response, StatusCode};
use serde_json::Value;
use tower::ServiceExt;

use super::sample::{self, Sample};
use crate::web::format::path_of;
use crate::web::router;

async fn open(router: &Router, path: &str) -> (Response<()>, String) {
    let request = Request::get(path).body(Body::empty()).expect("a proper address");
    let (parts, body) = router.clone().oneshot(request).await.expect("an answer").into_parts();
    let body = axum::body::to_bytes(body, 16 << 20).await.expect("a body");
    (Response::from_parts(parts, ()), String::from_utf8_lossy(&body).into_owned())
}

async fn page(router: &Router, path: &str) -> String {
    let (response, body) = open(router, path).await;
    assert_eq!(response.status(), StatusCode::OK, "{path}: {body}");
    let policy = response.headers()[CONTENT_SECURITY_POLICY].to_str().expect("ASCII");
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    assert_eq!(response.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
    for forbidden in ["<script", "style=\"", "href=\"http", "src=\"http", "javascript:", "onclick"]
    {
        assert!(!body.contains(forbidden), "{path} holds {forbidden}");
    }
    body
}

async fn json(router: &Router, path: &str) -> Value {
    let (response, body) = open(router, path).await;
    assert_eq!(response.status(), StatusCode::OK, "{path}: {body}");
    serde_json::from_str(&body).expect("JSON")
}

/// Where `tag="` ... `"` values of a page lead to within the site.
fn links(body: &str) -> Vec<String> {
    body.split("href=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .filter(|link| link.starts_with('/'))
        .map(|link| link.replace("&amp;", "&"))
        .collect()
}

#[tokio::test]
async fn an_empty_server_says_what_to_do() {
    let router = router(sample::empty().await);
    for path in ["/", "/builds"] {
        let body = page(&router, path).await;
        assert!(body.contains("--remote_executor=grpc://build.example.com:8980"), "{body}");
        assert!(body.contains("engine_address"), "{body}");
    }
    assert!(page(&router, "/queue").await.contains("kiln worker --server"));
}

#[tokio::test]
async fn every_link_of_every_page_leads_somewhere() {
    let Sample { state, failed, failed_operation, last_build } = sample::full().await;
    let router = router(state);
    let action = format!("/actions/{}?operation={failed_operation}", path_of(&failed));
    let start = ["/".to_owned(), "/queue".into(), format!("/builds/{last_build}"), action];
    let mut followed = 0;
    for path in start {
        for link in links(&page(&router, &path).await).into_iter().take(400) {
            // The sample has no blobs of the actions in its lists: the page says so.
            if link.starts_with("/actions/") {
                continue;
            }
            let (response, body) = open(&router, &link).await;
            assert_eq!(response.status(), StatusCode::OK, "{path} -> {link}: {body}");
            followed += 1;
        }
    }
    assert!(followed > 50, "{followed} links");
}

#[tokio::test]
async fn the_page_of_an_action_shows_all_of_it_escaped() {
    let Sample { state, failed, failed_operation, .. } = sample::full().await;
    let router = router(state);
    let path = format!("/actions/{}?instance=&operation={failed_operation}", path_of(&failed));
    let body = page(&router, &path).await;
    for part in [
        "log_test",
        "exit 1",
        "TEST_TIMEOUT",
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "'--name=it'\\''s &lt;b&gt;quoted&lt;/b&gt;'",
        "[  FAILED  ] Log.AppendsInOrder",
        "Declared, but not made",
        "test.xml",
        "kiln-worker-2",
        "argument removed</b> <code>-O2</code>",
        "argument added</b> <code>-O1</code>",
        "input changed</b> <code>storage/log.cc</code>",
        "WORKSPACE",
        "3.24 s",
    ] {
        assert!(body.contains(part), "{part} is not on the page: {body}");
    }
}

#[tokio::test]
async fn directories_of_inputs_and_outputs_can_be_walked() {
    let Sample { state, failed, failed_operation, .. } = sample::full().await;
    let router = router(state);
    let path = format!("/actions/{}?operation={failed_operation}", path_of(&failed));
    let body = page(&router, &path).await;
    let trees: Vec<_> = links(&body).into_iter().filter(|l| l.starts_with("/cas/tree/")).collect();
    let storage = trees.iter().find(|link| link.ends_with("/storage")).expect("an input directory");
    assert!(page(&router, storage).await.contains("log_test.cc"));
    let output = trees.iter().find(|link| link.ends_with("kind=output")).expect("an output tree");
    assert!(page(&router, output).await.contains("core.txt"));
    let (response, body) = open(&router, &format!("{storage}/nowhere")).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert!(body.contains("nowhere"), "{body}");
}

#[tokio::test]
async fn a_blob_is_a_download_and_never_a_page() {
    let sample = sample::full().await;
    let router = router(sample.state);
    let path = format!("/blobs/{}?name=x.html%22%0d%0a", path_of(&sample.failed));
    let request = Request::get(path.as_str()).body(Body::empty()).expect("a proper address");
    let (parts, body) = router.clone().oneshot(request).await.expect("an answer").into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
    assert_eq!(sample.failed.function.digest(&body), sample.failed);
    assert_eq!(parts.headers[CONTENT_TYPE], "application/octet-stream");
    assert_eq!(parts.headers[X_CONTENT_TYPE_OPTIONS], "nosniff");
    let disposition = parts.headers[CONTENT_DISPOSITION].to_str().expect("ASCII");
    assert!(disposition.starts_with("attachment; filename=\"x.html_\""), "{disposition}");
    let policy = parts.headers[CONTENT_SECURITY_POLICY].to_str().expect("ASCII");
    assert!(policy.starts_with("sandbox"), "{policy}");
}

#[tokio::test]
async fn wrong_addresses_get_a_reason_and_a_way_out() {
    let router = router(sample::empty().await);
    let hash = "0".repeat(64);
    for (path, status, word) in [
        ("/builds/unknown".to_owned(), StatusCode::NOT_FOUND, "invocation id"),
        (format!("/actions/md5/{hash}/1"), StatusCode::BAD_REQUEST, "md5"),
        ("/actions/sha256/xyz/1".to_owned(), StatusCode::BAD_REQUEST, "hexadecimal"),
        (format!("/actions/sha256/{hash}/-1"), StatusCode::BAD_REQUEST, "number"),
        (format!("/actions/sha256/{hash}/1"), StatusCode::NOT_FOUND, "nothing is known"),
        (format!("/blobs/sha256/{hash}/1"), StatusCode::NOT_FOUND, "not in the store"),
        (format!("/cas/tree/sha256/{hash}/1"), StatusCode::NOT_FOUND, "not in the store"),
    ] {
        let (response, body) = open(&router, &path).await;
        assert_eq!(response.status(), status, "{path}");
        assert!(body.contains(word), "{path}: {body}");
    }
}

#[tokio::test]
async fn the_list_of_a_build_can_be_filtered() {
    let Sample { state, last_build, .. } = sample::full().await;
    let router = router(state);
    let path = |query: &str| format!("/builds/{last_build}?{query}");
    let failed = page(&router, &path("show=failed&sort=slowest&q=LOG_test")).await;
    let list = failed.split("id=\"actions\"").nth(1).expect("the list of actions");
    assert!(list.contains("log_test"), "{list}");
    assert!(!list.contains("cache hit</span>"), "{list}");
    let none = page(&router, &path("q=%3Cimg%20src%3Dx%3E")).await;
    assert!(none.contains("No action matches"), "{none}");
    assert!(!none.contains("<img"), "{none}");
}

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
