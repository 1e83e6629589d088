//! Pages and API of tests.

use std::time::{Duration, Instant};

use http::StatusCode;
use kiln_ci::attempts::{Attempt, Failure, Known, Slot};
use kiln_ci::model::{Outcome, Time};

use super::pages::{json, open, page};
use super::sample;
use super::sample::suite::{fill, key};
use crate::{WebState, format, router};

pub async fn with_suite(tests: u64, builds: u64) -> WebState {
    let state = sample::empty().await;
    fill(&state.tests.history, tests, builds).await;
    state
}

#[tokio::test]
async fn without_tests_the_pages_say_how_to_get_some() {
    let router = router(sample::empty().await);
    for path in ["/tests", "/tests/grid"] {
        assert!(page(&router, path).await.contains("--bes_backend"), "{path}");
    }
    let none = json(&router, "/api/v1/tests").await;
    assert_eq!((&none["total"], &none["next_page"]), (&0.into(), &serde_json::Value::Null));
    let (response, _) = open(&router, "/tests/ffffffffffffffffffffffff").await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn tests_are_listed_found_and_shown() {
    let state = with_suite(120, 12).await;
    let router = router(state);
    let body = page(&router, "/tests").await;
    for part in [
        "120 tests",
        "svg class=\"spark\"",
        "Page 1 of 2",
        "parser_0_test",
        "aria-current=\"page\"",
    ] {
        assert!(body.contains(part), "{part} is not on the page: {body}");
    }
    let failing = page(&router, "/tests?outcome=failing&sort=failures&q=parser").await;
    assert!(failing.contains("lexer").eq(&false) && failing.contains("parser_"), "{failing}");

    let all = json(&router, "/api/v1/tests?limit=100&sort=flakes").await;
    assert_eq!((&all["total"], &all["next_page"]), (&120.into(), &1.into()));
    let second = json(&router, "/api/v1/tests?limit=100&page=1").await;
    assert_eq!(second["tests"].as_array().map(Vec::len), Some(20));
    let flaky = &all["tests"][0];
    assert!(flaky["flaky"].as_u64() > Some(0), "{flaky}");
    let id = flaky["id"].as_str().expect("an id");
    let shown = json(&router, &format!("/api/v1/tests/{id}?limit=5")).await;
    assert_eq!(shown["label"], flaky["label"]);
    assert_eq!(shown["attempts"].as_array().map(Vec::len), Some(5));
    assert!(shown["failures"][0]["excerpt"].as_str().expect("text").contains("expected 200"));
    let label = flaky["label"].as_str().expect("a label");
    let by_label = format!("/api/v1/tests/{}", format::encode(label, false));
    assert_eq!(json(&router, &by_label).await["id"], flaky["id"]);

    let body = page(&router, flaky["page"].as_str().expect("an address")).await;
    for part in [
        "Flake rate",
        "Failures that look alike",
        "Durations of attempts",
        "expected 200",
        "attempt 2",
        "Suite handles_load",
    ] {
        assert!(body.contains(part), "{part} is not on the page: {body}");
    }
    let commit = shown["attempts"][0]["commit"].as_str().expect("a commit");
    let at = format!("/tests/{id}?at={}", &commit[..16]);
    let body = page(&router, &at).await;
    let attempts = body.split("Attempts</h2>").nth(1).expect("its attempts");
    let rows = attempts.matches("kiln-worker-").count();
    assert!((1..=2).contains(&rows), "{rows} attempts at one commit");
}

#[tokio::test]
async fn the_grid_is_a_table_that_is_read_without_colours() {
    let router = router(with_suite(60, 9).await);
    let body = page(&router, "/tests/grid").await;
    for part in [
        "<th scope=\"row\">",
        "scope=\"col\"",
        "scope=\"colgroup\"",
        "title=\"failed and passed,",
        "title=\"failed,",
        ">✗</a>",
        "tabindex=\"-1\">✓</a>",
        "?at=",
        "60 tests",
        "the newest 9 commits",
    ] {
        assert!(body.contains(part), "{part} is not on the page: {body}");
    }
    let grid = json(&router, "/api/v1/tests/grid?columns=4&limit=10&outcome=failing").await;
    assert_eq!(grid["columns"].as_array().map(Vec::len), Some(4));
    let cells = grid["rows"][0]["cells"].as_array().expect("cells");
    assert_eq!(cells.len(), 4);
    let began = |at: usize| grid["columns"][at]["first_at"].as_str().expect("a time").to_owned();
    assert!(began(0) > began(1), "the newest is first");
    let branch = json(&router, "/api/v1/tests/grid?branch=feature/quic").await;
    assert_eq!(branch["columns"].as_array().map(Vec::len), Some(2));
    let builds = json(&router, "/api/v1/tests/grid?across=invocations").await;
    assert_eq!(builds["columns"][0]["name"], builds["columns"][0]["invocation_id"]);
    for odd in
        ["across=x", "columns=201", "columns=0", "outcome=red", "sort=x", "days=3", "limit=0"]
    {
        let (response, _) = open(&router, &format!("/api/v1/tests/grid?{odd}")).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{odd}");
    }
}

#[tokio::test]
async fn what_a_test_is_called_or_prints_is_never_markup() {
    let state = sample::empty().await;
    let label =
        format!("//a:<script>alert(1)</script>\u{1b}[31m\u{202e}\"'&{}", "x".repeat(10_000));
    let message = "<img src=x onerror=alert(1)>\u{1b}[31mred\u{1b}]8;;http://evil\u{7}\u{202e}";
    let slot = Slot { run: 1, shard: 1, attempt: 1 };
    let hostile = Attempt {
        outcome: Outcome::Failed,
        started: Time(u64::try_from(format::now() / 1_000_000).expect("a time") - 1000),
        commit: Some("<b>\"'".to_owned()),
        branch: Some("</td><script>".to_owned()),
        worker: "<i>".to_owned(),
        failure: Failure::of(message),
        duration: Some(Duration::from_millis(3)),
        ..Attempt::new(key(&label), "<svg onload=x>/../\u{202e}", slot, Known::REPORTED)
    };
    state.tests.history.commit(Time(1), &[hostile]).await.expect("it has room");
    let router = router(state);
    let listed = json(&router, "/api/v1/tests").await;
    assert_eq!(listed["tests"][0]["label"], label);
    let own = listed["tests"][0]["page"].as_str().expect("an address").to_owned();
    for path in
        [&own, "/tests", "/tests/grid", "/tests/grid?across=invocations", "/tests?q=%3Cscript"]
    {
        let body = page(&router, path).await;
        assert!(body.contains("&lt;script&gt;"), "{path}: {body}");
        for forbidden in ["<img", "<i>", "<svg onload", "\u{1b}", "<b>\""] {
            assert!(!body.contains(forbidden), "{path} holds {forbidden}: {body}");
        }
        assert!(body.len() < 60_000, "{path} has {} bytes", body.len());
    }
}

#[tokio::test]
async fn parts_of_an_attempt_are_shown_with_it_and_count_for_nothing() {
    let state = sample::empty().await;
    let began = u64::try_from(format::now() / 1_000_000).expect("a time") - 10_000;
    let run = |(shard, shards): (u32, u32), known, worker: &str| Attempt {
        outcome: Outcome::Passed,
        started: Time(began),
        duration: Some(Duration::from_secs(3)),
        shards,
        execution: u64::from(shards * 10 + shard),
        worker: worker.to_owned(),
        ..Attempt::new(key("//a:t"), "build", Slot { run: 1, shard, attempt: 0 }, known)
    };
    let part = |number| run((number, 2), Known::EXECUTED | Known::PART, &format!("w{number}"));
    let whole = run((1, 1), Known::EXECUTED, "several");
    state.tests.history.commit(Time(1), &[whole, part(1), part(2)]).await.expect("it has room");
    let router = router(state);
    let listed = json(&router, "/api/v1/tests").await;
    let test = &listed["tests"][0];
    assert_eq!((&listed["total"], &test["passed"]), (&1.into(), &1.into()));
    let id = test["id"].as_str().expect("an id");
    let shown = json(&router, &format!("/api/v1/tests/{id}?limit=5")).await;
    assert_eq!(shown["attempts"].as_array().map(Vec::len), Some(1));
    assert_eq!(shown["parts"].as_array().map(Vec::len), Some(2));
    assert_eq!(shown["parts"][0]["shards"], 2);
    let body = page(&router, test["page"].as_str().expect("an address")).await;
    for part in ["2 parts, each run by itself", "1/2", "2/2", "w1", "w2"] {
        assert!(body.contains(part), "{part} is not on the page: {body}");
    }
}

/// 200 commits of 5,000 tests. `cargo nextest run --release --run-ignored only large_grid`, for the figure in the
/// documentation.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute, and says something in a release build alone"]
async fn a_large_grid_is_served_at_once() {
    let state = with_suite(5000, 200).await;
    let router = router(state);
    for path in [
        "/tests/grid?columns=200",
        "/tests/grid?columns=200&page=20",
        "/tests/grid?columns=200&outcome=failing&sort=flakes",
        "/api/v1/tests/grid?columns=200&limit=100",
        "/tests",
    ] {
        for look in ["first", "again"] {
            tokio::time::sleep(Duration::from_secs(4)).await;
            let start = Instant::now();
            let (response, body) = open(&router, path).await;
            println!("{path}, {look}: {:?}, {} bytes", start.elapsed(), body.len());
            assert_eq!(response.status(), StatusCode::OK);
        }
    }
}
