//! Builds that told of themselves.

use std::sync::Arc;

use bytes::Bytes;
use kiln_cas::{Digest, DigestFunction};
use kiln_ci::events::{Build, KeptEvent, Limits, StreamKey, Summary};
use kiln_ci::model::Time;
use kiln_protos::bep::build_event::Payload;
use kiln_protos::bep::build_event_id::{
    ActionCompletedId, ConfigurationId, Id, NamedSetOfFilesId, PatternExpandedId, ProgressId,
    TargetCompletedId, TestResultId, TestSummaryId,
};
use kiln_protos::bep::{self, TestStatus};

use crate::WebState;
use crate::format::now;

fn event(id: Option<Id>, payload: Payload) -> KeptEvent {
    let id = Some(bep::BuildEventId { id });
    KeptEvent::Bazel(Box::new(bep::BuildEvent { id, payload: Some(payload), ..Default::default() }))
}

fn configuration() -> Option<ConfigurationId> {
    Some(ConfigurationId { id: "cfg".into() })
}

/// A file in the store.
async fn file(state: &WebState, name: &str, content: &str) -> bep::File {
    let content = Bytes::from(content.to_owned());
    let digest: Digest = DigestFunction::Sha256.digest(&content);
    state.blobs.write(&digest, content).await.expect("the store has room");
    let uri = format!("bytestream://kiln.example/blobs/{}/{}", digest.hex(), digest.size);
    bep::File { name: name.into(), file: Some(bep::file::File::Uri(uri)), ..Default::default() }
}

fn millis() -> i64 {
    now() / 1_000_000
}

fn started(command: &str) -> KeptEvent {
    let it = bep::BuildStarted {
        command: command.into(),
        build_tool_version: "8.4.2".into(),
        start_time_millis: millis() - 42_000,
        workspace_directory: "/home/ada/kiln".into(),
        ..Default::default()
    };
    event(None, Payload::Started(it))
}

fn command_line(arguments: &[&str]) -> KeptEvent {
    let args = arguments.iter().map(|it| (*it).to_owned()).collect();
    event(None, Payload::UnstructuredCommandLine(bep::UnstructuredCommandLine { args }))
}

fn metadata(pairs: &[(&str, &str)]) -> KeptEvent {
    let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    event(None, Payload::BuildMetadata(bep::BuildMetadata { metadata: pairs.collect() }))
}

fn options(effective: &[&str]) -> KeptEvent {
    let cmd_line = effective.iter().map(|it| (*it).to_owned()).collect();
    let it = bep::OptionsParsed { cmd_line, ..Default::default() };
    event(None, Payload::OptionsParsed(it))
}

fn pattern(text: &str) -> KeptEvent {
    let id = PatternExpandedId { pattern: vec![text.into()] };
    event(Some(Id::Pattern(id)), Payload::Expanded(bep::PatternExpanded::default()))
}

fn completed(label: &str, success: bool, set: &str) -> KeptEvent {
    let id = TargetCompletedId {
        label: label.into(),
        configuration: configuration(),
        ..Default::default()
    };
    let group = bep::OutputGroup {
        name: "default".into(),
        file_sets: vec![NamedSetOfFilesId { id: set.into() }],
        incomplete: false,
    };
    let it = bep::TargetComplete { success, output_group: vec![group], ..Default::default() };
    event(Some(Id::TargetCompleted(id)), Payload::Completed(it))
}

fn result(label: &str, attempt: i32, status: TestStatus, files: Vec<bep::File>) -> KeptEvent {
    let configuration = configuration();
    let id = TestResultId { label: label.into(), run: 1, shard: 1, attempt, configuration };
    let it = bep::TestResult {
        status: status.into(),
        test_action_output: files,
        test_attempt_duration_millis: 1200,
        ..Default::default()
    };
    event(Some(Id::TestResult(id)), Payload::TestResult(it))
}

fn summary(label: &str, status: TestStatus, attempts: i32) -> KeptEvent {
    let id = TestSummaryId { label: label.into(), configuration: configuration() };
    let it = bep::TestSummary {
        overall_status: status.into(),
        total_run_count: attempts,
        run_count: 1,
        total_run_duration_millis: 2400,
        ..Default::default()
    };
    event(Some(Id::TestSummary(id)), Payload::TestSummary(it))
}

fn finished() -> KeptEvent {
    let exit_code = bep::build_finished::ExitCode { name: "TESTS_FAILED".into(), code: 3 };
    let finish_time_millis = millis() - 1000;
    let exit_code = Some(exit_code);
    let it = bep::BuildFinished { exit_code, finish_time_millis, ..Default::default() };
    event(None, Payload::Finished(it))
}

/// Appends events as the service does, and notes the build.
/// `ago`: milliseconds since they came.
pub async fn tell(state: &WebState, invocation: &str, ago: i64, entries: &[KeptEvent]) {
    let stream = StreamKey {
        build: format!("of {invocation}"),
        invocation: invocation.into(),
        component: 3,
        ..StreamKey::default()
    };
    let streams: &Arc<_> = &state.tests.streams;
    let (durable, _) = streams.durable(&stream).await.expect("it is in memory");
    let now = Time(u64::try_from(millis() - ago).unwrap_or(0));
    streams.append(&stream, now, durable + 1, entries).await.expect("it is in memory");
    let mut build = Build::new("", invocation, Limits::default());
    streams.replay(&stream, 0, |_, entry| build.apply(&entry)).await.expect("it is in memory");
    if let Some(summary) = Summary::of(&stream, build.known()) {
        streams.note(now, &summary).await.expect("it is in memory");
    }
}

/// A build that goes on.
pub async fn begun(state: &WebState, invocation: &str) {
    let printed = bep::Progress {
        stderr: b"\x1b[32mAnalyzing:\x1b[0m target //app:all <b>\n".to_vec().into(),
        ..Default::default()
    };
    let entries = [
        started("build"),
        command_line(&["build", "--config=ci", "//app/..."]),
        metadata(&[("USER", "grace"), ("BRANCH_NAME", "feature/quic")]),
        pattern("//app/..."),
        event(Some(Id::Progress(ProgressId::default())), Payload::Progress(printed)),
    ];
    tell(state, invocation, 0, &entries).await;
}

/// A build of another commit in which the test passed that fails in [`failed`].
pub async fn passed(state: &WebState, invocation: &str) {
    let exit_code = Some(bep::build_finished::ExitCode { name: "SUCCESS".into(), code: 0 });
    let finish_time_millis = millis() - 30_000;
    let ended = bep::BuildFinished { exit_code, finish_time_millis, ..Default::default() };
    let entries = [
        started("test"),
        options(&["--jobs=8", "--copt=-O2"]),
        metadata(&[("USER", "ada"), ("BRANCH_NAME", "main"), ("COMMIT_SHA", "0ddba11")]),
        pattern("//app/..."),
        completed("//app/parser:parser_test", true, "0"),
        summary("//app/parser:parser_test", TestStatus::Passed, 1),
        event(None, Payload::Finished(ended)),
        KeptEvent::Finished,
    ];
    tell(state, invocation, 120_000, &entries).await;
}

/// A build with an action and a test that failed.
pub async fn failed(state: &WebState, invocation: &str) {
    let log = "line one\n\x1b[31mFAILED\x1b[0m: expected <200>, got <503>\n";
    let (log, xml) = (file(state, "test.log", log).await, file(state, "test.xml", "<a/>").await);
    let undeclared = file(state, "test.outputs__outputs.zip", "zip").await;
    let said = "app/parser.cc:7: \x1b[1;31merror:\x1b[0m use of undeclared identifier\n";
    let stderr = file(state, "stderr", said).await;
    let made = file(state, "app/libparser.a", "made").await;
    let action = bep::ActionExecuted {
        r#type: "CppCompile".into(),
        exit_code: 1,
        stderr: Some(stderr),
        ..Default::default()
    };
    let action_id = ActionCompletedId {
        label: "//app/parser:broken".into(),
        configuration: configuration(),
        ..Default::default()
    };
    let set = bep::NamedSetOfFiles { files: vec![made], ..Default::default() };
    let profile = file(state, "command.profile.gz", "profile").await;
    let entries = [
        started("test"),
        options(&["--jobs=8", "--copt=<-O3>", "--keep_going"]),
        command_line(&["test", "--test_env=API_TOKEN=<redacted>", "--config=it's", "//app/..."]),
        metadata(&[("USER", "ada"), ("BRANCH_NAME", "main"), ("COMMIT_SHA", "c0ffee5ca1ab1e")]),
        pattern("//app/..."),
        event(
            Some(Id::Configuration(ConfigurationId { id: "cfg".into() })),
            Payload::Configuration(bep::Configuration {
                mnemonic: "k8-fastbuild".into(),
                ..Default::default()
            }),
        ),
        event(
            Some(Id::NamedSet(NamedSetOfFilesId { id: "0".into() })),
            Payload::NamedSetOfFiles(set),
        ),
        event(Some(Id::ActionCompleted(action_id)), Payload::Action(action)),
        completed("//app/parser:parser", true, "0"),
        completed("//app/parser:broken", false, "1"),
        completed("//app/parser:parser_test", true, "1"),
        completed("//app/parser:flaky_test", true, "1"),
        result("//app/parser:parser_test", 1, TestStatus::Failed, vec![log.clone(), xml.clone()]),
        result("//app/parser:flaky_test", 1, TestStatus::Failed, vec![log.clone(), xml.clone()]),
        result("//app/parser:flaky_test", 2, TestStatus::Passed, vec![log, xml, undeclared]),
        summary("//app/parser:parser_test", TestStatus::Failed, 1),
        summary("//app/parser:flaky_test", TestStatus::Flaky, 2),
        event(
            Some(Id::Progress(ProgressId::default())),
            Payload::Progress(bep::Progress {
                stderr: b"\x1b[31mFAIL:\x1b[0m //app/parser:parser_test <script>\n".to_vec().into(),
                ..Default::default()
            }),
        ),
        event(None, Payload::BuildToolLogs(bep::BuildToolLogs { log: vec![profile] })),
        finished(),
        KeptEvent::Finished,
    ];
    tell(state, invocation, 60_000, &entries).await;
}
