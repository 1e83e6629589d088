//! Pages and API of flaky tests and of the quarantine.

use std::sync::Arc;

use http::StatusCode;
use kiln_cas::stores::audit::AuditEvent;
use kiln_ci::model::Subject;
use kiln_ci::verdicts::{Account, Answered, Question, Told};

use super::pages::{json, open, page};
use super::sample;
use super::sample::flakes::key;
use crate::{WebState, router};

#[tokio::test]
async fn without_flaky_tests_the_pages_say_so() {
    let router = router(sample::empty().await);
    assert!(page(&router, "/tests/flakes").await.contains("No test has failed and passed"));
    assert!(page(&router, "/tests/quarantine").await.contains("No test is in quarantine"));
    let none = json(&router, "/api/v1/tests/flakes").await;
    assert_eq!((&none["total"], &none["is_cut"]), (&0.into(), &false.into()));
    let (response, _) = open(&router, "/api/v1/tests/flakes?standing=red").await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn flaky_tests_are_shown_with_their_evidence_and_nobody_else_is() {
    let state = sample::flakes::judged().await;
    let router = router(state);
    let all = json(&router, "/api/v1/tests/flakes").await;
    let flakes = all["flakes"].as_array().expect("flakes");
    let named: Vec<_> = flakes.iter().map(|it| (&it["label"], &it["standing"])).collect();
    let label = |test| serde_json::Value::from(key(test, "main", "").label);
    assert_eq!(named, [(&label(4), &"flaky".into()), (&label(7), &"suspected".into())], "{all:#}");
    let flaky = &flakes[0];
    assert_eq!(
        (&flaky["flips"], &flaky["commits"], &flaky["evidence"]),
        (&3.into(), &3.into(), &"proven".into())
    );
    assert_eq!((&flaky["owner"], &flaky["is_quarantined"]), (&"@net-team".into(), &true.into()));
    assert_eq!(flaky["newest"][0]["commit"], format!("{:040x}", 0xfeed_0004_u64));
    let broken = all["judged"].as_array().expect("cases");
    let broken = broken.iter().find(|it| it["label"] == label(8)).expect("the broken test");
    assert_ne!(broken["verdict"], "flaky");

    let body = page(&router, "/tests/flakes").await;
    for part in ["client_4_test", "nobody", "@net-team", "in 3 commits", "Failures under judgement"]
    {
        assert!(body.contains(part), "{part} is not on the page: {body}");
    }
    let suspected = page(&router, "/tests/flakes?standing=suspected").await;
    assert!(!suspected.contains("in 3 commits") && suspected.contains("in 1 commit"));
    let none = json(&router, "/api/v1/tests/flakes?q=nothing").await;
    assert_eq!(none["total"], 0);
}

/// Asks a gate as a pipeline does after the fifth build, in which a flaky test failed and passed.
pub async fn ask_a_gate(state: &WebState) -> Subject {
    let question = Question {
        instance: "main".to_owned(),
        invocation: "build-4".to_owned(),
        told: Told::Ended(Arc::new(Account::default())),
        ..Question::default()
    };
    let now = state.tests.clock.now();
    let answered = state.verdicts.answers.gate(&question, now).await.expect("an answer");
    let finding = Answered { pending: false, ..answered };
    state.verdicts.survey.note(&question, &finding, now).await.expect("it is noted");
    Subject { test: key(4, "main", ""), case: None }
}

#[tokio::test]
async fn the_quarantine_is_shown_with_reasons_and_what_gates_let_pass() {
    let state = sample::flakes::judged().await;
    let subject = ask_a_gate(&state).await;
    let event = |action: &str, details: &str| AuditEvent {
        time: 1_790_000_000,
        actor: "grace".to_owned(),
        action: action.to_owned(),
        subject: "//app:t".to_owned(),
        details: details.to_owned(),
    };
    let why = "{\"instance\": \"main\", \"reason\": \"it is mended\"}";
    let events = vec![event("tests.quarantine.leave", why), event("workers.drain", "{}")];
    state.audit.append_with(events, Vec::new()).await.expect("it has room");
    let router = router(state);
    let body = page(&router, "/tests/quarantine").await;
    for part in
        ["fails at midnight &lt;b&gt;", "ada@example.com", "@net-team", "nobody", "/builds/build-4"]
    {
        assert!(body.contains(part), "{part} is not on the page: {body}");
    }
    assert!(body.contains("it is mended") && !body.contains("drain"), "{body}");
    let past = json(&router, "/api/v1/tests/quarantine/history").await;
    assert_eq!(past["changes"].as_array().map(Vec::len), Some(1), "{past:#}");
    let masked: Vec<_> =
        past["masked"].as_array().expect("failures").iter().map(|it| &it["label"]).collect();
    assert_eq!(masked, [&subject.test.label], "{past:#}");
}
