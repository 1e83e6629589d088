use axum::Router;
use axum::body::Body;
use http::header::{
    CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS,
};
use http::{Request, Response, StatusCode};
use serde_json::Value;
use tower::ServiceExt;

use super::sample::{self, Sample};
use crate::format::path_of;
use crate::router;

pub async fn open(router: &Router, path: &str) -> (Response<()>, String) {
    let request = Request::get(path).body(Body::empty()).expect("a proper address");
    let (parts, body) = router.clone().oneshot(request).await.expect("an answer").into_parts();
    let body = axum::body::to_bytes(body, 16 << 20).await.expect("a body");
    (Response::from_parts(parts, ()), String::from_utf8_lossy(&body).into_owned())
}

pub async fn page(router: &Router, path: &str) -> String {
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

pub async fn json(router: &Router, path: &str) -> Value {
    let (response, body) = open(router, path).await;
    assert_eq!(response.status(), StatusCode::OK, "{path}: {body}");
    serde_json::from_str(&body).expect("JSON")
}

/// Where the links of a page lead to within the site.
pub fn links(body: &str) -> Vec<String> {
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
    let Sample { state, failed, failed_operation, last_build, .. } = sample::full().await;
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
        "Log.AppendsInOrder (812 ms)",
        "1 optional output not made</summary>",
        "test.xml",
        "kiln-worker-2",
        "argument removed</b> <code>-O2</code>",
        "argument added</b> <code>-O1</code>",
        "input changed</b> <code>storage/log.cc</code>",
        "<span class=\"removed\">-int append_count = 0;",
        "<span class=\"added\">+int append_count = 1;",
        "<span class=\"c1\">[  FAILED  ]</span>",
        "WORKSPACE",
        "3.24 s",
    ] {
        assert!(body.contains(part), "{part} is not on the page: {body}");
    }
}

#[tokio::test]
async fn a_build_that_runs_is_shown_with_what_its_actions_print() {
    let Sample { state, .. } = sample::full().await;
    let build = "5f3c1e1a-7a7e-4c0e-a8fd-0b1a6a0d94b2";
    state.logs.create("logstreams/live-0/stderr");
    let printed = bytes::Bytes::from_static(b"one\ntwo \x1b[31mred\x1b[0m <i>\n");
    state.logs.append("logstreams/live-0/stderr", 0, &printed);
    let router = router(state);
    // The beginning of its id is enough; it ended nothing yet, so that the journal has no run.
    for path in [format!("/builds/{build}"), "/builds/5f3c1e1a".to_owned()] {
        let body = page(&router, &path).await;
        for part in
            ["Running and waiting", "10 open", "two <span class=\"c1\">red</span> &lt;i&gt;"]
        {
            assert!(body.contains(part), "{part} is not on the page: {body}");
        }
        assert!(body.contains("http-equiv=\"refresh\""), "{body}");
        assert!(!page(&router, &format!("{path}?hold=1")).await.contains("http-equiv"));
    }
    let value = json(&router, &format!("/api/v1/builds/{build}")).await;
    assert_eq!((&value["state"], &value["open"]), (&"running".into(), &10.into()));
    assert_eq!(value["operations"][0]["name"], "operations/live-0");
    let link = format!(
        "/actions/sha256/{}?operation=operations%2Flive-0",
        value["operations"][0]["action"].as_str().expect("a digest")
    );
    let body = page(&router, &link).await;
    for part in ["Output so far", "one\ntwo", "running", "kiln-worker-1", "http-equiv", "hold=1"] {
        assert!(body.contains(part), "{part} is not on the page: {body}");
    }
    let found = json(&router, "/api/v1/find?name=//storage/index:index").await;
    assert_eq!(found["operations"][0]["name"], "operations/live-0");
}

#[tokio::test]
async fn what_no_worker_can_take_is_named_at_once() {
    let Sample { state, .. } = sample::full().await;
    let router = router(state);
    let reason = "no worker offers OSFamily=macos (workers offer OSFamily: linux)";
    assert!(page(&router, "/queue").await.contains(reason));
    let status = json(&router, "/api/v1/status").await;
    assert_eq!(status["unserved"][0]["reason"], reason);
    assert_eq!(status["unserved"][0]["queued"], 1);
}

#[tokio::test]
async fn a_run_that_is_not_known_and_a_flaky_one_say_so() {
    let Sample { state, failed, failed_operation, last_build, .. } = sample::full().await;
    let router = router(state.clone());
    let address = format!("/actions/{}", path_of(&failed));
    let body = page(&router, &format!("{address}?operation=operations/gone")).await;
    assert!(body.contains("not known any more"), "{body}");
    // The same build runs it again, and it succeeds.
    let failure = state.journal.execution(&failed_operation).await.expect("readable");
    let mut again = (*failure.expect("it is there").execution).clone();
    (again.id, again.exit_code) = ("operations/again".to_owned(), 0);
    state.journal.flush().await;
    let events = kiln_cas::events::Events::new();
    let records = std::sync::Arc::new(kiln_cas::stores::MemoryRecords::default());
    let journal = kiln_scheduler::journal::Journal::start(records, &events, Default::default());
    let journal = journal.await.expect("readable");
    let mut first = again.clone();
    (first.id, first.exit_code) = (failed_operation.clone(), 1);
    events.publish(first);
    events.publish(again);
    journal.flush().await;
    let router = super::super::router(crate::WebState { journal, ..state });
    let shown = json(&router, &format!("/api/v1{address}")).await;
    assert_eq!(shown["execution"]["id"], failed_operation);
    assert!(shown["remark"].as_str().expect("a remark").contains("failed first"));
    let named = json(&router, &format!("/api/v1{address}?operation=operations/again")).await;
    assert_eq!(named["execution"]["id"], "operations/again");
    let found = json(&router, &format!("/api/v1/find?name={}", &failed.hex()[..9])).await;
    assert_eq!(found["executions"].as_array().map(Vec::len), Some(2));
    assert_eq!(found["executions"][0]["invocation_id"], last_build);
}

#[tokio::test]
async fn the_end_of_a_long_log_is_shown() {
    let sample::Sample { state, failed, failed_operation, .. } = sample::full().await;
    let lines: String = (0..20_000).map(|line| format!("line {line}\n")).collect();
    let log = failed.function.digest(lines.as_bytes());
    state.blobs.write(&log, lines.into()).await.expect("the store has room");
    let result = kiln_protos::reapi::ActionResult {
        stdout_digest: Some(log.to_wire()),
        exit_code: 1,
        ..Default::default()
    };
    let run = state.journal.execution(&failed_operation).await.expect("readable");
    let mut run = (*run.expect("it is there").execution).clone();
    run.action_result = prost::Message::encode_to_vec(&result).into();
    let events = kiln_cas::events::Events::new();
    let records = std::sync::Arc::new(kiln_cas::stores::MemoryRecords::default());
    let journal = kiln_scheduler::journal::Journal::start(records, &events, Default::default());
    let journal = journal.await.expect("readable");
    events.publish(run);
    journal.flush().await;
    let router = super::super::router(crate::WebState { journal, ..state });
    let shown = json(&router, &format!("/api/v1/actions/{}", path_of(&failed))).await;
    let text = shown["stdout"]["text"].as_str().expect("a log");
    assert!(text.starts_with("line ") && text.ends_with("line 19999\n"), "{}", &text[..40]);
    assert_eq!(shown["stdout"]["digest"]["hash"], log.hex());
    assert_eq!(shown["stdout"]["is_cut"], true);
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
async fn a_blob_is_a_download_or_text_and_never_a_page() {
    let sample = sample::full().await;
    let state = sample.state.clone();
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
    // Markup is shown as the text that it is, unless a download is asked for.
    let markup = bytes::Bytes::from_static(b"<script>alert(1)</script>");
    let digest = sample.failed.function.digest(&markup);
    state.blobs.write(&digest, markup).await.expect("the store has room");
    for (query, kind, how) in [
        ("?name=x.html", "text/plain; charset=utf-8", "inline"),
        ("?name=x.html&download=1", "application/octet-stream", "attachment"),
    ] {
        let (parts, _) = open(&router, &format!("/blobs/{}{query}", path_of(&digest))).await;
        let header = |name| parts.headers()[name].to_str().expect("ASCII").to_owned();
        assert_eq!(header(CONTENT_TYPE), kind);
        assert!(header(CONTENT_DISPOSITION).starts_with(how));
        assert!(header(CONTENT_SECURITY_POLICY).starts_with("sandbox; default-src 'none'"));
        assert_eq!(header(X_CONTENT_TYPE_OPTIONS), "nosniff");
    }
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
async fn an_address_without_a_page_leads_back() {
    let response = crate::no_page("/nowhere<b>");
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert!(response.headers().contains_key(CONTENT_SECURITY_POLICY));
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body");
    let body = String::from_utf8_lossy(&body);
    assert!(body.contains("/nowhere&lt;b&gt;") && body.contains("href=\"/builds\""), "{body}");
}

#[tokio::test]
async fn the_list_of_a_build_is_leafed_through() {
    let state = sample::empty().await;
    let events = kiln_cas::events::Events::new();
    let records = std::sync::Arc::new(kiln_cas::stores::MemoryRecords::default());
    let journal = kiln_scheduler::journal::Journal::start(records, &events, Default::default());
    let journal = journal.await.expect("readable");
    for number in 0..450 {
        events.publish(kiln_protos::events::Execution {
            id: format!("op-{number}"),
            invocation_id: "b".into(),
            target_id: format!("//t:{number:03}"),
            origin: 1,
            ..Default::default()
        });
    }
    journal.flush().await;
    let router = router(crate::WebState { journal, ..state });
    let first = page(&router, "/builds/b?q=//t").await;
    assert!(first.contains("1 to 300 of 450") && first.contains(">449<"), "{first}");
    let next = links_to(&first, "Next").expect("a next page");
    let second = page(&router, &format!("/builds/b{next}")).await;
    assert!(second.contains("301 to 450 of 450") && second.contains(">000<"), "{second}");
    assert!(links_to(&second, "Next").is_none());
    assert!(links_to(&second, "Previous").is_some());
}

/// The address that the button with this name leads to; `None`: there is no such button.
fn links_to(body: &str, name: &str) -> Option<String> {
    let (before, _) = body.split_once(&format!("\">{name}</a>"))?;
    let (_, link) = before.rsplit_once("href=\"")?;
    Some(link.replace("&amp;", "&").replace("#actions", ""))
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
