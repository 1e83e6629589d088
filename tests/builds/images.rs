//! Actions in container images: a real registry, images made by umoci, and real Bazel.
#![allow(clippy::unwrap_used, clippy::panic)]

use crate::support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use kiln_protos::reapi;
use kiln_test_servers::registry::{LocalImage, Registry};
use support::bazel::Bazel;
use support::client;
use support::reapi::{Client, Spec, output_text};
use support::server::{Server, get_text};

fn tools() -> Option<LocalImage> {
    LocalImage::build(|root| {
        std::fs::create_dir(root.join("tools")).unwrap();
        std::fs::write(root.join("tools/greet"), "#!/bin/sh\necho hello from the image\n").unwrap();
        // By this mode only root may run the program. An action has to be able to run it nevertheless.
        let private = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(root.join("tools/greet"), private).unwrap();
    })
}

fn in_image(script: &str, image: &str, outputs: &[&str]) -> Spec {
    let mut spec = Spec::shell(script, outputs);
    let property = |name: &str, value: &str| reapi::platform::Property {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    #[allow(deprecated, reason = "Bazel sets the platform here too")]
    let platform = &mut spec.command.platform;
    *platform = Some(reapi::Platform { properties: vec![property("container-image", image)] });
    spec
}

const LOOK_AROUND: &str = "cat /etc/os-release; greet; echo $FROM_IMAGE; pwd; \
    ls -d /* | cat; ls /usr 2>/dev/null; cat /etc/hosts; touch /new 2>/dev/null || echo read-only; \
    touch /etc/new 2>/dev/null || echo read-only; touch /tmp/x && echo made > out";

/// Asserts that the action saw the image's files and none of the machine's.
async fn assert_in_image(client: &Client, image: &str) {
    let response =
        client.execute(&in_image(LOOK_AROUND, image, &["out"])).await.expect("an answer");
    let status = response.status.clone().unwrap_or_default();
    assert_eq!(status.code, 0, "{}", status.message);
    let result = response.result.expect("a result");
    let (stdout, stderr) = output_text(client, &result).await;
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(
        lines[..4],
        ["NAME=\"an image\"", "hello from the image", "yes", "/kiln/root"],
        "{stderr}"
    );
    assert_eq!(
        lines[4..12],
        ["/bin", "/dev", "/etc", "/kiln", "/proc", "/sys", "/tmp", "/tools"],
        "{stdout}"
    );
    assert!(lines[12].contains("localhost"), "{stdout}");
    assert_eq!(lines[lines.len() - 2..], ["read-only", "read-only"], "{stdout}");
    assert_eq!((result.exit_code, result.output_files.len()), (0, 1), "{stderr}");
    let metadata = result.execution_metadata.expect("metadata");
    let (fetched, ran) =
        (metadata.input_fetch_completed_timestamp, metadata.execution_start_timestamp);
    let key = |time: Option<kiln_protos::protobuf::Timestamp>| {
        time.map(|time| (time.seconds, time.nanos))
    };
    assert!(key(fetched) <= key(ran), "the pull is a part of fetching the inputs");
}

fn metric(server: &Server, name: &str) -> f64 {
    let text = get_text(&server.address, "/metrics");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}")).parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_from_a_registry_is_pulled_once_and_is_all_that_an_action_sees() {
    let (Some(image), Some(registry)) = (tools(), Registry::start()) else { return };
    let name = registry.push(&image, "team/tools");
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &["--allow-image", &registry.host()]);
    let client = Client::connect(&server.url()).await;
    assert_in_image(&client, &name).await;
    let second = client.execute(&in_image("greet; greet", &name, &[])).await.expect("an answer");
    assert_eq!(second.result.expect("a result").exit_code, 0);
    let unprefixed = name.strip_prefix("docker://").unwrap();
    let third = client.execute(&in_image("greet", unprefixed, &[])).await.expect("an answer");
    assert_eq!(third.result.expect("a result").exit_code, 0);
    assert_eq!(metric(&server, "kiln_image_pulls_total{outcome=\"pulled\"}"), 1.0);
    assert_eq!(metric(&server, "kiln_image_hits_total"), 2.0);
    assert!(metric(&server, "kiln_image_pulled_bytes_total") > 100_000.0);

    // An action that names no image, or the image `none`, runs on the machine as before.
    for image in ["", "none"] {
        let spec = in_image("test -e /usr/bin/env && echo $FROM_IMAGE", image, &[]);
        let response = client.execute(&spec).await.expect("an answer");
        assert_eq!(response.result.expect("a result").stdout_raw, b"\n");
    }
    let own = in_image("echo $PATH", &name, &[]);
    let environment_variables = vec![reapi::command::EnvironmentVariable {
        name: "PATH".into(),
        value: "/of/the/action".into(),
    }];
    let command = reapi::Command { environment_variables, ..own.command.clone() };
    let response = client.execute(&Spec { command, ..own }).await.expect("an answer");
    assert_eq!(response.result.expect("a result").stdout_raw, b"/of/the/action\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_user_can_use_images() {
    let (Some(image), Some(registry)) = (tools(), Registry::start_private()) else { return };
    let name = registry.push(&image, "team/tools");
    let place = tempfile::tempdir().unwrap();
    let kiln = place.path().join("kiln");
    std::fs::copy(env!("CARGO_BIN_EXE_kiln"), &kiln).unwrap();
    let auth = place.path().join("config.json");
    let text = format!(r#"{{"auths": {{"{}": {{"auth": "dXNlcjpwYXNz"}}}}}}"#, registry.host());
    std::fs::write(&auth, text).unwrap();
    for path in [place.path(), &kiln, &auth] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let mut command = match nix::unistd::geteuid().is_root() {
        true => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&kiln);
            command
        }
        false => Command::new(&kiln),
    };
    command.args(["serve", "--listen", "127.0.0.1:0", "--allow-image", "*", "--data-dir"]);
    command.arg(place.path().join("data")).env("KILN_IMAGES_AUTH_FILE", &auth);
    let server = Server::spawn(command, place.path());
    let client = Client::connect(&server.url()).await;
    assert_in_image(&client, &name).await;
    assert_in_image(&client, &name).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_is_said_to_the_client() {
    let (Some(image), Some(registry)) = (tools(), Registry::start_private()) else { return };
    let name = registry.push(&image, "team/tools");
    let layout = format!("oci:{}", image.layout().display());
    let data = tempfile::tempdir().unwrap();
    let gone = format!("127.0.0.1:{}", kiln_test_servers::free_port());
    let allowed = format!("{},{gone},{layout}", registry.host());
    let server = Server::start(data.path(), &["--allow-image", &allowed]);
    let client = Client::connect(&server.url()).await;
    const INVALID: i32 = 3;
    const PRECONDITION: i32 = 9;
    const UNAVAILABLE: i32 = 14;
    let absent = format!("{layout}@sha256:{}", "0".repeat(64));
    let foreign = format!("registry.example/a@{}", image.digest);
    let nobody = format!("{gone}/a@{}", image.digest);
    for (image, code, said) in [
        (name.as_str(), PRECONDITION, "images.auth_file"),
        ("docker://ubuntu:24.04", INVALID, "names no digest"),
        (foreign.as_str(), PRECONDITION, "images.allow"),
        (absent.as_str(), PRECONDITION, "check path and digest"),
        (nobody.as_str(), UNAVAILABLE, "onnect"),
    ] {
        let response = client.execute(&in_image("true", image, &[])).await.expect("an answer");
        let status = response.status.expect("a status");
        assert_eq!(status.code, code, "{image}: {}", status.message);
        assert!(status.message.contains(said), "{image}: {}", status.message);
        assert!(response.result.is_none());
    }
    let spec = in_image("greet", &format!("{layout}@{}", image.digest), &[]);
    let response = client.execute(&spec).await.expect("an answer");
    assert_eq!(response.result.expect("a result").stdout_raw, b"hello from the image\n");

    // The second server allows no images, so none of its workers offers them.
    let data = tempfile::tempdir().unwrap();
    let mut command = support::server::command("127.0.0.1:0", data.path(), &[]);
    command.env("KILN_SCHEDULER_WORKER_GRACE", "100ms");
    let server = Server::spawn(command, data.path());
    let client = Client::connect(&server.url()).await;
    let response = client.execute(&in_image("true", &name, &[])).await.expect("an answer");
    let status = response.status.expect("a status");
    assert_eq!(status.code, PRECONDITION, "{}", status.message);
    assert!(status.message.contains("no worker offers container-image"), "{}", status.message);
}

const RULES: &str = r#"
def _look(ctx):
    out = ctx.actions.declare_file(ctx.label.name)
    ctx.actions.run(
        outputs = [out],
        executable = "/bin/sh",
        arguments = ["-c", "greet > $0 && cat /etc/os-release >> $0 && ! ls /usr 2>> $0", out.path],
    )
    return [DefaultInfo(files = depset([out]))]

look = rule(implementation = _look)
"#;

fn write_workspace(place: &Path, image: &str) {
    let config = "build:kiln --spawn_strategy=remote\nbuild --color=no --curses=no\n";
    let target = |name| {
        format!("look(name = {name:?}, exec_properties = {{\"container-image\": {image:?}}})\n")
    };
    let build = format!("load(\":rules.bzl\", \"look\")\n{}{}", target("one"), target("two"));
    for (name, text) in
        [("WORKSPACE", ""), (".bazelrc", config), ("rules.bzl", RULES), ("BUILD", build.as_str())]
    {
        std::fs::write(place.join(name), text).unwrap();
    }
}

#[test]
fn bazel_builds_in_an_image() {
    let Some(binary) = client("KILN_BAZEL") else { return };
    let (Some(image), Some(registry)) = (tools(), Registry::start()) else { return };
    let name = registry.push(&image, "team/tools");
    let workspace = tempfile::tempdir().unwrap();
    write_workspace(workspace.path(), &name);
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &["--allow-image", &registry.host()]);
    let bazel = Bazel::new(binary, &workspace.path().display().to_string());
    let run = bazel.remote(&server.address, &["build", "//:one", "//:two"]).expect_success();
    assert_eq!(run.processes("remote"), 2, "{}", run.text);
    for target in ["one", "two"] {
        let text = std::fs::read_to_string(bazel.bin().join(target)).expect("an output");
        assert!(text.starts_with("hello from the image\nNAME=\"an image\"\n"), "{text}");
        assert!(text.contains("/usr: No such file"), "{text}");
    }
    assert_eq!(metric(&server, "kiln_image_pulls_total{outcome=\"pulled\"}"), 1.0);
}
