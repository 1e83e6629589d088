//! Tools that do not do what they should.

use std::time::Duration;

use crate::common::{Node, get};
use crate::harness::{Fixture, TOOL, ask, processes};

/// Why an action failed whose tool gave no answer: it is the action's outcome.
fn failed(response: &kiln_protos::reapi::ExecuteResponse) -> String {
    assert_eq!(response.status.as_ref().unwrap().code, 0);
    assert_eq!(response.result.as_ref().unwrap().exit_code, 1);
    response.message.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_whose_tool_dies_runs_by_itself_and_the_next_has_a_new_tool() {
    let mut worker = Fixture::new().await;
    let first = worker.done(&ask(&[])).await.by();
    let dies = worker.done(&ask(&["crash-if-it-stays", "has in/README"])).await;
    assert_eq!(dies.by().1, 0);
    assert_eq!((worker.ended("died"), worker.unfit("died")), (1, 1));
    let next = worker.done(&ask(&[])).await.by();
    assert_ne!(next.0, first.0);
    assert_eq!(next.1, 1);

    // An action that crashes with a tool and without one has failed by itself, and is not tried again.
    let result = worker.run(&ask(&["crash"])).await.result.unwrap();
    assert_eq!((result.exit_code, &result.stderr_raw[..]), (9, &b"a crash\n"[..]));
    assert_eq!(worker.figures().started, 2);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_died_while_it_waited_fails_nobody() {
    let mut worker = Fixture::new().await;
    let mut asked = ask(&[]);
    asked.arguments.insert(1, "--marked-as-4711-waits".into());
    let first = worker.done(&asked).await.by();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains("--marked-as-4711-waits") {
            let pid = entry.file_name().to_string_lossy().parse().unwrap();
            let signal = nix::sys::signal::Signal::SIGKILL;
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
        }
    }
    while processes("--marked-as-4711-waits") > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let begin = std::time::Instant::now();
    let second = worker.done(&asked).await.by();
    assert!(begin.elapsed() < Duration::from_secs(20), "it was waited for");
    // By another one or, where its end had not been heard of yet, by itself.
    assert!(second.1 <= 1);
    assert_ne!(first.0, second.0);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_cannot_stay_is_not_tried_again_and_again() {
    let mut worker = Fixture::new().await;
    let mut asked = ask(&["has in/README"]);
    asked.arguments.insert(1, "--never-answers".into());
    for _ in 0..3 {
        assert_eq!(worker.done(&asked).await.by().1, 0);
    }
    assert_eq!((worker.unfit("died"), worker.unfit("unreliable")), (1, 2));
    let mut absent = ask(&[]);
    absent.arguments[0] = "bin/absent".into();
    let result = worker.run(&absent).await.result.unwrap();
    assert_eq!(result.exit_code, 127, "as it is without a tool");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn noise_on_stdout_is_shown_and_ends_the_tool() {
    let mut worker = Fixture::new().await;
    for spoken in [ask(&["print"]), ask(&["print"]).proto()] {
        let message = failed(&worker.run(&spoken).await);
        for said in ["Compiling...", "stdout"] {
            assert!(message.contains(said), "{message}");
        }
    }
    assert_eq!(worker.ended("malformed"), 2);
    assert_eq!(worker.done(&ask(&[])).await.by().1, 1);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_could_still_write_is_ended_before_its_outputs_are_read() {
    let mut worker = Fixture::new().await;
    let first = worker.done(&ask(&["hold out/o"])).await;
    let output = first.0.output_files[0].digest.as_ref().unwrap();
    assert_eq!(get(&worker.store, output).await, "early");
    assert_eq!((worker.ended("still_writing"), worker.figures().running), (1, 0));
    assert_eq!(worker.done(&ask(&["has in/README"])).await.by().1, 1);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_a_request_does_not_mix_with_the_next() {
    let mut worker = Fixture::new().await;
    let mut asked = ask(&["x"]);
    asked.outputs.clear();
    asked.arguments.insert(1, "--answers-early".into());
    asked.flags = "x".repeat(10_000);
    assert_eq!(worker.done(&asked).await.by().1, 1);
    assert_eq!((worker.ended("half_read"), worker.figures().running), (1, 0));
    // This is more than fits into a pipe, so the tool cannot have read all of it.
    asked.flags = "x".repeat(1_000_000);
    let message = failed(&worker.run(&asked).await);
    assert!(message.contains("bytes of the request were read"), "{message}");
    assert_eq!((worker.ended("malformed"), worker.figures().running), (1, 0));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_told_what_was_said_to_another_request() {
    let mut worker = Fixture::new().await;
    worker.done(&ask(&["whisper secret"])).await;
    let message = failed(&worker.run(&ask(&["whisper own", "print"])).await);
    assert!(message.contains("own") && !message.contains("secret"), "{message}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_kills_the_tool_and_is_the_actions_own() {
    let mut worker = Fixture::new().await;
    let mut asked = ask(&["copy in/README out/o", "sleep 60"]);
    asked.arguments.insert(1, "--marked-as-4711-slow".into());
    asked.timeout = Some(Duration::from_millis(1500));
    let response = worker.run(&asked).await;
    assert_eq!(response.status.unwrap().code, 4);
    let result = response.result.unwrap();
    assert_eq!((result.exit_code, result.output_files.len()), (124, 1));
    assert_eq!((worker.ended("killed"), worker.figures().running), (1, 0));
    asked.flags = String::new();
    assert_eq!(worker.done(&asked).await.by().1, 1);
    worker.stop().await;
}

/// The test runs on one thread: code that does not let go of it keeps the clock from being looked
/// at.
#[tokio::test]
async fn a_flood_of_output_holds_up_no_timeout() {
    let mut worker = Fixture::with(1, |config| config.limits.output_bytes = None).await;
    let mut asked = ask(&["flood 2 x"]);
    asked.timeout = Some(Duration::from_millis(1500));
    assert_eq!(worker.run(&asked).await.status.unwrap().code, 4);
    assert_eq!(worker.ended("killed"), 1);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_prints_too_much_is_ended() {
    let mut worker = Fixture::with(1, |config| config.limits.output_bytes = Some(1 << 20)).await;
    assert_eq!(worker.done(&ask(&["flood 2 x"])).await.by().1, 0);
    assert_eq!((worker.ended("died"), worker.unfit("died")), (1, 1));
    let mut space = ask(&["flood 1 "]);
    space.variable = "another tool".into();
    let message = failed(&worker.run(&space).await);
    assert!(message.contains("more than 1048576 bytes"), "{message}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_action_takes_its_tool_along() {
    let mut worker = Fixture::new().await;
    let mut asked = ask(&["sleep 60"]);
    asked.arguments.insert(1, "--marked-as-4711-cancelled".into());
    let action = asked.put(&worker.store).await;
    worker.scheduler.lease("slow", action).await;
    while processes("--marked-as-4711-cancelled") == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    worker.scheduler.cancel("slow").await;
    let ended = worker.scheduler.completed().await.1;
    assert_eq!(ended.unwrap_err().kind(), kiln_protos::worker::worker_failure::Kind::Cancelled);
    assert_eq!(worker.ended("killed"), 1);
    while processes("--marked-as-4711-cancelled") > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    asked.flags = String::new();
    worker.done(&asked).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_over_its_memory_is_none_to_build_on() {
    let mut worker = Fixture::with(1, |config| config.limits.memory_bytes = Some(96 << 20)).await;
    let Node::Tool(tool) = ask(&[]).tool else { panic!("a tool") };
    let hungry = String::from_utf8(tool).unwrap();
    // Each request keeps 40 MiB: by itself none is too large.
    let hungry = hungry.replace(
        "    said = [f\"token",
        "    HELD.append(b'x' * (40 << 20))\n    said = [f\"token",
    );
    let hungry = hungry.replace("count = 0\n", "count = 0\nHELD = []\n");
    assert_ne!(hungry, TOOL);
    for round in 0..4 {
        let mut asked = ask(&[]).input("round", &round.to_string());
        asked.tool = Node::Tool(hungry.clone().into_bytes());
        worker.done(&asked).await;
    }
    assert!(worker.ended("died") > 0, "{:?}", worker.figures());
    worker.stop().await;
}
