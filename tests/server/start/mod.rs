//! Kiln as strangers start it: with relative paths, odd names, `localhost`, and configuration with which it could
//! serve nothing, and which it has to refuse at the start.

#![allow(clippy::panic, clippy::unwrap_used)]

mod configuration;
mod signals;
use crate::support;

use std::path::Path;
use std::process::{Child, Command, Stdio};

use kiln_protos::reapi;
use support::reapi::{Client, Spec, output_text};
use support::server::{Server, get_json, program};

fn kiln(here: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.args(words).current_dir(here).env("KILN_WORKERS_MEMORY", "1GiB");
    command.stdin(Stdio::null());
    command
}

/// Runs an action at the server that reads an input and makes an output. Panics unless the output is right.
async fn expect_action(url: &str) {
    let client = Client::connect(url).await;
    let input = client.put(b"an input\n").await;
    let mut spec = Spec::shell("cat input | tee out", &["out"]);
    spec.input_root.files.push(reapi::FileNode {
        name: "input".into(),
        digest: Some(input),
        ..Default::default()
    });
    let response = client.execute(&spec).await.expect("an answer");
    let result = response.result.clone().unwrap_or_else(|| panic!("no result: {response:?}"));
    assert_eq!(output_text(&client, &result).await.0, "an input\n");
    assert_eq!(result.output_files.len(), 1, "{result:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relative_data_directory_serves_wherever_it_comes_from() {
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path().join("a: place, of \"mine\"");
    std::fs::create_dir_all(here.join("etc")).unwrap();
    std::fs::write(here.join("etc/kiln.toml"), "[storage]\ndata_dir = \"../of file\"").unwrap();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--workers", "1"];
    let by_flag = kiln(&here, &[&serve[..], &["--data-dir", "of flag"]].concat());
    let mut by_variable = kiln(&here, &serve);
    by_variable.env("KILN_STORAGE_DATA_DIR", "./of/variable/");
    let by_file = kiln(&here, &[&serve[..], &["--config", "etc/kiln.toml"]].concat());
    for (command, data) in
        [(by_flag, "of flag"), (by_variable, "of/variable"), (by_file, "of file")]
    {
        let server = Server::spawn(command, &here);
        expect_action(&server.url()).await;
        assert!(here.join(data).join("worker").is_dir(), "{data}");
    }
}

struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn localhost_serves_at_all_its_addresses_and_a_worker_may_be_relative_too() {
    let dir = tempfile::tempdir().unwrap();
    let words = ["serve", "--listen", "localhost:0", "--data-dir", "data", "--workers", "0"];
    let server = Server::spawn(kiln(dir.path(), &words), dir.path());
    let (name, port) = server.address.rsplit_once(':').unwrap();
    assert_eq!(name, "localhost");
    let join = ["worker", "--server", &server.url(), "--slots", "1", "--data-dir", "worker"];
    let _worker = Worker(kiln(dir.path(), &join).stdout(Stdio::null()).spawn().unwrap());
    expect_action(&server.url()).await;
    let mut hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    if std::net::TcpListener::bind("[::1]:0").is_ok() {
        hosts.push("[::1]".to_owned());
    }
    for host in hosts {
        let status = get_json(&format!("{host}:{port}"), "/api/v1/status");
        assert_eq!(status["workers"], 1, "{host}: {status}");
    }
}

/// Runs a command. Returns its exit code, or -1 after a signal, and what it printed to stderr.
fn said(mut command: Command) -> (i32, String) {
    let output = command.output().unwrap();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn no_home_is_no_hindrance_where_the_user_has_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = kiln(dir.path(), &["config", "check"]);
    command.env_remove("HOME").env_remove("XDG_DATA_HOME");
    let (code, text) = said(command);
    assert!(code == 0 || text.contains("--data-dir"), "{code}: {text}");
}

#[test]
fn https_to_a_plain_port_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), &["--workers", "0"]);
    let url = format!("https://{}", server.address);
    let blob = format!("{}/1", "ab".repeat(32));
    for words in [&["status"][..], &["health"], &["cas", "stat", &blob]] {
        let mut command = kiln(dir.path(), words);
        command.env("KILN_SERVER", &url);
        let (code, text) = said(command);
        assert_eq!(code, 3, "{words:?}: {text}");
        assert!(text.contains("does not speak TLS"), "{words:?}: {text}");
        assert!(text.contains("http://"), "{words:?}: {text}");
    }
}

#[test]
fn what_may_be_anybody_elses_is_no_data_directory_and_stays_as_it_was() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let theirs = dir.path().join("theirs");
    std::fs::create_dir_all(theirs.join("a place")).unwrap();
    std::fs::write(dir.path().join("file"), "precious").unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    for (path, wide, why) in [("theirs", 0o1777, "a place"), ("file", 0o644, "is no directory")] {
        let full = dir.path().join(path);
        std::fs::set_permissions(&full, std::fs::Permissions::from_mode(wide)).unwrap();
        let serve = ["serve", "--listen", "127.0.0.1:0", "--workers", "0", "--data-dir", path];
        let (code, text) = program(kiln(dir.path(), &serve)).unwrap_or_else(|| panic!("{path}"));
        assert_eq!(code, 5, "{text}");
        assert!(text.contains(why) && text.contains("--data-dir"), "{text}");
        assert_eq!(mode(&full), wide, "{path}");
    }
    assert_eq!(std::fs::read_dir(&theirs).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_for_all_of_the_machine_is_nobodys_name() {
    let dir = tempfile::tempdir().unwrap();
    let open = ["--insecure", "--workers", "1"];
    let server = Server::start_on("0.0.0.0:0", &dir.path().join("data"), &open);
    let (name, port) = server.address.rsplit_once(':').unwrap();
    assert!(!name.contains("0.0.0.0"), "{name}");
    let here = format!("127.0.0.1:{port}");
    let failing = Spec::shell("exit 3", &[]);
    let message = |server: String| async move {
        let client = Client::connect(&server).await;
        client.execute(&Spec::shell("exit 3", &[])).await.unwrap().message
    };
    let said = message(format!("http://{here}")).await;
    assert!(said.contains(&format!("http://{here}/actions/")), "{said}");
    assert_eq!(get_json(&here, "/api/v1/status")["base_url"], format!("http://{here}"));
    let asked = kiln(dir.path(), &["--server", &format!("http://{here}"), "status"]);
    let shown = String::from_utf8(asked_output(asked)).unwrap();
    assert!(shown.contains(&format!(" at http://{here},")), "{shown}");
    drop(server);

    let mut command =
        kiln(dir.path(), &["serve", "--listen", "127.0.0.1:0", "--data-dir", "named"]);
    command.args(["--workers", "1", "--base-url", "https://build.example/"]);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let address = loop {
        let line = lines.next().unwrap().unwrap();
        if let Some(address) = line.trim().strip_prefix("listens ") {
            break address.trim().to_owned();
        }
    };
    let client = Client::connect(&format!("http://{address}")).await;
    let said = client.execute(&failing).await.unwrap().message;
    let _ = child.kill();
    let _ = child.wait();
    assert!(said.contains("https://build.example/actions/"), "{said}");
}

fn asked_output(mut command: Command) -> Vec<u8> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

#[test]
fn a_worker_has_slots() {
    let dir = tempfile::tempdir().unwrap();
    let (code, text) = said(kiln(dir.path(), &["worker", "--slots", "0"]));
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("no slots") && text.contains("--slots"), "{text}");
}

#[test]
fn a_full_stdout_is_an_error_and_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    for words in [&["config", "default"][..], &["config", "show"], &["config", "show", "--json"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = kiln(dir.path(), words);
        command.stdout(full);
        let (code, text) = said_to_stderr(command);
        assert_eq!(code, 5, "{words:?}: {text}");
        assert!(text.contains("cannot write to stdout"), "{words:?}: {text}");
    }
}

/// Runs a command whose stdout goes elsewhere. Returns the same as [`said`].
fn said_to_stderr(mut command: Command) -> (i32, String) {
    let output = command.stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn pages_and_completions_have_what_people_type() {
    let dir = tempfile::tempdir().unwrap();
    let says = |words: &[&str]| String::from_utf8(asked_output(kiln(dir.path(), words))).unwrap();
    assert!(says(&["completions", "bash"]).contains("read-cache write-cache execute worker"));
    assert!(says(&["status", "--help"]).contains("\nServer:\n"));
    says(&["man", "--output", "man"]);
    let pages: Vec<_> = std::fs::read_dir(dir.path().join("man"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(pages.contains(&"kiln-serve.1".to_owned()), "{pages:?}");
    assert!(pages.contains(&"kiln-worker-drain.1".to_owned()), "{pages:?}");
    assert!(!pages.iter().any(|page| page.contains("help")), "{pages:?}");
    let first = std::fs::read_to_string(dir.path().join("man/kiln.1")).unwrap();
    assert!(!first.contains("kiln\\-help(1)") && first.contains("kiln\\-serve(1)"), "{first}");
}

#[test]
fn a_worker_may_be_named_and_says_whose_data_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, &["--workers", "0"]);
    let url = server.url();
    let join = ["worker", "--server", &url, "--slots", "1"];
    let in_use = [&join[..], &["--data-dir", "data"]].concat();
    let (code, text) = said(kiln(dir.path(), &in_use));
    assert_eq!(code, 5, "{text}");
    assert!(text.contains("error: cannot open the storage: data directory"), "{text}");
    let (code, text) = said(kiln(dir.path(), &[&join[..], &["--name", "has spaces"]].concat()));
    assert_eq!(code, 2, "{text}");
    let named = [&join[..], &["--data-dir", "worker", "--name", "builder-7"]].concat();
    let _worker = Worker(kiln(dir.path(), &named).stdout(Stdio::null()).spawn().unwrap());
    loop {
        let workers = get_json(&server.address, "/api/v1/workers");
        if let Some(worker) = workers["workers"].as_array().and_then(|all| all.first()) {
            assert_eq!(worker["id"], "builder-7", "{workers}");
            return;
        }
        kiln_test_servers::pause();
    }
}
