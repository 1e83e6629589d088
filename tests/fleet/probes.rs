//! What `kiln worker` tells of itself on its own port.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::exposition::Scrape;
use crate::rig::WITHIN;
use crate::support::promtool;
use crate::support::reapi::{Client, Spec};
use crate::support::server::Server;

struct Probed {
    child: Child,
    address: String,
}

fn worker(server: &str, data: &Path, listen: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command
        .args(["worker", "--server", server, "--slots", "2", "--listen", listen, "--data-dir"])
        .arg(data)
        .env("KILN_WORKERS_MEMORY", "1GiB")
        .stdout(Stdio::piped());
    command
}

impl Probed {
    fn start(server: &str, data: &Path) -> Self {
        let mut child = worker(server, data, "127.0.0.1:0").spawn().expect("kiln worker starts");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let address = stdout.lines().map_while(Result::ok).find_map(|line| {
            let url = line.trim().strip_prefix("listens")?.split_whitespace().next()?.to_owned();
            Some(url.strip_prefix("http://")?.to_owned())
        });
        Self { child, address: address.expect("it says where it listens") }
    }

    /// Sends `GET path` to the worker. Returns the status and the body of the answer.
    fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).expect("the worker accepts");
        let host = &self.address;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
            .expect("the request is sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("the answer is UTF-8");
        let (head, body) = text.split_once("\r\n\r\n").expect("an answer with a body");
        let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok());
        (status.expect("a status"), body.to_owned())
    }

    fn await_ready(&self, status: u16, words: &str) {
        let deadline = Instant::now() + WITHIN;
        loop {
            let answer = self.get("/readyz");
            if answer.0 == status && answer.1.contains(words) {
                return;
            }
            assert!(Instant::now() < deadline, "{status} {words:?} does not come: {answer:?}");
            kiln_test_servers::pause();
        }
    }

    fn scrape(&self) -> Scrape {
        let (status, text) = self.get("/metrics");
        assert_eq!(status, 200, "{text}");
        promtool::check(&text);
        Scrape::parse(&text)
    }

    fn health(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_kiln"))
            .args(["health", "--server", &format!("http://{}", self.address)])
            .args(arguments)
            .output()
            .expect("kiln health runs");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Probed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_worker_is_ready_while_it_has_a_scheduler_and_tells_what_it_ran() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(&dir.path().join("server"), &["--workers", "0"]);
    let (address, url) = (server.address.clone(), server.url());
    let worker = Probed::start(&url, &dir.path().join("worker"));
    worker.await_ready(200, "ready");
    assert_eq!(worker.health(&[]).0, Some(0));

    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = Client::connect(&url).await;
        // This command is too large to come to the worker together with its lease.
        let large = format!("exit 3 # {}", "x".repeat(20_000));
        for script in ["echo made > out", &large] {
            client.execute(&Spec::shell(script, &["out"])).await.expect("an answer");
        }
    });
    let now = worker.scrape();
    let actions = |outcome| now.value("kiln_worker_actions_total", &[("outcome", outcome)]);
    assert_eq!((actions("success"), actions("failure"), actions("error")), (1.0, 1.0, 0.0));
    for stage in ["input_fetch", "run", "upload"] {
        let stage = [("stage", stage)];
        assert_eq!(now.value("kiln_worker_stage_duration_seconds_count", &stage), 2.0);
    }
    for (name, value) in [
        ("kiln_worker_slots", 2.0),
        ("kiln_worker_slots_occupied", 0.0),
        ("kiln_worker_connected", 1.0),
        ("kiln_worker_draining", 0.0),
        ("kiln_worker_sessions_total", 1.0),
        ("kiln_worker_session_failures_total", 0.0),
        // The worker has fetched the large command and its action, because a lease carries either both of them or
        // none. It has uploaded one output.
        ("kiln_worker_fetched_blobs_total", 2.0),
        ("kiln_worker_uploaded_blobs_total", 1.0),
        ("kiln_worker_uploaded_bytes_total", 5.0),
    ] {
        assert_eq!(now.value(name, &[]), value, "{name}");
    }
    assert!(now.value("kiln_worker_fetched_bytes_total", &[]) > 20_000.0);
    assert!(now.value("process_resident_memory_bytes", &[]) > 1e6);

    // The worker's port has none of a server's pages.
    for path in ["/", "/api/v1/status", "/cas/", "/blobs/sha256/00/1"] {
        assert_eq!(worker.get(path).0, 404, "{path}");
    }

    server.kill();
    worker.await_ready(503, "no session with a scheduler: http://");
    let (code, said) = worker.health(&[]);
    assert_eq!((code, said.starts_with("not ready: no session")), (Some(1), true), "{said}");
    assert_eq!(worker.health(&["--live"]).0, Some(0));
    let lost = worker.scrape();
    assert_eq!(lost.value("kiln_worker_connected", &[]), 0.0);
    assert!(lost.value("kiln_worker_session_failures_total", &[]) >= 1.0);

    let again = ["--workers", "0"];
    let _server = Server::start_on(&address, &dir.path().join("server"), &again);
    worker.await_ready(200, "ready");
    assert_eq!(worker.scrape().value("kiln_worker_sessions_total", &[]), 2.0);
}

#[test]
fn a_worker_that_drains_says_so_until_it_has_ended() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(&dir.path().join("server"), &["--workers", "0"]);
    let mut worker = Probed::start(&server.url(), &dir.path().join("worker"));
    worker.await_ready(200, "ready");
    let url = server.url();
    let action = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let client = Client::connect(&url).await;
            client.execute(&Spec::shell("sleep 4.041", &[])).await.expect("an answer")
        })
    });
    let deadline = Instant::now() + WITHIN;
    while worker.scrape().value("kiln_worker_slots_occupied", &[]) != 1.0 {
        assert!(Instant::now() < deadline, "the action does not run");
        kiln_test_servers::pause();
    }
    let pid = worker.child.id().to_string();
    assert!(Command::new("kill").arg(&pid).status().expect("kill runs").success());
    worker.await_ready(503, "draining: an action still runs");
    assert_eq!(worker.get("/healthz").0, 200);
    assert_eq!(worker.scrape().value("kiln_worker_draining", &[]), 1.0);
    assert_eq!(action.join().expect("it ends well").result.expect("a result").exit_code, 0);
    assert!(worker.child.wait().expect("it is reaped").success());
    assert!(TcpStream::connect(&worker.address).is_err(), "nobody listens any more");
}

/// Runs a `kiln worker` that refuses to start. Returns its exit code and what it printed to stderr.
fn refusal(mut command: Command) -> (Option<i32>, String) {
    let output = command.stderr(Stdio::piped()).output().expect("kiln worker runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_port_that_cannot_be_is_refused_at_the_start() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let listen = taken.local_addr().expect("an address").to_string();
    let (code, said) = refusal(worker("http://127.0.0.1:1", dir.path(), &listen));
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains(&listen) && said.contains("--listen"), "{said}");

    let (code, said) = refusal(worker("http://127.0.0.1:1", dir.path(), "nowhere"));
    assert_eq!((code, said.contains("8981")), (Some(2), true), "{said}");

    let mut closed = worker("http://127.0.0.1:1", dir.path(), "0.0.0.0:0");
    closed.env("KILN_AUTH_OPEN", "health");
    let (code, said) = refusal(closed);
    assert_eq!((code, said.contains("leaves metrics out")), (Some(2), true), "{said}");
}
