//! How an action ends, and what is said about it.

use std::time::{Duration, Instant};

use kiln_executor::sandbox::{Ending, OutputStream, SandboxError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::both;
use crate::harness::Fixture;

both! {
    async fn exit_codes_and_signals_are_told(slot: &mut Fixture) {
        let ran = slot.sh("echo out; echo err >&2; exit 7").await;
        assert_eq!((ran.ending, ran.stdout.as_str(), ran.stderr.as_str()), (Ending::Exited(7), "out\n", "err\n"));
        assert_eq!(slot.sh("kill -SEGV $$").await.ending, Ending::Signalled(libc::SIGSEGV));
        // These signals have numbers and no names. If one ends an orphan, that says nothing about the
        // action's program.
        for signal in [32, 34, 40, 64] {
            assert_eq!(slot.sh(&format!("kill -{signal} $$")).await.ending, Ending::Signalled(signal));
            let orphan = format!("(sh -c 'kill -{signal} $$' &) ; sleep 0.1; exit 3");
            assert_eq!(slot.sh(&orphan).await.ending, Ending::Exited(3));
        }
        assert_eq!(slot.sh("true").await.ending, Ending::Exited(0));
    }

    async fn a_program_that_cannot_run_is_the_actions_failure(slot: &mut Fixture) {
        slot.input("data", "not a program");
        slot.input("lost.sh", "#!/no/such/interpreter\n");
        let plain = slot.inputs().join("plain");
        std::fs::write(&plain, "x").unwrap();
        for (program, code, message) in [
            ("no-such-program", 127, "kiln: cannot run no-such-program: No such file or directory\n"),
            ("./missing", 127, "kiln: cannot run ./missing: No such file or directory\n"),
            ("./plain", 126, "kiln: cannot run ./plain: Permission denied\n"),
            ("./lost.sh", 127, "kiln: cannot run ./lost.sh: its interpreter was not found\n"),
        ] {
            let spec = slot.command(&[program]);
            let ran = slot.run(&spec).await;
            assert_eq!((ran.ending, ran.stderr.as_str()), (Ending::Exited(code), message));
        }
        let spec = slot.command(&[]);
        assert_eq!(slot.run(&spec).await.ending, Ending::Exited(127));
        let mut spec = slot.command(&["echo"]);
        spec.arguments.push(b"a\0b".to_vec());
        let ran = slot.run(&spec).await;
        assert!(ran.stderr.contains("NUL byte"), "{}", ran.stderr);
        let mut spec = slot.command(&["echo"]);
        "data/x".clone_into(&mut spec.working_directory);
        let ran = slot.run(&spec).await;
        assert_eq!(ran.ending, Ending::Exited(127));
        assert!(ran.stderr.contains("working directory \"data/x\": Not a directory"), "{}", ran.stderr);
    }

    async fn programs_are_found_as_a_shell_finds_them(slot: &mut Fixture) {
        slot.input("tools/hello", "#!/bin/sh\necho hello from $0\n");
        slot.input("tools/bare", "echo no header\n");
        let mut spec = slot.command(&["tools/hello"]);
        assert_eq!(slot.run(&spec).await.succeeded(), "hello from tools/hello");
        spec.arguments = vec![b"../tools/hello".to_vec()];
        "work".clone_into(&mut spec.working_directory);
        assert_eq!(slot.run(&spec).await.succeeded(), "hello from ../tools/hello");
        spec.arguments = vec![b"hello".to_vec()];
        spec.environment = vec![(b"PATH".to_vec(), b"/nowhere:/kiln/root/tools".to_vec())];
        assert_eq!(slot.run(&spec).await.succeeded(), "hello from /kiln/root/tools/hello");
        let spec = slot.command(&["./tools/bare"]);
        assert_eq!(slot.run(&spec).await.succeeded(), "no header");
    }

    async fn large_arguments_and_environments_pass(slot: &mut Fixture) {
        let mut spec = slot.command(&["/bin/sh", "-c", "echo ${#BIG} $#", "sh"]);
        spec.environment.push((b"BIG".to_vec(), vec![b'x'; 100_000]));
        spec.arguments.extend((0..10).map(|_| vec![b'y'; 100_000]));
        assert_eq!(slot.run(&spec).await.succeeded(), "100000 10");
        spec.arguments.push(vec![b'y'; 1 << 20]);
        let ran = slot.run(&spec).await;
        assert_eq!(ran.ending, Ending::Exited(126));
        assert_eq!(ran.stderr, "kiln: cannot run /bin/sh: Argument list too long\n");
        spec.arguments.extend((0..40).map(|_| vec![b'y'; 1 << 20]));
        let error = slot.try_run(&spec, CancellationToken::new()).await.unwrap_err();
        assert!(matches!(error, SandboxError::CommandTooLarge { .. }), "{error}");
        assert_eq!(slot.sh("echo next").await.succeeded(), "next");
    }

    async fn a_timeout_asks_first_and_keeps_the_output(slot: &mut Fixture) {
        let mut spec = slot.shell("trap 'echo bye; exit 3' TERM; echo hi; sleep 60 & wait");
        // On a busy machine a shell needs longer than one would think to set a trap.
        spec.timeout = Duration::from_secs(2);
        let ran = slot.run(&spec).await;
        assert_eq!((ran.ending, ran.stdout.as_str()), (Ending::TimedOut, "hi\nbye\n"));
    }

    async fn ignoring_the_request_to_end_does_not_help(slot: &mut Fixture) {
        let mut spec = slot.shell("trap '' TERM; echo deaf; while :; do sleep 1; done");
        spec.timeout = Duration::from_secs(2);
        let start = Instant::now();
        let ran = slot.run(&spec).await;
        assert_eq!((ran.ending, ran.stdout.as_str()), (Ending::TimedOut, "deaf\n"));
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    }

    async fn a_cancelled_action_ends_and_keeps_its_output(slot: &mut Fixture) {
        let spec = slot.shell("echo started; sleep 60");
        let cancel = CancellationToken::new();
        let (sender, mut receiver) = mpsc::channel(4);
        let (finished, first) = tokio::join!(slot.slot().run(&spec, sender, cancel.clone()), async {
            let first = receiver.recv().await;
            cancel.cancel();
            first
        });
        let (stream, chunk) = first.expect("output streams while the action runs");
        assert_eq!((stream, &chunk[..]), (OutputStream::Stdout, &b"started\n"[..]));
        assert_eq!(finished.unwrap().ending, Ending::Cancelled);
        assert_eq!(slot.sh("echo next").await.succeeded(), "next");
    }

    async fn what_is_cancelled_before_it_begins_does_not_begin(slot: &mut Fixture) {
        slot.sh("true").await.succeeded();
        let spec = slot.shell("echo began");
        let cancel = CancellationToken::new();
        cancel.cancel();
        let error = slot.try_run(&spec, cancel).await.unwrap_err();
        assert!(matches!(error, SandboxError::Cancelled), "{error}");
        assert_eq!(slot.sh("echo next").await.succeeded(), "next");
    }

    async fn a_slow_reader_makes_the_action_wait_and_loses_nothing(slot: &mut Fixture) {
        let spec = slot.shell("head -c 1000000 /dev/zero");
        let (sender, mut receiver) = mpsc::channel(1);
        let (finished, count) = tokio::join!(slot.slot().run(&spec, sender, CancellationToken::new()), async {
            let mut count = 0;
            while let Some((_, chunk)) = receiver.recv().await {
                count += chunk.len();
                tokio::task::yield_now().await;
            }
            count
        });
        assert_eq!((finished.unwrap().ending, count), (Ending::Exited(0), 1_000_000));
    }

    async fn an_unread_action_can_still_be_ended(slot: &mut Fixture) {
        let mut spec = slot.shell("head -c 1000000 /dev/zero; sleep 60");
        spec.timeout = Duration::from_millis(300);
        let (sender, mut receiver) = mpsc::channel(1);
        let run = slot.slot().run(&spec, sender, CancellationToken::new());
        tokio::pin!(run);
        // The test does not read the output until long after the timeout.
        let early = tokio::time::timeout(Duration::from_secs(1), &mut run).await;
        assert!(early.is_err(), "the output that is there has to be delivered first");
        let (finished, ()) = tokio::join!(run, async { while receiver.recv().await.is_some() {} });
        assert_eq!(finished.unwrap().ending, Ending::TimedOut);
    }

    async fn nobody_listening_does_not_stop_an_action(slot: &mut Fixture) {
        let spec = slot.shell("head -c 1000000 /dev/zero && touch done");
        let (sender, receiver) = mpsc::channel(1);
        drop(receiver);
        let finished = slot.slot().run(&spec, sender, CancellationToken::new()).await.unwrap();
        assert_eq!(finished.ending, Ending::Exited(0));
    }

    async fn usage_is_measured(slot: &mut Fixture) {
        let ran = slot.sh("x=$(head -c 50000000 /dev/zero | tr '\\0' x); (i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done)").await;
        ran.succeeded();
        let usage = ran.finished.usage;
        assert!(usage.user > Duration::from_millis(20), "{usage:?}");
        assert!(usage.peak_memory_bytes > 40 << 20, "{usage:?}");
    }
}
