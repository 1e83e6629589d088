//! What a tool is asked, sees, and leaves.

use kiln_protos::hermeticity;
use kiln_protos::worker::scheduler_message;
use prost::Message;

use crate::common::{FUNCTION, Node, get};
use crate::harness::{Asked, Done, Fixture, TOOL, ask};
use crate::scheduler::lease;

#[tokio::test(flavor = "multi_thread")]
async fn one_process_does_all_requests_of_a_kind_each_with_its_own_inputs() {
    type Spoken = fn(Asked) -> Asked;
    for spoken in [(|asked| asked) as Spoken, Asked::proto] {
        let mut worker = Fixture::new().await;
        let first = ask(&["copy in/a out/o", "has in/b", "scribble in/c", "inputs"]);
        let first = worker.done(&spoken(first.input("a", "one").input("b", "b"))).await;
        let output = first.0.output_files[0].digest.as_ref().unwrap();
        assert_eq!(get(&worker.store, output).await, "one");
        let (token, count) = first.by();
        assert_eq!(count, 1);
        let said = first.stderr();
        assert!(said.contains("in/b True"), "{said}");
        for (path, content) in [("in/a", "one"), ("in/b", "b"), ("bin/tool", TOOL)] {
            let line = format!("{path} {}", FUNCTION.digest(content.as_bytes()).hex());
            assert!(said.contains(&line), "{said} lacks {line}");
        }

        // The same path with other content, one file less, and nothing of what was scribbled.
        let second = ask(&["copy in/a out/o", "has in/b", "has in/c", "has out/other"]);
        let mut second = spoken(second.input("a", "two"));
        second.outputs = vec!["out/o".into(), "new/place/p".into()];
        second.flags.push_str("copy in/a new/place/p\n");
        let second = worker.done(&second).await;
        assert_eq!(second.by(), (token.clone(), 2));
        assert!(second.stderr().contains("in/b False\nin/c False\nout/other False"));
        for output in &second.0.output_files {
            assert_eq!(get(&worker.store, output.digest.as_ref().unwrap()).await, "two");
        }

        let third = worker.done(&spoken(ask(&["has out/o", "has new"]))).await;
        assert_eq!(third.by(), (token, 3));
        assert!(third.stderr().contains("out/o False\nnew False"), "{}", third.stderr());
        let figures = worker.figures();
        assert_eq!((figures.started, figures.requests, figures.reused), (1, 3, 2));
        assert_eq!(figures.unfit.iter().map(|(_, count)| count).sum::<u64>(), 0);
        let stats = worker.stop().await;
        assert_eq!(stats.figures().running, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_and_missing_outputs_are_those_of_the_action() {
    let mut worker = Fixture::new().await;
    let response = worker.run(&ask(&["fail 3"])).await;
    let result = response.result.unwrap();
    assert_eq!((response.status.unwrap().code, result.exit_code), (0, 3));
    assert!(result.stdout_raw.is_empty() && !result.stderr_raw.is_empty());
    let metadata = result.execution_metadata.unwrap();
    assert!(metadata.execution_completed_timestamp.unwrap().seconds > 0);
    assert_eq!(metadata.worker, "worker-1");
    assert_eq!(worker.done(&ask(&[])).await.by().1, 2, "a failure is an answer");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_tool_is_made_of_makes_another_tool() {
    let mut worker = Fixture::with(1, |config| config.persistent.tools = 9).await;
    let usual = ask(&[]);
    let (token, _) = worker.done(&usual).await.by();
    let mut others: [Asked; 7] = std::array::from_fn(|_| usual.clone());
    others[0].variable = "other".into();
    others[1].key = Some("other".into());
    others[2].tool = Node::Tool(format!("{TOOL}\n# another").into_bytes());
    others[3].arguments.insert(1, "--fast".into());
    others[4] = others[4].clone().proto();
    // Nobody marks a symlink as the tool's, which may be reached through it.
    for (other, target) in others[5..].iter_mut().zip(["../bin/tool", "../bin/other"]) {
        other.inputs.push(("link".into(), Node::Symlink(target.into())));
    }
    let mut tokens = vec![token.clone()];
    for other in &others {
        let (token, count) = worker.done(other).await.by();
        assert!(!tokens.contains(&token), "of an equal tool");
        assert_eq!(count, 1);
        tokens.push(token);
    }
    // A change of what is no part of the tool starts no other tool.
    let mut same = usual.input("other", "input");
    same.outputs = vec!["elsewhere/x".into()];
    same.flags = "copy in/other elsewhere/x\n".into();
    assert_eq!(worker.done(&same).await.by(), (token, 2));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_tool_can_do_runs_by_itself_and_says_why() {
    let mut worker = Fixture::new().await;
    let usual = ask(&["has in/README"]);
    type Change = fn(&mut Asked);
    let cases: [(&str, Change); 8] = [
        ("outputs", |asked| asked.outputs = vec!["top".into()]),
        ("protocol", |asked| asked.protocol = Some("xml".into())),
        ("no_flag_file", |asked| asked.arguments = vec!["bin/tool".into()]),
        ("no_tool_inputs", |asked| {
            let Node::Tool(data) = &asked.tool else { return };
            asked.tool = Node::File { data: data.clone(), executable: true };
        }),
        ("tool_inputs", |asked| asked.tool_inputs = Some("bin, in/absent".into())),
        ("flag_files", |asked| asked.flags = "@in/absent\n".into()),
        ("working_directory", |asked| {
            asked.working_directory = "in".into();
            asked.arguments = ["../bin/tool", "@../args/flags"].map(str::to_owned).to_vec();
        }),
        ("too_many_entries", |asked| {
            asked.outputs = (0..600).map(|number| format!("d{number}/o")).collect();
        }),
    ];
    for (reason, change) in cases {
        let mut asked = usual.clone();
        change(&mut asked);
        assert_eq!(worker.done(&asked).await.by().1, 0, "{reason}");
        assert_eq!(worker.unfit(reason), 1, "{reason}");
    }
    let mut without = usual.clone();
    without.key = None;
    assert_eq!(worker.done(&without).await.by().1, 0);
    assert_eq!(worker.figures().unfit.iter().map(|(_, count)| count).sum::<u64>(), 8);
    assert_eq!(worker.figures().started, 0);

    let mut checked = lease("checked", usual.put(&worker.store).await);
    let changed = vec![hermeticity::Condition::HostName.into()];
    checked.conditions = Some(hermeticity::Conditions { changed }.encode_to_vec().into());
    worker.scheduler.send(scheduler_message::Kind::Lease(checked)).await;
    let result = worker.scheduler.completed().await.1.unwrap().result.unwrap();
    assert_eq!((result.exit_code, Done(result).by().1), (0, 0));
    assert_eq!(worker.unfit("hermeticity"), 1);
    worker.stop().await;

    let mut off = Fixture::with(1, |config| config.persistent.tools = 0).await;
    assert_eq!(off.done(&usual).await.by().1, 0);
    off.stop().await;
}
