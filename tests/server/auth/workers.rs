//! A `kiln worker` that cannot join says in one line what is wrong and what to do.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use crate::auth::house::House;
use crate::auth::roles::{guarded, wait_for};
use crate::support::pki::Authority;
use crate::support::server::Server;

/// Longer than several of the worker's attempts to join take.
const SEVERAL_ATTEMPTS: Duration = Duration::from_secs(9);

struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(dir: &Path, url: &str, configure: impl FnOnce(&mut Command)) -> Worker {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.args(["worker", "--slots", "1", "--server", url, "--data-dir"]).arg(dir.join("data"));
    command.env("KILN_WORKERS_MEMORY", "1GiB").env("NO_COLOR", "1");
    command.stderr(File::create(dir.join("log")).unwrap());
    configure(&mut command);
    Worker(command.spawn().unwrap())
}

/// Asserts that the worker, after several attempts, has logged only one line about its sessions, which holds all
/// these words.
async fn expect_line(url: &str, words: &[&str], configure: impl FnOnce(&mut Command)) {
    let dir = tempfile::tempdir().unwrap();
    let _worker = start(dir.path(), url, configure);
    wait_for(&dir.path().join("log"), "no session with the scheduler").await;
    tokio::time::sleep(SEVERAL_ATTEMPTS).await;
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("session")).collect();
    let [line] = lines[..] else { panic!("not one line for {url}: {log}") };
    for word in words.iter().chain([&url]) {
        assert!(line.contains(word), "{word:?} is not said: {line}");
    }
    for noise in ["Status {", "source:", "Custom", "Error("] {
        assert!(!log.contains(noise), "{noise:?} is in {log}");
    }
    assert!(line.len() < 400, "{line}");
}

fn ca(file: &Path) -> impl FnOnce(&mut Command) {
    move |command| {
        command.env("KILN_CA_FILE", file);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_says_in_one_line_why_it_cannot_join() {
    let house = House::new(&["--workers", "0"]);
    let other = Authority::new(house.dir.path(), "other");
    let data = tempfile::tempdir().unwrap();
    let plain = Server::start(data.path(), &["--workers", "0"]);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nobody = format!("http://127.0.0.1:{port}");
    let without = format!("http://{}", house.server.address);
    let with = format!("https://{}", plain.address);
    let right = house.url();
    tokio::join!(
        expect_line(&nobody, &["nothing listens there", "--server"], |_| ()),
        expect_line(&without, &["does not speak gRPC without TLS", "write https://"], |_| ()),
        expect_line(&right, &["authority", "not trusted", "--tls-ca"], ca(&other.file)),
        expect_line(&with, &["does not speak TLS", "write http://"], ca(&house.authority.file)),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_says_in_one_line_that_its_token_is_refused() {
    let house = guarded(&["--workers", "0"]);
    let token = |token: &'static str| {
        let file = house.authority.file.clone();
        move |command: &mut Command| {
            command.env("KILN_CA_FILE", file).env("KILN_TOKEN", token);
        }
    };
    let url = house.url();
    tokio::join!(
        expect_line(&url, &["does not know this worker", "--token-file"], token("tok-wrong")),
        expect_line(&url, &["does not let this worker in", "role worker"], token("tok-ci")),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_says_what_became_of_its_session() {
    let (dir, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(data.path(), &["--workers", "0"]);
    let _worker = start(dir.path(), &server.url(), |_| ());
    let log = dir.path().join("log");
    wait_for(&log, "a session with the scheduler has begun").await;
    assert!(server.terminate().success());
    wait_for(&log, "no session with the scheduler").await;
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(said.contains("the server has ended the session"), "{said}");
    assert!(!said.contains("successfully"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_administrator_drains_workers() {
    let house = guarded(&["--workers", "1"]);
    let drain = |token: &'static str| {
        let (url, file) = (house.url(), house.authority.file.clone());
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command.args(["worker", "drain", "nobody", "--server", &url]);
        command.env("KILN_CA_FILE", file).env("KILN_TOKEN", token);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for token in ["tok-ci", "tok-worker"] {
        let (code, said) = drain(token);
        assert!(code == Some(4) && said.contains("the role admin is missing"), "{code:?} {said}");
    }
    let (code, said) = drain("tok-wrong");
    assert!(code == Some(4) && said.contains("--token-file"), "{code:?} {said}");
    // The server tells a caller who has the role which workers there are.
    let (code, said) = drain("tok-boss");
    assert!(code == Some(1) && said.contains("no worker is called \"nobody\""), "{code:?} {said}");
}
