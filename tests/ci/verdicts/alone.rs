//! Kiln finds a flaky test, puts it into quarantine, tells a webhook of that and masks the test's failures, without
//! anybody doing anything.

use super::webhook::Listener;
use super::*;

/// Lets the flaky test fail once, with inputs that it has not had yet. The server knows the commit of that build from
/// build events only.
fn flip(rig: &Rig, round: u32) -> Run {
    let path = rig.workspace.path().join("flaky_test.sh");
    let text = std::fs::read_to_string(&path).expect("it is there");
    std::fs::write(&path, format!("{text}# {round}\n")).expect("it is written");
    rig.oracle.fail(1);
    let commit = format!("--build_metadata=COMMIT_SHA=c{round}");
    rig.ci(&[], &[ANEW, &commit, "//:flaky_test"])
}

/// Returns what `kiln build diff` says of the last two builds, as JSON.
fn compared(rig: &Rig) -> Value {
    let builds = get_json(&rig.server.address, "/api/v1/invocations?limit=2");
    let id =
        |at: usize| builds["invocations"][at]["invocation_id"].as_str().expect("an id").to_owned();
    let (code, said) = rig.asked(&["build", "diff", &id(1), &id(0), "--json"]);
    assert_eq!(code, 0, "{said}");
    let (_, text) = rig.asked(&["build", "diff", &id(1), &id(0)]);
    assert!(text.contains("commit: c1 -> c2") && text.contains("flaky_test.sh"), "{text}");
    json(&said)
}

#[test]
fn a_flaky_test_enters_quarantine_by_itself_and_its_owner_is_told_once() {
    let webhook = Listener::start();
    let owners = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(owners.path(), "* @keepers\n").expect("it is written");
    let path = owners.path().to_str().expect("a plain path");
    let settings = [("KILN_TESTS_CODEOWNERS", path), ("KILN_TESTS_WEBHOOK", webhook.url.as_str())];
    let Some(rig) = Rig::start_with(&settings) else { return };
    for round in 1..=2 {
        let run = flip(&rig, round);
        assert_eq!(run.code, 0, "{}", run.text);
    }
    let list = || json(&rig.asked(&["tests", "quarantine", "list", "--json"]).1);
    wait_until("the policy has put it into quarantine", || {
        list()["entries"].as_array().is_some_and(|it| !it.is_empty())
    });
    // An execution does not name a commit. The server takes the one of the build that the execution belongs to.
    let flakes = get_json(&rig.server.address, "/api/v1/tests/flakes");
    assert_eq!(flakes["flakes"][0]["commits"], 2, "{flakes}");
    let compared = compared(&rig);
    let causes = compared["causes"].as_array().expect("a list");
    let is_script =
        |it: &Value| it["name"].as_str().is_some_and(|it| it.ends_with("flaky_test.sh"));
    assert!(causes.iter().any(is_script), "{compared}");

    let entry = list()["entries"][0].clone();
    assert!(entry["label"].as_str().is_some_and(|it| it.ends_with("//:flaky_test")), "{entry}");
    assert_eq!((&entry["by"], &entry["owner"]), (&"policy".into(), &"@keepers".into()), "{entry}");

    wait_until("the webhook was told", || !webhook.heard().is_empty());
    let said = webhook.heard().remove(0);
    assert_eq!(said["event"], "tests.quarantine.entered", "{said}");
    assert_eq!((&said["label"], &said["owner"]), (&entry["label"], &entry["owner"]), "{said}");

    // In quarantine the test fails as it did before. Kiln masks the failure, because the test has passed with the
    // same inputs.
    let masked = flip(&rig, 3);
    assert_eq!(masked.code, 0, "{}", masked.text);
    assert!(masked.text.contains("in quarantine ("), "{}", masked.text);
    assert!(masked.text.contains("(owner: @keepers)"), "{}", masked.text);
    // The server tells the webhook of changes one after the other. Once it has told a later one, no earlier one is
    // still on its way.
    let (code, said) = rig.asked(&["tests", "quarantine", "add", "//:later", "--reason", "later"]);
    assert_eq!(code, 0, "{said}");
    let is_later = |it: &Value| it["label"].as_str().is_some_and(|it| it.ends_with("//:later"));
    wait_until("the later change was told", || webhook.heard().iter().any(is_later));
    let heard = webhook.heard();
    assert_eq!(heard.iter().filter(|it| !is_later(it)).count(), 1, "{heard:?}");
    let log = rig.asked(&["audit", "log", "--json"]).1;
    assert_eq!(log.matches("tests.quarantine.enter").count(), 2, "{log}");
}
