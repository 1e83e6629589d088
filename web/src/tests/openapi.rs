//! The description of the API, held against the API.

use std::collections::BTreeSet;

use axum::Router;
use kiln_ci::plans::{Piece, Plan, Turn};
use serde_json::Value;

use super::pages::json;
use super::sample::{self, Sample};
use crate::format::path_of;
use crate::{WebState, openapi, router, routes};

/// What a router answers, as its picture for developers lists it.
fn paths(api: &Router<WebState>) -> BTreeSet<String> {
    let shown = format!("{api:?}");
    // The router also lists the private addresses of its fallback, which are left out.
    let is_route =
        |text: &&str| text.len() > 1 && text.starts_with('/') && !text.contains("__private");
    let texts = shown.split('"').skip(1).step_by(2).filter(is_route);
    texts.map(|path| format!("/api/v1{}", path.replace("{*", "{"))).collect()
}

#[tokio::test]
async fn every_route_is_described_and_nothing_else_is() {
    let routes = paths(&routes::api());
    assert!(routes.len() > 12 && routes.contains("/api/v1/tests/{id}"), "{routes:?}");
    let described = openapi::document().await.0;
    let described = described["paths"].as_object().expect("paths");
    let described: BTreeSet<String> = described.keys().cloned().collect();
    assert_eq!(described, routes);
}

/// Follows a reference, and puts together what has several parts.
fn properties<'a>(document: &'a Value, schema: &'a Value, found: &mut Vec<(&'a str, &'a Value)>) {
    if let Some(name) = schema["$ref"].as_str().and_then(|it| it.rsplit('/').next()) {
        return properties(document, &document["components"]["schemas"][name], found);
    }
    for several in ["allOf", "oneOf", "anyOf"] {
        for part in schema[several].as_array().into_iter().flatten() {
            properties(document, part, found);
        }
    }
    let own = schema["properties"].as_object().into_iter().flatten();
    found.extend(own.map(|(name, schema)| (name.as_str(), schema)));
}

fn items<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str().and_then(|it| it.rsplit('/').next()) {
        Some(name) => items(document, &document["components"]["schemas"][name]),
        // The schema of a pair describes each place of it separately.
        None if schema["items"].is_null() => &schema["prefixItems"][0],
        None => &schema["items"],
    }
}

/// Everything that an answer holds is described.
fn check(document: &Value, schema: &Value, answer: &Value, place: &str) -> usize {
    match answer {
        Value::Array(all) => {
            let schema = items(document, schema);
            assert!(!schema.is_null(), "{place} is no list");
            all.iter().take(20).map(|it| check(document, schema, it, place)).sum()
        }
        Value::Object(all) => {
            let mut known = Vec::new();
            properties(document, schema, &mut known);
            let of = |name: &str| known.iter().find(|it| it.0 == name).map(|it| it.1);
            // The schema of a map describes its values.
            let additional = &schema["additionalProperties"];
            let mut checked = 0;
            for (name, value) in all {
                let schema = of(name).or((!additional.is_null()).then_some(additional));
                let place = format!("{place}.{name}");
                let Some(schema) = schema else { unreachable!("{place} is not described") };
                checked += 1 + check(document, schema, value, &place);
            }
            checked
        }
        _ => 0,
    }
}

#[tokio::test]
async fn answers_hold_nothing_that_is_not_described() {
    let Sample { state, failed, failed_operation, last_build, earlier_build } =
        sample::full().await;
    sample::suite::fill(&state.tests.history, 30, 4).await;
    sample::told::failed(&state, &last_build).await;
    super::fleet::registered(&state).await;
    let router = router(state);
    let document = json(&router, "/api/v1/openapi.json").await;
    assert_eq!(document["openapi"].as_str().map(|it| &it[..3]), Some("3.1"));
    let test =
        json(&router, "/api/v1/tests").await["tests"][0]["id"].as_str().expect("an id").to_owned();
    let action = path_of(&failed);
    for (path, asked) in [
        ("/status", String::new()),
        ("/workers", String::new()),
        ("/queue", String::new()),
        ("/hermeticity", String::new()),
        ("/builds", String::new()),
        ("/invocations", String::new()),
        ("/builds/{invocation}", format!("/builds/{last_build}")),
        ("/builds/{invocation}", "/builds/5f3c1e1a".to_owned()),
        ("/builds/compare", format!("/builds/compare?before={earlier_build}&after={last_build}")),
        ("/tests", String::new()),
        ("/tests/grid", String::new()),
        ("/tests/kpi", String::new()),
        ("/tests/{id}", format!("/tests/{test}")),
        ("/tests/quarantine", String::new()),
        ("/tests/quarantine/export", "/tests/quarantine/export?format=bazel".to_owned()),
        ("/releases", String::new()),
        ("/explain", format!("/explain?digest={}", "ab".repeat(32))),
        ("/environments", String::new()),
        ("/environments/{environment}", "/environments/prod".to_owned()),
        ("/rollouts", String::new()),
        ("/locks", String::new()),
        ("/pipelines", String::new()),
        ("/previews", String::new()),
        ("/fleet", String::new()),
        ("/fleet/show", "/fleet/show?service=api&environment=prod&name=web-1".to_owned()),
        ("/merge-queues", String::new()),
        ("/merge-queues/{queue}", "/merge-queues/app".to_owned()),
        ("/merge-queues/{queue}/change", "/merge-queues/app/change?branch=good".to_owned()),
        ("/merge-queues/{queue}/runs/{run}", "/merge-queues/app/runs/7".to_owned()),
        ("/audit/check", String::new()),
        ("/actions/{function}/{hash}/{size}", format!("/actions/{action}")),
        ("/actions/{function}/{hash}/{size}/difference", format!("/actions/{action}/difference")),
        ("/executions", String::new()),
        ("/executions/{id}", format!("/executions/{failed_operation}")),
        ("/find", "/find?name=//storage/index:index".to_owned()),
    ] {
        let operation = &document["paths"][format!("/api/v1{path}")]["get"];
        let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
        assert!(operation["responses"]["default"]["content"].is_object(), "{path}");
        let asked = if asked.is_empty() { path.to_owned() } else { asked };
        let answer = json(&router, &format!("/api/v1{asked}")).await;
        let checked = check(&document, schema, &answer, path);
        assert!(checked > 0, "{path}: {answer}");
    }
}

#[tokio::test]
async fn what_is_said_of_flaky_tests_and_plans_is_described() {
    let state = sample::flakes::judged().await;
    super::flakes::ask_a_gate(&state).await;
    let pieces = vec![Piece { tests: vec!["a".to_owned()], expected_s: 1.0 }];
    let plan = Plan { id: "p".to_owned(), pieces, ..Plan::default() };
    let now = state.tests.clock.now();
    state.plans.put(plan, now).await.expect("it is put");
    let turn = Turn { runner: "r", attempt: "1", request: 1, now };
    state.plans.next("", "p", turn).await.expect("a piece");
    let router = router(state);
    let document = json(&router, "/api/v1/openapi.json").await;
    for (path, asked, least) in [
        ("/tests/flakes", "/tests/flakes", 60),
        ("/tests/quarantine/history", "/tests/quarantine/history", 5),
        ("/tests/plans", "/tests/plans?plan=p", 10),
        ("/tests/kpi", "/tests/kpi", 30),
    ] {
        let operation = &document["paths"][format!("/api/v1{path}")]["get"];
        let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
        let answer = json(&router, &format!("/api/v1{asked}")).await;
        let checked = check(&document, schema, &answer, path);
        assert!(checked >= least, "{path}: {checked} of {answer}");
    }
}
