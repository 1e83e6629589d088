//! Tools that stay for further requests: what they see, and that nothing of them stays behind.

mod fixture;

use std::time::Duration;

use bytes::Bytes;
use kiln_executor::sandbox::{Ending, SlotConfig, Tool, ToolEvent, Withdrawal};

use self::fixture::{Fixture, parent, poll_until, processes, processes_of, spec, tree};
use crate::{both, harness};

both! {
    async fn each_request_sees_its_inputs_and_no_others(tool: &mut Fixture) {
        let pid = tool.ask("echo $$; cat /tmp/pid").await;
        assert_eq!(tool.ask("ls; cat lib/tool src/a top").await, "lib\nout\nsrc\ntop\n1oldt");
        assert_eq!(tool.ask("echo one > out/x; echo undeclared > src/y; cat src/y").await, "undeclared\n");
        assert_eq!(tool.tool.withdraw().await.unwrap(), Withdrawal::default());
        assert_eq!(tool.output("out/x").unwrap(), "one\n");
        assert_eq!(tool.ask("ls; cat src/a").await, "cat: src/a: No such file or directory\n");

        tool.present("second", &[("lib/tool", "1"), ("src/a", "new"), ("more/b", "b")], &["out"]).await;
        assert_eq!(tool.ask("ls . out src; cat lib/tool src/a more/b").await,
            ".:\nlib\nmore\nout\nsrc\n\nout:\n\nsrc:\na\n1newb");
        assert_eq!(tool.ask("echo two > out/x; rm src/a").await, "");
        assert_eq!(tool.tool.withdraw().await.unwrap(), Withdrawal::default());
        assert_eq!(tool.output("out/x").unwrap(), "two\n");
        assert_eq!(tool.output("src/a"), None);

        tool.present("third", &[("src/a", "last")], &["out"]).await;
        assert_eq!(tool.ask("ls . src; cat src/a").await, ".:\nout\nsrc\n\nsrc:\na\nlast");
        assert_eq!(tool.ask("echo $$; cat /tmp/pid").await, pid, "it is the same process");
    }

    async fn a_new_presentation_takes_the_old_one_away(tool: &mut Fixture) {
        // The earlier request was never withdrawn, as after an error of the worker.
        assert_eq!(tool.ask("cat src/a").await, "old");
        tool.present("second", &[("src/a", "new")], &[]).await;
        assert_eq!(tool.ask("ls; cat src/a").await, "src\nnew");
    }

    async fn links_among_the_uppermost_entries_are_links(tool: &mut Fixture) {
        assert_eq!(tool.ask("cat src/a").await, "old");
        let lower = tree(&tool.dir, "links", &[("real/file", "behind")]);
        std::os::unix::fs::symlink("real", lower.join("link")).unwrap();
        std::os::unix::fs::symlink("/etc/gone", lower.join("dangling")).unwrap();
        tool.root = tool.tool.present(&spec(lower, &[])).await.unwrap();
        assert_eq!(tool.ask("cat link/file; readlink dangling").await, "behind/etc/gone\n");
        tool.present("plain", &[("link", "a file now")], &[]).await;
        assert_eq!(tool.ask("ls; cat link").await, "link\na file now");
    }

    async fn the_frame_and_its_surroundings_are_not_the_tools_own(tool: &mut Fixture) {
        for forbidden in ["touch new", "mkdir new", "rm -rf top; test ! -e top", "rmdir src",
            "mv src elsewhere", "chmod 0777 .", "touch /kiln/x", "umount /kiln/root/src",
            "echo x > top/../top2"]
        {
            let said = tool.ask(&format!("({forbidden}) >/dev/null 2>&1 && echo done")).await;
            assert_eq!(said, "", "{forbidden}");
        }
        assert_eq!(tool.ask("ip link 2>/dev/null | grep -c eth; ls /kiln/root | wc -l").await, "0\n4\n");
    }

    async fn what_is_open_stays_open_when_no_path_leads_there(tool: &mut Fixture) {
        assert_eq!(tool.ask("exec 7< src/a; cd src").await, "");
        assert_eq!(tool.tool.withdraw().await.unwrap(), Withdrawal::default());
        tool.present("second", &[("src/a", "new")], &[]).await;
        assert_eq!(tool.ask("cat <&7; cd /kiln/root; cat src/a").await, "oldnew");
    }

    async fn what_a_tool_does_after_its_answer_reaches_no_output(tool: &mut Fixture) {
        let line = "echo done > out/x; (until test -e /tmp/go; do sleep 0.01; done; \
            echo late > out/x; echo late > src/a; touch /tmp/gone) >/dev/null 2>&1 &";
        assert_eq!(tool.ask(line).await, "");
        tool.tool.withdraw().await.unwrap();
        tool.ask("touch /tmp/go; until test -e /tmp/gone; do sleep 0.01; done").await;
        assert_eq!(tool.output("out/x").unwrap(), "done\n");
        assert_eq!(tool.output("src/a").unwrap(), "old");
    }

    async fn who_keeps_a_file_open_for_writing_is_found_out(tool: &mut Fixture) {
        for (round, opened) in ["exec 7> out/x", "exec 7>> src/b", "exec 7<> out/y"].iter().enumerate() {
            assert_eq!(tool.ask(opened).await, "");
            assert!(tool.tool.withdraw().await.unwrap().still_writing, "{opened}");
            assert_eq!(tool.ask("echo late >&7; exec 7>&-").await, "");
            let files = [("src/a", "new"), ("top", "t")];
            tool.present(&format!("round{round}"), &files, &["out"]).await;
            // A tool that opens files only for reading does not count as still writing.
            assert_eq!(tool.ask("exec 8< top 9< out; sleep 0 7> out/x").await, "");
            assert_eq!(tool.tool.withdraw().await.unwrap(), Withdrawal::default());
            tool.present(&format!("again{round}"), &files, &["out"]).await;
        }
    }

    async fn what_is_kept_of_a_request_cannot_be_written_after_the_answer(tool: &mut Fixture) {
        assert_eq!(tool.ask("echo x > out/x; exec 7< out 8< out/x; cd out").await, "");
        assert_eq!(tool.tool.withdraw().await.unwrap(), Withdrawal::default());
        for late in ["echo late > x", "echo late > new", "rm x", "mv x y", "chmod 0 x", "mkdir new",
            "ln -s x new", "truncate -s 9 /proc/self/fd/8", "echo late > /proc/self/fd/7/x"]
        {
            let said = tool.ask(&format!("({late}) >/dev/null 2>&1 && echo done")).await;
            assert_eq!(said, "", "{late}");
        }
        assert_eq!(tool.output("out/x").unwrap(), "x\n");
        assert_eq!(tool.output("out/new"), None);
        tool.present("second", &[("src/a", "new")], &["out"]).await;
        assert_eq!(tool.ask("(echo late > new) 2>/dev/null; cd /kiln/root; ls out").await, "");
    }

    async fn a_request_that_fills_the_disk_is_said_to_have(tool: &mut Fixture) {
        assert!(tool.ask("head -c 9000000 /dev/zero > out/x").await.contains("No space left"));
        let over_limit = tool.tool.withdraw().await.unwrap().over_limit.unwrap();
        assert!(over_limit.starts_with("disk: "), "{over_limit}");
        tool.present("second", &[("src/a", "new")], &["out"]).await;
        assert_eq!(tool.ask("head -c 3000000 /dev/zero > out/x").await, "");
        assert_eq!(tool.tool.withdraw().await.unwrap(), Withdrawal::default());
    }

    async fn its_end_is_told_with_what_it_said_last(tool: &mut Fixture) {
        let mut input = Bytes::from_static(b"echo farewell; echo why >&2; exec 2>&1; exit 3\n");
        let mut said = String::new();
        let ending = loop {
            match tool.tool.step(&mut input).await.unwrap() {
                ToolEvent::Stdout(bytes) | ToolEvent::Stderr(bytes) => {
                    said.push_str(&String::from_utf8_lossy(&bytes));
                }
                ToolEvent::Ended(ending) => break ending,
            }
        };
        assert_eq!((ending, said.as_str()), (Ending::Exited(3), "farewell\nwhy\n"));
        assert!(!tool.tool.is_alive());
        assert!(tool.tool.present(&spec(tool.dir.path().join("first"), &[])).await.is_err());
    }

    async fn a_tool_that_cannot_be_spoken_to_counts_as_ended(tool: &mut Fixture) {
        let mut input = Bytes::from_static(b"exec 1>&- 2>&-; sleep 60\n");
        let begin = std::time::Instant::now();
        let error = tool.tool.step(&mut input).await.unwrap_err();
        assert!(error.to_string().contains("closed its stdin or stdout"), "{error}");
        assert!(!tool.tool.is_alive());

        let (mut other, _root) = tool.another("exec 0<&-; echo said; sleep 60").await;
        let mut input = Bytes::from(vec![b'x'; 1 << 20]);
        let said = other.step(&mut input).await.unwrap();
        assert_eq!(said, ToolEvent::Stdout(Bytes::from_static(b"said\n")));
        let error = other.step(&mut input).await.unwrap_err();
        assert!(error.to_string().contains("closed its stdin or stdout"), "{error}");
        assert!(begin.elapsed() < Duration::from_secs(30));
        other.stop().await.unwrap();
    }

    async fn what_it_prints_without_end_leaves_others_their_turn(tool: &mut Fixture) {
        let mut input = Bytes::from_static(b"cat /dev/zero\n");
        let (mut at_once, mut longest) = (0, 0);
        for _ in 0..400 {
            let mut step = std::pin::pin!(tool.tool.step(&mut input));
            let step = std::future::poll_fn(|context| {
                let polled = step.as_mut().poll(context);
                at_once = if polled.is_ready() { at_once + 1 } else { 0 };
                longest = longest.max(at_once);
                polled
            });
            assert!(matches!(step.await.unwrap(), ToolEvent::Stdout(_)));
            // This is long enough for the tool to write more.
            hold_the_thread(Duration::from_millis(1));
        }
        assert!(longest < 200, "{longest} times in a row nobody else was looked at");
    }

    async fn nothing_is_kept_open_for_a_tool(tool: &mut Fixture) {
        let mark = format!("kept-open-{}", std::process::id());
        let line = format!("exec -a {mark} sleep 60 >/dev/null 2>&1 0<&1 &");
        assert_eq!(tool.ask(&line).await, "");
        let sleeping = poll_until(|| processes_of(&mark)).await;
        let descriptors = format!("/proc/{}/fd", parent(parent(sleeping)));
        if std::fs::read_dir(&descriptors).is_err() {
            eprintln!("SKIPPED: this process may not look at others' descriptors");
            return;
        }
        let names = || {
            let entries = std::fs::read_dir(&descriptors).unwrap().flatten();
            let links = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
            links.map(|link| link.display().to_string()).collect::<Vec<_>>()
        };
        // Besides the pipe for the tool's outcome, this process keeps only the zygote's own stderr open. It
        // takes a moment to close the rest.
        poll_until(|| {
            let names = names();
            let kept = || names.iter().filter(|name| !name.starts_with("/dev/null"));
            (kept().count() <= 2 && kept().any(|name| name.contains("outcome"))).then_some(())
        })
        .await;
    }

    async fn a_tool_of_nothing_ends_with_the_reason(tool: &mut Fixture) {
        let mut absent = spec(tool.dir.path().join("first"), &[]);
        absent.arguments = vec![b"lib/absent".to_vec()];
        let config = harness::config(tool.dir.path());
        let config = SlotConfig { scratch_dir: tool.dir.path().join("other"), ..config };
        let (mut other, _root) = Tool::start(config, &absent).await.unwrap();
        let mut input = Bytes::from_static(b"x");
        let said = other.step(&mut input).await.unwrap();
        let ToolEvent::Stderr(text) = said else { panic!("{said:?}") };
        assert!(String::from_utf8_lossy(&text).contains("cannot run lib/absent"));
        assert_eq!(other.step(&mut input).await.unwrap(), ToolEvent::Ended(Ending::Exited(127)));
        other.stop().await.unwrap();
    }
}

#[allow(clippy::disallowed_methods, reason = "nothing else is to run meanwhile")]
fn hold_the_thread(time: Duration) {
    std::thread::sleep(time);
}

#[test]
fn nothing_is_left_of_a_tool_that_is_stopped_or_dropped() {
    harness::block_on(async {
        for (seconds, drops) in [("987651", false), ("987652", true)] {
            let mut fixture = Fixture::new().await;
            let line = format!("(setsid sleep {seconds} &) ; trap '' TERM");
            assert_eq!(fixture.ask(&line).await, "");
            while processes(seconds) == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            if drops {
                drop(fixture);
            } else {
                fixture.stop().await;
                assert_eq!(processes(seconds), 0, "it is gone when the stop returns");
            }
            for _ in 0..100 {
                if processes(seconds) == 0 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert_eq!(processes(seconds), 0);
        }
    });
}

#[test]
fn writes_to_a_disk_are_thrown_away_too() {
    harness::block_on(async {
        let upper = kiln_executor::sandbox::UpperDir::Disk;
        let mut tool = Fixture::with(|config| config.upper = upper).await;
        for round in 0..4 {
            assert_eq!(
                tool.ask("ls out src; echo x > src/y; echo z > out/z").await,
                "out:\n\nsrc:\na\n"
            );
            tool.tool.withdraw().await.unwrap();
            assert_eq!(tool.output("out/z").unwrap(), "z\n");
            // Nothing waits on the disk for the next request.
            tool.tool.release().unwrap();
            let scratch = tool.dir.path().join("scratch");
            while ["0", "1"].iter().any(|place| scratch.join(place).exists()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            tool.present(&format!("round{round}"), &[("src/a", "a")], &["out"]).await;
        }
        tool.stop().await;
    });
}
