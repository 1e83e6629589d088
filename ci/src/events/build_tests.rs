use kiln_protos::bep::build_event_id::{
    ConfigurationId, NamedSetOfFilesId, PatternExpandedId, ProgressId, TargetCompletedId,
    TestResultId, TestSummaryId,
};
use kiln_protos::bep::{TestStatus, workspace_status};

use super::*;
use crate::model::{Outcome, Time};

fn event(id: Option<Id>, payload: Payload) -> KeptEvent {
    let id = Some(bep::BuildEventId { id });
    KeptEvent::Bazel(Box::new(bep::BuildEvent { id, payload: Some(payload), ..Default::default() }))
}

fn configuration() -> Option<ConfigurationId> {
    Some(ConfigurationId { id: "cfg".into() })
}

fn completed(label: &str, success: bool) -> KeptEvent {
    let id = TargetCompletedId {
        label: label.into(),
        configuration: configuration(),
        ..Default::default()
    };
    let group = bep::OutputGroup {
        name: "default".into(),
        file_sets: vec![NamedSetOfFilesId { id: "0".into() }],
        incomplete: false,
    };
    let it = bep::TargetComplete { success, output_group: vec![group], ..Default::default() };
    event(Some(Id::TargetCompleted(id)), Payload::Completed(it))
}

fn result(label: &str, attempt: i32, status: TestStatus) -> KeptEvent {
    let id = TestResultId {
        label: label.into(),
        run: 1,
        shard: 1,
        attempt,
        configuration: configuration(),
    };
    let it = bep::TestResult { status: status.into(), ..Default::default() };
    event(Some(Id::TestResult(id)), Payload::TestResult(it))
}

fn set(id: &str, files: &[&str], sets: &[&str]) -> KeptEvent {
    let files = files.iter().map(|it| bep::File { name: (*it).into(), ..Default::default() });
    let file_sets = sets.iter().map(|it| NamedSetOfFilesId { id: (*it).into() }).collect();
    let it = bep::NamedSetOfFiles { files: files.collect(), file_sets };
    event(Some(Id::NamedSet(NamedSetOfFilesId { id: id.into() })), Payload::NamedSetOfFiles(it))
}

fn progress(text: &str) -> KeptEvent {
    let it = bep::Progress { stderr: text.as_bytes().to_vec().into(), ..Default::default() };
    event(Some(Id::Progress(ProgressId::default())), Payload::Progress(it))
}

fn status(pairs: &[(&str, &str)]) -> KeptEvent {
    let item = pairs
        .iter()
        .map(|(key, value)| workspace_status::Item { key: (*key).into(), value: (*value).into() });
    event(None, Payload::WorkspaceStatus(bep::WorkspaceStatus { item: item.collect() }))
}

fn build(entries: &[KeptEvent]) -> Build {
    build_within(Limits::default(), entries)
}

fn build_within(limits: Limits, entries: &[KeptEvent]) -> Build {
    let mut build = Build::new("main", "build-1", limits);
    entries.iter().for_each(|it| build.apply(it));
    build
}

fn started() -> KeptEvent {
    let it = bep::BuildStarted {
        command: "test".into(),
        build_tool_version: "7.7.1".into(),
        start_time_millis: 1000,
        ..Default::default()
    };
    event(None, Payload::Started(it))
}

fn finished(code: i32, name: &str) -> KeptEvent {
    let exit_code = Some(bep::build_finished::ExitCode { name: name.into(), code });
    let it = bep::BuildFinished { exit_code, finish_time_millis: 5000, ..Default::default() };
    event(None, Payload::Finished(it))
}

#[test]
fn a_build_is_put_together() {
    let pattern = PatternExpandedId { pattern: vec!["//...".into()] };
    let build = build(&[
        started(),
        event(Some(Id::Pattern(pattern)), Payload::Expanded(bep::PatternExpanded {})),
        status(&[("BUILD_USER", "ann"), ("STABLE_GIT_COMMIT", "c0ffee"), ("GIT_BRANCH", "main")]),
        set("0", &["a"], &[]),
        completed("//a:lib", true),
        completed("//a:bad", false),
        finished(1, "BUILD_FAILURE"),
        KeptEvent::Finished,
    ]);
    let facts = build.facts();
    assert_eq!((facts.command.as_str(), facts.tool_version.as_str()), ("test", "7.7.1"));
    assert_eq!(facts.patterns, ["//..."]);
    assert_eq!(facts.origin.commit.as_deref(), Some("c0ffee"));
    assert_eq!(facts.origin.branch.as_deref(), Some("main"));
    assert_eq!(facts.origin.user.as_deref(), Some("ann"));
    assert_eq!(facts.started, Some(Time(1000)));
    assert_eq!(facts.took(), Some(std::time::Duration::from_secs(4)));
    assert_eq!(facts.exit_code, Some((1, "BUILD_FAILURE".into())));
    assert_eq!(facts.first_failure.as_deref(), Some("//a:bad"));
    let outcomes: Vec<_> = facts.targets.iter().map(|(_, it)| it.outcome).collect();
    assert_eq!(outcomes, [TargetOutcome::Built, TargetOutcome::Failed]);
    assert_eq!((facts.events, facts.is_complete), (8, true));
}

#[test]
fn attempts_carry_commit_and_branch() {
    let mut build = build(&[
        status(&[("GIT_COMMIT", "old"), ("GIT_BRANCH", "main")]),
        result("//a:t", 1, TestStatus::Failed),
        result("//a:t", 2, TestStatus::Passed),
        result("//a:t", 3, TestStatus::NoStatus),
    ]);
    let told = build.take_attempts();
    let said: Vec<_> =
        told.iter().map(|it| (it.attempt.slot.attempt, it.attempt.outcome)).collect();
    assert_eq!(said, [(1, Outcome::Failed), (2, Outcome::Passed)]);
    assert_eq!(told[0].attempt.commit.as_deref(), Some("old"));
    assert_eq!(told[0].attempt.test.instance, "main");
    assert!(build.take_attempts().is_empty());
    // What was passed as metadata counts more.
    let metadata = [("COMMIT_SHA".to_owned(), "new".to_owned())].into();
    build.apply(&event(None, Payload::BuildMetadata(bep::BuildMetadata { metadata })));
    build.apply(&result("//a:t", 3, TestStatus::Passed));
    assert_eq!(build.take_attempts()[0].attempt.commit.as_deref(), Some("new"));
}

#[test]
fn summaries_name_flaky_tests_and_failures() {
    let summary = |label: &str, status: TestStatus| {
        let id = TestSummaryId { label: label.into(), configuration: configuration() };
        let it = bep::TestSummary {
            overall_status: status.into(),
            total_run_count: 3,
            ..Default::default()
        };
        event(Some(Id::TestSummary(id)), Payload::TestSummary(it))
    };
    let facts = build(&[
        completed("//a:t", true),
        summary("//a:t", TestStatus::Flaky),
        summary("//a:u", TestStatus::Timeout),
    ])
    .facts();
    assert_eq!(facts.targets.len(), 2);
    let totals = facts.targets[0].1.test.as_ref().unwrap();
    assert_eq!((totals.status.as_str(), totals.attempts), ("flaky", 3));
    assert_eq!(facts.first_failure.as_deref(), Some("//a:u"));
}

#[test]
fn sets_of_files_are_followed_even_in_circles() {
    let build = build(&[
        set("0", &["a"], &["1", "missing"]),
        set("1", &["b", "c"], &["0", "2"]),
        set("2", &["d"], &[]),
    ]);
    let names = |most| -> Vec<String> {
        build.files(&["0".into()], most).into_iter().map(|it| it.name).collect()
    };
    assert_eq!(names(10), ["a", "b", "c", "d"]);
    assert_eq!(names(2), ["a", "b"]);
    assert_eq!(names(0), Vec::<String>::new());
}

#[test]
fn the_end_of_what_was_printed_is_kept() {
    let limits = Limits { progress: 10, ..Limits::default() };
    let build = build_within(limits, &[progress("0123456789abc"), progress("def")]);
    let facts = build.facts();
    assert_eq!((facts.progress.as_str(), facts.progress_bytes), ("6789abcdef", 16));
}

#[test]
fn what_is_too_much_is_counted() {
    let limits =
        Limits { targets: 1, files: 1, attempts: 1, items: 1, text: 4, ..Limits::default() };
    let mut build = build_within(
        limits,
        &[
            completed("//a:a", true),
            completed("//a:b", true),
            set("0", &["a", "b"], &[]),
            set("1", &["c"], &[]),
            result("//a:t", 1, TestStatus::Passed),
            result("//a:t", 2, TestStatus::Passed),
            status(&[("USER", "abcdef"), ("HOST", "h")]),
        ],
    );
    assert_eq!(build.take_attempts().len(), 1);
    let facts = build.facts();
    assert_eq!(facts.targets.len(), 1);
    assert_eq!(facts.origin.user.as_deref(), Some("abcd"));
    let left = facts.left_out;
    assert_eq!((left.targets, left.files, left.attempts, left.texts), (1, 2, 1, 2));
}

#[test]
fn bytes_are_bounded_whatever_the_events_and_the_end_is_known_all_the_same() {
    let limits = Limits { bytes: 100, ..Limits::default() };
    let long = "l".repeat(60);
    let mut build = build_within(
        limits,
        &[completed(&long, true), completed(&format!("{long}2"), true), progress("printed")],
    );
    assert_eq!((build.facts().targets.len(), build.facts().left_out.events), (1, 1));
    assert!(build.kept_bytes() <= 100 && build.facts().progress == "printed");
    build.keep_no_more();
    build.apply(&completed("s", false));
    build.apply(&KeptEvent::Finished);
    let facts = build.facts();
    assert_eq!((facts.targets.len(), facts.left_out.events, facts.is_complete), (1, 2, true));
}

#[test]
fn what_was_asked_not_to_be_built_is_no_failure() {
    use bep::aborted::AbortReason;
    let aborted = |label: &str, reason: AbortReason| {
        let id = TargetCompletedId { label: label.into(), ..Default::default() };
        let it = bep::Aborted { reason: reason.into(), description: "why".into() };
        event(Some(Id::TargetCompleted(id)), Payload::Aborted(it))
    };
    let facts = build(&[
        aborted("//a:skipped", AbortReason::Skipped),
        aborted("//a:broken", AbortReason::AnalysisFailure),
    ])
    .facts();
    let outcomes: Vec<_> = facts.targets.iter().map(|(_, it)| it.outcome).collect();
    assert_eq!(outcomes, [TargetOutcome::Skipped, TargetOutcome::Aborted]);
    assert_eq!(facts.first_failure.as_deref(), Some("//a:broken"));
}
