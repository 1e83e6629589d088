//! Actions that misbehave, run through the whole server: the machine, the store and the other
//! actions are unharmed, and the user is told what happened.

// Older clients read the deprecated fields.
#![allow(deprecated)]

use crate::support;

use kiln_protos::reapi;
use support::reapi::{Client, Spec, output_text};
use support::server::{self, Server};

struct House {
    _data: tempfile::TempDir,
    server: Server,
    client: Client,
}

async fn house(arguments: &[&str]) -> House {
    let data = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(data.path(), arguments);
    let client = Client::connect(&server.url()).await;
    House { _data: data, server, client }
}

impl House {
    async fn run(&self, spec: &Spec) -> (reapi::ExecuteResponse, String, String) {
        let response = self.client.execute(spec).await.expect("an answer");
        let result = response.result.clone().unwrap_or_default();
        let (stdout, stderr) = output_text(&self.client, &result).await;
        (response, stdout, stderr)
    }

    /// Asserts that the server still runs ordinary actions.
    async fn expect_well(&self) {
        let (response, stdout, _) = self.run(&Spec::shell("echo well", &[])).await;
        assert_eq!(response.status.unwrap_or_default().code, 0);
        assert_eq!(stdout, "well\n");
    }
}

fn code(response: &reapi::ExecuteResponse) -> i32 {
    response.status.as_ref().map_or(0, |status| status.code)
}

fn exit(response: &reapi::ExecuteResponse) -> i32 {
    response.result.as_ref().expect("a result").exit_code
}

const DEADLINE_EXCEEDED: i32 = 4;

/// Kiln keeps the outputs of an action as long as uploads, so it counts them against the caller's quota as well.
#[tokio::test(flavor = "multi_thread")]
async fn outputs_over_a_quota_are_an_outcome_and_what_is_cached_is_served() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let mut command = server::command("127.0.0.1:0", data.path(), &["--workers", "1"]);
    command.env("KILN_QUOTAS_CALLER_BYTES", "1MiB");
    let server = Server::spawn(command, data.path());
    let client = Client::connect(&server.url()).await;
    let house = House { _data: data, server, client };
    let makes = |letter: &str| {
        let script = format!("yes {letter} | head -c 600000 > out; echo said >&2");
        Spec::shell(&script, &["out"])
    };
    let actions =
        [house.client.prepare(&makes("a")).await, house.client.prepare(&makes("b")).await];
    let run =
        async |action: &reapi::Digest| house.client.execute_action(action.clone(), false).await;
    let first = run(&actions[0]).await.expect("an answer");
    assert_eq!((exit(&first), code(&first)), (0, 0), "{}", first.message);
    let metadata = first.result.unwrap().execution_metadata.unwrap();
    let told: Vec<_> = metadata.auxiliary_metadata.iter().map(|it| it.type_url.as_str()).collect();
    assert_eq!(told, [kiln_protos::worker::SANDBOXED], "what is said to the scheduler stays there");
    let second = run(&actions[1]).await.expect("an answer");
    let result = second.result.clone().unwrap_or_default();
    assert_eq!((result.exit_code, code(&second)), (1, 0), "{second:?}");
    assert!(result.output_files.is_empty() && result.output_symlinks.is_empty(), "{result:?}");
    let reason = "the outputs are not taken: quotas.caller_bytes: 127.0.0.1 was promised 6";
    assert!(second.message.starts_with(reason), "{}", second.message);
    let (_, stderr) = output_text(&house.client, &result).await;
    assert!(stderr.starts_with(&format!("said\nkiln: {reason}")), "{stderr}");
    assert!(house.client.cached(&actions[1]).await.is_none(), "it is not cached");
    // The caller may begin no more actions, but an answer from the cache uses nothing of its quota.
    let refused = run(&actions[1]).await.expect_err("the quota is used up");
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("quotas.caller_bytes"), "{refused}");
    let hit = run(&actions[0]).await.expect("an answer");
    assert!(hit.cached_result && exit(&hit) == 0, "{hit:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_background_process_dies_with_its_action() {
    let house = house(&[]).await;
    let script = "setsid sh -c 'while :; do sleep 1; done' & echo started";
    let (response, stdout, stderr) = house.run(&Spec::shell(script, &[])).await;
    assert_eq!((exit(&response), stdout.as_str()), (0, "started\n"), "{stderr}");
    house.expect_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network_is_not_there() {
    let house = house(&[]).await;
    let address = house.server.address.replace(':', "/");
    let mut spec = Spec::shell("", &[]);
    let script = format!("exec 3<>/dev/tcp/{address}");
    spec.command.arguments = vec!["/bin/bash".into(), "-c".into(), script];
    let (response, _, stderr) = house.run(&spec).await;
    assert_ne!(exit(&response), 0, "{stderr}");
    house.expect_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_and_the_system_cannot_be_changed() {
    let house = house(&[]).await;
    let input = house.client.put(b"original").await;
    let root = reapi::Directory {
        files: vec![reapi::FileNode {
            name: "input".into(),
            digest: Some(input.clone()),
            ..Default::default()
        }],
        ..Default::default()
    };
    let write = "chmod u+w input; echo changed > input; touch /usr/kiln-test && exit 9; true";
    let spec = Spec { input_root: root.clone(), ..Spec::shell(write, &[]) };
    let (response, _, stderr) = house.run(&spec).await;
    assert_ne!(exit(&response), 9, "/usr was written: {stderr}");
    assert!(!std::path::Path::new("/usr/kiln-test").exists());

    let read = Spec { input_root: root, ..Spec::shell("cat input", &[]) };
    let (_, stdout, _) = house.run(&read).await;
    assert_eq!(stdout, "original");
    assert_eq!(house.client.read(&input).await, b"original");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_out_of_the_sandbox_is_only_a_link() {
    let house = house(&[]).await;
    let spec = Spec::shell("ln -s /etc/passwd out", &["out"]);
    let (response, _, _) = house.run(&spec).await;
    let result = response.result.expect("a result");
    assert!(result.output_files.is_empty(), "{result:?}");
    assert_eq!(result.output_symlinks[0].target, "/etc/passwd");
    assert_eq!(result.output_file_symlinks.len() + result.output_directory_symlinks.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_ends_what_ignores_sigterm_and_keeps_its_output() {
    let house = house(&[]).await;
    let mut spec = Spec::shell("trap '' TERM; echo before; while :; do sleep 1; done", &[]);
    spec.timeout = Some(1);
    let (response, stdout, _) = house.run(&spec).await;
    assert_eq!(code(&response), DEADLINE_EXCEEDED);
    assert_eq!(stdout, "before\n");
    house.expect_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gigabyte_of_output_is_stopped_and_explained() {
    let house = house(&[]).await;
    let script = "yes | head -c 1000000000; echo the last words; exit 3";
    let response = house.client.execute(&Spec::shell(script, &[])).await.expect("an answer");
    assert_eq!((code(&response), exit(&response)), (0, 3));
    assert!(response.message.contains("left out in the middle"), "{}", response.message);
    let log = response.result.clone().and_then(|result| result.stdout_digest).expect("a log");
    assert!(((128 << 20)..(128 << 20) + 200).contains(&log.size_bytes), "{log:?}");
    let endless = house.client.execute(&Spec::shell("yes", &[])).await.expect("an answer");
    assert_eq!((code(&endless), exit(&endless)), (0, 137));
    assert!(endless.message.contains("output: "), "{}", endless.message);
    house.expect_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_bomb_stays_in_its_sandbox() {
    let house = house(&[]).await;
    let mut spec = Spec::shell("b() { b | b & }; b; sleep 3; echo end", &[]);
    spec.timeout = Some(20);
    house.run(&spec).await;
    house.expect_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_hog_is_killed_and_named() {
    let house = house(&[]).await;
    // The script doubles a string in the shell until it reaches the limit.
    let mut spec = Spec::shell("x=0123456789abcdef; while :; do x=$x$x; done", &[]);
    spec.command.platform = Some(reapi::Platform {
        properties: vec![reapi::platform::Property {
            name: "kiln-memory".into(),
            value: "256MiB".into(),
        }],
    });
    let (response, _, stderr) = house.run(&spec).await;
    assert_eq!(code(&response), 0);
    assert_ne!(exit(&response), 0);
    assert!(stderr.contains("memory"), "{stderr}");
    house.expect_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_filler_meets_its_own_limit() {
    let house = house(&[]).await;
    let script = "head -c 100000000000 /dev/zero > big";
    let (response, _, stderr) = house.run(&Spec::shell(script, &["big"])).await;
    assert_eq!(code(&response), 0);
    assert_ne!(exit(&response), 0);
    assert!(stderr.contains("kiln: the action met a limit of its worker: "), "{stderr}");
    house.expect_well().await;
}

/// The store would refuse the output again however often the action ran, so Kiln does not try again.
#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_the_store_never_takes_is_an_outcome() {
    let house = house(&["--max-size", "64MiB", "--workers", "1"]).await;
    for (script, outputs) in [
        ("head -c 70000000 /dev/zero > big", &["big"][..]),
        ("mkdir tree; head -c 70000000 /dev/zero > tree/big", &["tree"]),
        ("head -c 70000000 /dev/zero", &[]),
    ] {
        let (response, ..) = house.run(&Spec::shell(script, outputs)).await;
        assert_eq!((code(&response), exit(&response)), (0, 1), "{response:?}");
        assert!(response.message.contains("larger than the"), "{}", response.message);
    }
    // Kiln does not count this as a fault of the worker, which would otherwise take no actions by now.
    house.expect_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_says_why() {
    let house = house(&[]).await;
    let mut spec = Spec::shell("", &[]);
    spec.command.arguments = vec!["/no/such/program".into()];
    let (response, _, stderr) = house.run(&spec).await;
    assert_eq!(exit(&response), 127, "{response:?}");
    assert!(stderr.contains("/no/such/program"), "{stderr}");
}
