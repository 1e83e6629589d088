//! What Kiln counts in builds, and what it says of actions that never ran or lacked something.

use kiln_protos::reapi::action_cache_client::ActionCacheClient;
use prost::Message;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_run_themselves_counts_as_missed() {
    let Setting { kiln, client, .. } = &setting().await;
    let (one, two) = (client.put(b"one\n").await, client.put(b"two\n").await);
    let ran = client.prepare(&spec(&one, "debug", "-a")).await;
    let never = client.prepare(&spec(&two, "debug", "-b")).await;
    let look_up = async |action: &reapi::Digest, build: &str| {
        let request = reapi::GetActionResultRequest {
            instance_name: client.instance.clone(),
            action_digest: Some(action.clone()),
            ..Default::default()
        };
        let mut request = tonic::Request::new(request);
        let value = metadata("//app:gen", build).encode_to_vec();
        let value = tonic::metadata::MetadataValue::from_bytes(&value);
        request
            .metadata_mut()
            .insert_bin("build.bazel.remote.execution.v2.requestmetadata-bin", value);
        ActionCacheClient::new(client.channel.clone()).get_action_result(request).await.is_ok()
    };

    // This caller behaves as a build with --remote_cache alone. Kiln lists the build from its first look-up, which
    // finds nothing.
    assert!(!look_up(&never, "build-cold").await);
    let cold = until(kiln, "build-cold", |build| build["ran_at_client"] == 1);
    assert_eq!((&cold["executed"], &cold["cache_hits"]), (&0.into(), &0.into()));
    assert!(kiln.says(&["build", "list"]).contains("build-cold"));
    let shown = kiln.says(&["build", "show", "build-cold"]);
    assert!(
        shown.contains("0 from the cache (0.0 %)") && shown.contains("1 run by clients"),
        "{shown}"
    );

    // This caller behaves as a build with --remote_executor: Kiln executes what the look-up did not find.
    assert!(!look_up(&ran, "build-remote").await);
    client
        .execute_with(ran.clone(), &metadata("//app:gen", "build-remote"))
        .await
        .expect("it runs");
    let remote = until(kiln, "build-remote", |build| build["executed"] == 1);
    assert_eq!((&remote["ran_at_client"], &remote["open"]), (&0.into(), &0.into()));

    assert!(look_up(&ran, "build-warm").await);
    assert!(!look_up(&never, "build-warm").await);
    let warm =
        until(kiln, "build-warm", |build| build["ran_at_client"] == 1 && build["cache_hits"] == 1);
    assert_eq!(warm["mnemonics"][0]["ran_at_client"], 1, "{warm}");
    let shown = kiln.says(&["build", "show", "build-warm"]);
    assert!(shown.contains("1 from the cache (50.0 %)"), "{shown}");
}

/// Asks for a build until `is_so` holds for it, and returns it. The journal writes only after the server has
/// answered.
fn until(kiln: &Kiln, build: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    loop {
        let said = kiln.run(&["build", "show", build, "--json"]);
        let value: Value = serde_json::from_str(&said.stdout).unwrap_or_default();
        if is_so(&value) {
            return value;
        }
        kiln_test_servers::pause();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[allow(deprecated)] // Where clients before REAPI 2.2 name the platform.
async fn what_no_worker_ran_was_refused_after_it_waited() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut command = support::server::command("127.0.0.1:0", &directory.path().join("kiln"), &[]);
    command.env("KILN_SCHEDULER_WORKER_GRACE", "300ms");
    let server = Server::spawn(command, directory.path());
    let client = Client::connect(&server.url()).await;
    let kiln = Kiln { server: server.url() };
    let mut spec = Spec::shell("true", &[]);
    spec.command.platform = Some(reapi::Platform {
        properties: vec![reapi::platform::Property { name: "gpu".into(), value: "1".into() }],
    });
    let action = client.prepare(&spec).await;
    let response = client.execute_with(action, &metadata("//app:gpu", "build-gpu")).await;
    assert_eq!(response.expect("an answer").status.expect("a status").code, 9);
    let build = until(&kiln, "build-gpu", |build| build["refused"] == 1);
    assert_eq!((&build["executed"], &build["failed"]), (&0.into(), &1.into()), "{build}");
    assert!(build["queue_ns"].as_u64() >= Some(250_000_000), "{build}");
    let run = &build["executions"][0];
    assert_eq!((&run["origin"], &run["exit_code"]), (&"refused".into(), &Value::Null), "{run}");
    let shown = kiln.says(&["build", "show", "build-gpu"]);
    assert!(shown.contains("0 executed") && shown.contains("1 refused"), "{shown}");
    // After the refusal no action waits for the property any more.
    let metric = support::server::get_text(&server.address, "/metrics");
    let unserved: Vec<_> =
        metric.lines().filter(|line| line.starts_with("kiln_property_set_unserved{")).collect();
    assert!(unserved.iter().all(|line| line.ends_with(" 0")), "{unserved:?}");
    assert!(!support::server::get_text(&server.address, "/queue").contains("chip failed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_directory_is_not_listed_as_one() {
    let Setting { kiln, client, .. } = &setting().await;
    let action = client.prepare(&Spec::shell("true", &[])).await;
    let file = client.put(b"neither a Directory nor anything like it\n").await;
    for other in [&file, &action] {
        let said = kiln.run(&["cas", "tree", &text(other)]);
        assert_eq!(said.code, 4, "{}", said.stdout);
        assert!(said.stderr.contains("is no Directory"), "{}", said.stderr);
        assert!(said.stderr.contains("--of-output"), "{}", said.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_that_failed_without_a_network_says_so() {
    let Setting { kiln, client, .. } = &setting().await;
    let fine = client.prepare(&Spec::shell("true", &[])).await;
    let failing = client.prepare(&Spec::shell("exit 4", &[])).await;
    for action in [&fine, &failing] {
        client
            .execute_with((*action).clone(), &metadata("//app:net", "build"))
            .await
            .expect("it runs");
    }
    until(kiln, "build", |build| build["executed"] == 2);
    let shown = |action: &reapi::Digest| kiln.says(&["action", "show", &text(action)]);
    assert!(
        shown(&failing).contains("none; the property kiln-network=true"),
        "{}",
        shown(&failing)
    );
    assert!(!shown(&fine).contains("kiln-network"), "{}", shown(&fine));
}
