//! What is executed becomes history.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use kiln_ci::attempts::{Attempt, BlobName, Known, Slot};
use kiln_ci::events::FileRef;
use kiln_ci::model::{Outcome, TestKey, Time};
use kiln_ci::services::{Admit, Charge, Clock, Reports};
use kiln_ci::storage::memory::Memory;
use kiln_ci::{CiOptions, CiParts, CiServices};
use kiln_protos::events::execution::Origin;
use kiln_protos::events::{Digest, Execution, Shard, Timeline};
use kiln_protos::reapi::command::EnvironmentVariable;
use kiln_protos::reapi::{self, ActionResult, Command, OutputFile};
use prost::Message;
use tokio::sync::broadcast;
use tonic::{Extensions, Status};

const REPORT: &str = r#"<testsuites><testsuite name="s"><testcase name="a" classname="C" time="1"/>
    <testcase name="b" classname="C" time="2"><failure message="boom"/></testcase></testsuite></testsuites>"#;

struct World;

impl Admit for World {
    fn admit(&self, _: &Extensions, project: &str) -> Result<String, Status> {
        Ok(project.to_owned())
    }

    fn name(&self, _: &Extensions) -> Option<String> {
        None
    }

    fn charge(&self, _: &Extensions) -> Box<dyn Charge> {
        Box::new(Self)
    }
}

impl Charge for World {
    fn hold(&mut self, _: u64) -> Result<(), Status> {
        Ok(())
    }
}

impl Clock for World {
    fn now(&self) -> Time {
        Time(1_000_000)
    }
}

struct Rig {
    /// Segments, whose calls may be made to fail.
    segments: Memory,
    blobs: Memory,
    executions: broadcast::Sender<Arc<Execution>>,
    services: CiServices,
}

fn rig(options: CiOptions, buffer: usize) -> Rig {
    let (segments, blobs) = (Memory::default(), Memory::default());
    let (executions, received) = broadcast::channel(buffer);
    let parts = CiParts {
        segments: Arc::new(segments.clone()),
        chunks: Arc::new(Memory::default()),
        records: Arc::new(Memory::default()),
        blobs: Arc::new(blobs.clone()),
        admit: Arc::new(World),
        clock: Arc::new(World),
        executions: received,
        tap: None,
    };
    Rig { segments, blobs, executions, services: CiServices::start(options, parts) }
}

fn digest(hash: &str) -> Digest {
    Digest { hash: hash.to_owned(), size_bytes: 10 }
}

fn test(label: &str) -> TestKey {
    TestKey { instance: "main".into(), label: label.into(), configuration: "cfg".into() }
}

impl Rig {
    /// Stores what a test was asked to run.
    fn command(&self, label: &str) -> String {
        let variable = |(name, value): (&str, &str)| EnvironmentVariable {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let variables = [("TEST_TARGET", label), ("XML_OUTPUT_FILE", "t/test.xml")];
        let command = Command {
            arguments: vec!["test-setup.sh".to_owned()],
            environment_variables: variables.map(variable).to_vec(),
            ..Command::default()
        };
        let hash = format!("command of {label}");
        self.blobs.store(&hash, command.encode_to_vec().into());
        hash
    }

    fn execution(&self, id: &str, label: &str, exit_code: i32) -> Execution {
        let report = reapi::Digest { hash: "report".into(), size_bytes: 10 };
        let report =
            OutputFile { path: "t/test.xml".into(), digest: Some(report), ..OutputFile::default() };
        let result = ActionResult { output_files: vec![report], exit_code, ..Default::default() };
        Execution {
            id: id.to_owned(),
            instance_name: "main".into(),
            origin: Origin::Executed.into(),
            action: Some(digest(id)),
            command: Some(digest(&self.command(label))),
            input_root: Some(digest("root")),
            invocation_id: "build".into(),
            target_id: label.to_owned(),
            mnemonic: "TestRunner".into(),
            configuration_id: "cfg".into(),
            tool_name: "bazel".into(),
            tool_version: "7.7.1".into(),
            worker: "w".into(),
            exit_code,
            timeline: Some(Timeline {
                leased: 1_000_000_000,
                run_start: 1_500_000_000,
                run_end: 3_500_000_000,
                ..Timeline::default()
            }),
            action_result: result.encode_to_vec().into(),
            ..Execution::default()
        }
    }

    fn publish(&self, execution: Execution) {
        self.executions.send(Arc::new(execution)).expect("somebody listens");
    }

    async fn newest(&self, label: &str) -> Vec<Attempt> {
        self.services.history.newest(&test(label), 100, true).await.unwrap()
    }
}

#[tokio::test]
async fn an_executed_test_is_an_attempt_with_its_cases() {
    let rig = rig(CiOptions::default(), 64);
    rig.blobs.store("report", REPORT.into());
    rig.publish(rig.execution("one", "//a:t", 1));
    rig.services.recorder.flush().await;
    let [attempt] = &rig.newest("//a:t").await[..] else { panic!("one attempt") };
    assert_eq!((attempt.outcome, attempt.known), (Outcome::Failed, Known::EXECUTED));
    assert_eq!((attempt.invocation.as_str(), attempt.worker.as_str()), ("build", "w"));
    let millis = |it: Option<std::time::Duration>| it.map(|it| it.as_millis());
    assert_eq!((millis(attempt.duration), millis(attempt.set_up)), (Some(2000), Some(500)));
    let outcomes: Vec<_> = attempt.cases.iter().map(|it| it.outcome).collect();
    assert_eq!(outcomes, [Outcome::Passed, Outcome::Failed]);
    assert_eq!(rig.services.recorder.figures().attempts, 1);
}

#[tokio::test]
async fn each_part_of_a_test_is_an_attempt_and_what_was_made_of_them_is_the_one_that_counts() {
    let rig = rig(CiOptions::default(), 64);
    rig.blobs.store("report", REPORT.into());
    let shard = |number| Some(Shard { number, count: 2, ..Shard::default() });
    for number in [1, 2] {
        let part = rig.execution(&format!("part {number}"), "//a:t", 0);
        rig.publish(Execution { shard: shard(number), worker: format!("w{number}"), ..part });
    }
    rig.publish(Execution { shard: shard(0), ..rig.execution("whole", "//a:t", 1) });
    // The client knows of one shard, and tells how that ended.
    let slot = Slot { run: 1, shard: 1, attempt: 1 };
    let told = Attempt {
        outcome: Outcome::Failed,
        ..Attempt::new(test("//a:t"), "build", slot, Known::REPORTED)
    };
    rig.services.recorder.flush().await;
    rig.services.history.commit(Time(1_000_000), &[told]).await.unwrap();
    let [attempt] = &rig.newest("//a:t").await[..] else { panic!("one attempt") };
    let both = Known::EXECUTED | Known::REPORTED;
    assert_eq!((attempt.outcome, attempt.known), (Outcome::Failed, both));
    assert_eq!((attempt.slot, attempt.shards, attempt.cases.len()), (slot, 1, 2));
    let all = rig.services.history.newest_with_parts(&test("//a:t"), 1).await.unwrap();
    let mut parts: Vec<_> = all.iter().filter(|it| it.is_part()).collect();
    parts.sort_by_key(|it| it.slot.shard);
    let shown = |it: &&Attempt| (it.slot.shard, it.shards, it.worker.clone(), it.cases.len());
    let shown: Vec<_> = parts.iter().map(shown).collect();
    assert_eq!(shown, [(1, 2, "w1".to_owned(), 2), (2, 2, "w2".to_owned(), 2)]);
    let days = rig.services.history.days(&test("//a:t")).await.unwrap();
    let [day] = &days.into_values().collect::<Vec<_>>()[..] else { panic!("one day") };
    assert_eq!((day.attempts(), day.failed, day.first), (1, 1, 1), "parts are in no figures");
}

#[tokio::test]
async fn what_did_not_run_or_is_no_test_is_left_out() {
    let rig = rig(CiOptions::default(), 64);
    let base = rig.execution("one", "//a:t", 0);
    rig.publish(Execution { origin: Origin::CacheHit.into(), ..base.clone() });
    rig.publish(Execution { mnemonic: "CppCompile".into(), ..base.clone() });
    rig.publish(Execution { cancelled: true, ..base.clone() });
    rig.blobs.store("no test", Command::default().encode_to_vec().into());
    let command = Some(digest("no test"));
    rig.publish(Execution { mnemonic: String::new(), command, ..base });
    rig.services.recorder.flush().await;
    assert_eq!(rig.newest("//a:t").await, []);
    let figures = rig.services.recorder.figures();
    assert_eq!((figures.attempts, figures.unreadable), (0, 0));
}

#[tokio::test]
async fn an_attempt_is_known_without_its_report() {
    let rig = rig(CiOptions::default(), 64);
    rig.publish(rig.execution("one", "//a:t", 0));
    rig.services.recorder.flush().await;
    rig.blobs.store("report", "<testsuites><testcase".into());
    rig.publish(rig.execution("two", "//b:t", 0));
    rig.services.recorder.flush().await;
    assert_eq!((rig.newest("//a:t").await.len(), rig.newest("//b:t").await.len()), (1, 1));
    let figures = rig.services.recorder.figures();
    assert_eq!(figures.attempts, 2);
    assert_eq!((figures.unreadable, figures.refused_reports), (1, 1), "{figures:?}");
}

#[tokio::test]
async fn a_clean_end_loses_nothing() {
    let rig = rig(CiOptions::default(), 4096);
    rig.blobs.store("report", REPORT.into());
    for number in 0..500 {
        rig.publish(rig.execution(&format!("{number}"), &format!("//p{}:t", number % 5), 0));
    }
    rig.services.shutdown().await;
    for package in 0..5 {
        assert_eq!(rig.newest(&format!("//p{package}:t")).await.len(), 100);
    }
    // A recorder that has ended has nothing to write, and does not keep its callers waiting.
    rig.services.recorder.flush().await;
    rig.services.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_is_written_later() {
    let rig = rig(CiOptions::default(), 64);
    rig.blobs.store("report", REPORT.into());
    rig.segments.fail_after(0, false);
    rig.publish(rig.execution("one", "//a:t", 0));
    while rig.services.recorder.figures().failed_writes < 3 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    rig.segments.recover();
    while rig.services.recorder.figures().attempts < 1 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(rig.newest("//a:t").await.len(), 1);
    assert_eq!(rig.services.recorder.figures().dropped, 0);
}

#[tokio::test(start_paused = true)]
async fn an_end_without_a_store_is_an_end() {
    let rig = rig(CiOptions::default(), 64);
    rig.blobs.store("report", REPORT.into());
    rig.segments.fail_after(0, false);
    rig.publish(rig.execution("one", "//a:t", 0));
    rig.services.shutdown().await;
    let figures = rig.services.recorder.figures();
    assert_eq!((figures.attempts, figures.dropped), (0, 1));
}

#[tokio::test]
async fn what_comes_too_fast_is_counted() {
    let rig = rig(CiOptions::default(), 4);
    rig.blobs.store("report", REPORT.into());
    // The recorder takes nothing in before this task waits, so its inbox of four fills up.
    for number in 0..10 {
        rig.publish(rig.execution(&format!("{number}"), "//a:t", 0));
    }
    rig.services.recorder.flush().await;
    let figures = rig.services.recorder.figures();
    assert_eq!((figures.attempts, figures.lost_executions), (4, 6));
}

#[tokio::test]
async fn nothing_is_taken_in_where_that_is_switched_off() {
    let rig = rig(CiOptions { records: false, ..CiOptions::default() }, 64);
    assert!(rig.executions.send(Arc::new(rig.execution("one", "//a:t", 0))).is_err());
    rig.services.recorder.flush().await;
    assert_eq!(rig.newest("//a:t").await, []);
}

#[tokio::test]
async fn cases_of_reported_attempts_come_from_their_reports() {
    let rig = rig(CiOptions::default(), 64);
    rig.blobs.store("report", REPORT.into());
    let slot = Slot { run: 1, shard: 1, attempt: 1 };
    let attempt = Attempt::new(test("//a:t"), "build", slot, Known::REPORTED);
    let report = |hash: Option<&str>| FileRef {
        name: "test.xml".into(),
        uri: String::new(),
        blob: hash.map(|hash| BlobName { hash: hash.into(), size: 10 }),
        link: None,
    };
    rig.services.recorder.offer(attempt.clone(), report(Some("report")));
    rig.services.recorder.offer(attempt.clone(), report(Some("gone")));
    // This report lies on the disk of the client that ran the test, so the server cannot read it.
    rig.services.recorder.offer(attempt, report(None));
    rig.services.recorder.flush().await;
    let [attempt] = &rig.newest("//a:t").await[..] else { panic!("one attempt") };
    assert_eq!(attempt.cases.len(), 2);
    let figures = rig.services.recorder.figures();
    assert_eq!((figures.attempts, figures.unreadable), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn what_comes_right_after_another_wakes_nobody_and_is_read_with_the_rest() {
    let rig = rig(CiOptions::default(), 64);
    rig.blobs.store("report", REPORT.into());
    let wait = |millis| tokio::time::sleep(std::time::Duration::from_millis(millis));
    rig.publish(rig.execution("first", "//a:t", 0));
    wait(1).await;
    assert_eq!(rig.blobs.calls(), 2, "its command and its report");
    for number in 0..20 {
        rig.publish(rig.execution(&format!("{number}"), "//a:t", 0));
    }
    wait(1).await;
    assert_eq!(rig.blobs.calls(), 2);
    wait(200).await;
    assert_eq!(rig.blobs.calls(), 42);
    rig.services.recorder.flush().await;
    assert_eq!(rig.newest("//a:t").await.len(), 21);
}

#[tokio::test]
async fn a_small_report_and_a_large_one_have_all_their_cases() {
    let rig = rig(CiOptions::default(), 64);
    for (number, count) in [1, 1_000].into_iter().enumerate() {
        let case = |number| format!(r#"<testcase name="case_{number}" classname="C" time="1"/>"#);
        let cases: String = (0..count).map(case).collect();
        rig.blobs.store("report", format!(r#"<testsuite name="s">{cases}</testsuite>"#).into());
        let label = format!("//{number}:t");
        rig.publish(rig.execution(&label, &label, 0));
        rig.services.recorder.flush().await;
        let [attempt] = &rig.newest(&label).await[..] else { panic!("one attempt") };
        assert_eq!(attempt.cases.len(), count);
    }
}
