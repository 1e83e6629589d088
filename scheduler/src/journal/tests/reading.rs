//! What is found, by which query.

use std::collections::BTreeSet;

use bytes::Bytes;
use kiln_cas::records::Expect;
use kiln_protos::reapi;
use prost::Message;

use super::*;

#[tokio::test]
async fn every_index_finds_an_execution_newest_first_before_and_after_it_is_written() {
    // A delay that never comes to its end: what is read comes from memory at first.
    let config =
        JournalConfig { batch_delay: Duration::from_secs(3600), ..JournalConfig::default() };
    let records = memory_records();
    let (journal, events) = start(&records, config).await;
    events.publish(execution("op/1", "//a", "build 1", "x"));
    events.publish(execution("op/2", "//a", "build 2", "x"));
    events.publish(Execution {
        mnemonic: "CppLink".into(),
        ..execution("op/3", "//a", "build 2", "y")
    });
    // The task takes events in when it is its turn.
    while journal.stats().pending < 3 {
        tokio::task::yield_now().await;
    }
    assert!(keys_of(&records, "journal/x/").await.is_empty());
    for _ in 0..2 {
        let target = |mnemonic: Option<&str>| Query::Target {
            target: "//a".into(),
            mnemonic: mnemonic.map(Into::into),
        };
        assert_eq!(ids(&journal, &Query::Recent).await, ["op/3", "op/2", "op/1"]);
        assert_eq!(ids(&journal, &Query::Action(digest("x"))).await, ["op/2", "op/1"]);
        assert_eq!(ids(&journal, &target(Some("CppCompile"))).await, ["op/2", "op/1"]);
        assert_eq!(ids(&journal, &target(None)).await, ["op/3", "op/2", "op/1"]);
        assert_eq!(ids(&journal, &Query::Invocation("build 2".into())).await, ["op/3", "op/2"]);
        assert_eq!(ids(&journal, &Query::Invocation("build".into())).await, [""; 0]);
        let found = journal.execution("op/2").await.expect("readable").expect("it is there");
        assert_eq!(found.execution.invocation_id, "build 2");
        journal.flush().await;
        assert_eq!(journal.stats().pending, 0);
    }
    assert_eq!(keys_of(&records, "journal/x/").await.len(), 3);
}

#[tokio::test]
async fn pages_go_on_where_the_last_one_ended() {
    let records = memory_records();
    let (journal, events) = start(&records, JournalConfig::default()).await;
    for i in 0..10 {
        events.publish(execution(&format!("op-{i}"), "//a", "b", "x"));
    }
    journal.flush().await;
    let mut seen = Vec::new();
    let mut page = Page::first(3);
    loop {
        let query = Query::Target { target: "//a".into(), mnemonic: None };
        let entries = journal.executions(&query, page).await.expect("readable");
        let Some(last) = entries.last() else { break };
        page.before = Some(last.seq);
        seen.extend(entries.into_iter().map(|entry| entry.execution.id.clone()));
    }
    let expected: Vec<_> = (0..10).rev().map(|i| format!("op-{i}")).collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn actions_and_builds_are_found_by_their_beginnings() {
    let records = memory_records();
    let (journal, events) = start(&records, JournalConfig::default()).await;
    events.publish(execution("op-1", "//a", "5f3c1e1a-7a7e", "x"));
    events.publish(execution("op-2", "//a", "5f3c1e1b-0000", "y"));
    events.publish(execution("op-3", "//a", "5f3c1e1b-0000", "x"));
    while ids(&journal, &Query::Recent).await.len() < 3 {
        tokio::task::yield_now().await;
    }
    for _ in 0..2 {
        let wanted = digest("x");
        let found = journal.actions_like(&wanted.hex()[..12], 5).await.expect("readable");
        assert_eq!(found, [wanted]);
        let mut builds = journal.builds_like("5f3c1e1", 5).await.expect("readable");
        builds.sort();
        assert_eq!(builds, ["5f3c1e1a-7a7e", "5f3c1e1b-0000"]);
        assert_eq!(journal.builds_like("5f3c1e1a", 5).await.expect("readable").len(), 1);
        assert!(journal.builds_like("5f3c/", 5).await.expect("readable").is_empty());
        // In memory at first, then in the records.
        journal.flush().await;
    }
}

#[tokio::test]
async fn the_last_run_of_a_target_is_another_action_of_the_same_configuration() {
    let records = memory_records();
    let (journal, events) = start(&records, JournalConfig::default()).await;
    let configured = |id: &str, action: &str, configuration: &str| Execution {
        configuration_id: configuration.into(),
        ..execution(id, "//a", "b", action)
    };
    events.publish(configured("opt", "1", "opt"));
    events.publish(configured("dbg", "2", "dbg"));
    events.publish(configured("same", "3", "opt"));
    journal.flush().await;
    let action = digest("3");
    let earlier = Earlier {
        target: "//a",
        mnemonic: "CppCompile",
        configuration: Some("opt"),
        not_action: Some(&action),
        before: None,
        outputs: None,
    };
    let id = async |earlier| {
        let found = journal.last_run_before(earlier).await.expect("readable");
        found.map(|entry| entry.execution.id.clone())
    };
    assert_eq!(id(earlier).await.as_deref(), Some("opt"));
    assert_eq!(id(Earlier { configuration: None, ..earlier }).await.as_deref(), Some("dbg"));
    assert_eq!(id(Earlier { mnemonic: "Other", ..earlier }).await, None);
}

#[tokio::test]
async fn the_last_run_is_of_an_action_that_makes_the_same() {
    let records = memory_records();
    let (journal, events) = start(&records, JournalConfig::default()).await;
    let making = |id: &str, path: &str| {
        let file = |path: &str| reapi::OutputFile { path: path.into(), ..Default::default() };
        let output_files = vec![file(path), file(&format!("{id}.log"))];
        let result = reapi::ActionResult { output_files, ..Default::default() };
        Execution { action_result: result.encode_to_vec().into(), ..execution(id, "//a", "b", id) }
    };
    events.publish(making("one", "one.o"));
    events.publish(making("two", "two.o"));
    journal.flush().await;
    let id = async |path: &str| {
        let earlier = Earlier {
            target: "//a",
            mnemonic: "CppCompile",
            configuration: None,
            not_action: None,
            before: None,
            outputs: Some(&BTreeSet::from([path.to_owned()])),
        };
        let found = journal.last_run_before(earlier).await.expect("readable");
        found.map(|entry| entry.execution.id.clone())
    };
    assert_eq!(id("one.o").await.as_deref(), Some("one"));
    assert_eq!(id("two.o").await.as_deref(), Some("two"));
    assert_eq!(id("three.o").await, None);
}

#[tokio::test]
async fn a_build_that_cannot_be_read_hides_no_other() {
    let records = memory_records();
    let (journal, events) = start(&records, JournalConfig::default()).await;
    for build in ["build 1", "build 2"] {
        events.publish(execution(&format!("op of {build}"), "//a", build, "x"));
    }
    journal.shutdown().await;
    let value = Some(Bytes::from_static(b"\xff no build"));
    let damaged = Write { key: keys::build("build 1"), expect: Expect::Anything, value };
    records.write(vec![damaged]).await.expect("it is written");
    let (journal, _events) = start(&records, JournalConfig::default()).await;
    let builds = journal.builds(Page::first(10)).await.expect("the other one is readable");
    let names: Vec<_> = builds.iter().map(|build| &*build.invocation_id).collect();
    assert_eq!(names, ["build 2"]);
    let like = journal.builds_like("build", 10).await.expect("the other one is readable");
    assert_eq!(like, ["build 2"]);
}
