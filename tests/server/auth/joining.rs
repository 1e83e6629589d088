//! Which callers may join as workers, and under which names.

use kiln_protos::worker;
use tonic::{Code, Request};

use crate::auth::roles::{bearer, guarded, lines_with, refused, wait_for};
use crate::support::reapi::Spec;

#[tokio::test(flavor = "multi_thread")]
async fn only_a_worker_may_join() {
    use worker::workers_client::WorkersClient;

    let house = guarded(&["--workers", "0"]);
    let join = async |token: &str| {
        let client = house.caller(bearer(token)).await;
        let hello = worker::WorkerMessage::default();
        let stream = futures_util::stream::iter([hello]);
        WorkersClient::new(client.channel).session(Request::new(stream)).await.map(drop)
    };
    refused(
        join("tok-ci").await,
        Code::PermissionDenied,
        &["token ci", "the role worker is missing"],
    );
    // The server lets the worker in and then tells it that its first message makes no sense.
    refused(join("tok-worker").await, Code::InvalidArgument, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_of_a_worker_belongs_to_its_credential() {
    use futures_util::{StreamExt, stream};
    use worker::workers_client::WorkersClient;

    let house = guarded(&["--workers", "0"]);
    let join = async |token: &str| {
        let client = house.caller(bearer(token)).await;
        let hello = worker::Hello { worker_id: "w-1".into(), slots: 1, ..Default::default() };
        let hello =
            worker::WorkerMessage { kind: Some(worker::worker_message::Kind::Hello(hello)) };
        let messages = stream::iter([hello]).chain(stream::pending());
        WorkersClient::new(client.channel).session(messages).await.unwrap().into_inner()
    };
    let ids = || {
        let output =
            house.kiln(&["status", "--json"]).env("KILN_TOKEN", "tok-boss").output().unwrap();
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let workers = status["worker_list"].as_array().unwrap().iter();
        workers.map(|worker| worker["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let mut owner = join("tok-worker").await;
    owner.message().await.unwrap().expect("a welcome");
    let mut thief = join("tok-other-worker").await;
    thief.message().await.unwrap().expect("a welcome");
    let mut both = ids();
    both.sort();
    assert_eq!(both, ["w-1 (token other-worker)", "w-1 (token worker)"]);
    // A new session of the same credential replaces the earlier one.
    let mut again = join("tok-worker").await;
    again.message().await.unwrap().expect("a welcome");
    assert!(owner.message().await.unwrap_or_default().is_none(), "the earlier session ends");
    assert_eq!(ids().len(), 2);
}

/// `kiln worker` runs once without the role and once with it. Its token is only in a file and in its memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_runs_actions_with_the_role_and_never_shows_its_token() {
    let house = guarded(&["--workers", "0"]);
    let token = house.dir.path().join("worker.token");
    std::fs::write(&token, "tok-ci\n").unwrap();
    let log = house.dir.path().join("worker.log");
    let data = house.dir.path().join("worker");
    let spawn = || {
        let mut command = house.kiln(&["worker", "--slots", "1", "--token-file"]);
        command.arg(&token).arg("--data-dir").arg(&data).env("KILN_LOG_FILTER", "trace");
        command.env("KILN_WORKERS_MEMORY", "1GiB");
        let file = std::fs::File::create(&log).unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap()
    };
    let mut refused = spawn();
    wait_for(&log, "the role worker is missing").await;
    refused.kill().unwrap();
    refused.wait().unwrap();

    std::fs::write(&token, "tok-worker\n").unwrap();
    let mut worker = spawn();
    let laptop = house.caller(bearer("tok-laptop")).await;
    let ran = laptop.execute(&Spec::shell("echo worked", &[])).await.unwrap();
    assert_eq!(ran.status.unwrap_or_default().code, 0);
    let line = std::fs::read(format!("/proc/{}/cmdline", worker.id())).unwrap();
    assert!(!String::from_utf8_lossy(&line).contains("tok-worker"));
    worker.kill().unwrap();
    worker.wait().unwrap();
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(log.contains("TRACE"), "everything is logged");
    assert!(!log.contains("tok-worker"), "{}", lines_with(&log, "tok-worker"));
}
