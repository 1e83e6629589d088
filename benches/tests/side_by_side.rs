//! The load generator against the floor, both whole.

#![allow(clippy::unwrap_used)]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use clap::Parser;
use kiln_benches::{floor, load};
use serde_json::Value;

/// A floor on a free port; it ends with the test's process.
fn start_floor(runtime: &str) -> SocketAddr {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let listen = address.to_string();
    let options =
        floor::Options::parse_from(["kiln-floor", "--listen", &listen, "--runtime", runtime]);
    std::thread::spawn(move || floor::run(&options).unwrap());
    let deadline = Instant::now() + Duration::from_secs(60);
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < deadline, "the floor does not listen");
        std::thread::park_timeout(Duration::from_millis(10));
    }
    address
}

fn measure(targets: &[(&str, SocketAddr)], arguments: &[&str]) -> (bool, Value) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut all = vec!["kiln-load".to_owned(), "--json-file".to_owned()];
    all.push(file.path().to_str().unwrap().to_owned());
    for (name, address) in targets {
        all.extend(["--target".to_owned(), format!("{name}=grpc://{address}")]);
    }
    all.extend(arguments.iter().map(|&argument| argument.to_owned()));
    let clean = load::run(load::args::Options::parse_from(all)).unwrap();
    (clean, serde_json::from_reader(file).unwrap())
}

#[test]
fn every_cache_work_runs_on_both_kinds_of_floor() {
    let targets = [("floor", start_floor("multi")), ("floor-lanes", start_floor("current"))];
    let (clean, report) = measure(
        &targets,
        &["--work", "cache", "--seconds", "0.1", "--repeat", "1", "--instance", "a/b"],
    );
    assert!(clean, "{report:#}");
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 10);
    for cell in rows.iter().flat_map(|row| row["cells"].as_array().unwrap()) {
        let burst = &cell["outcome"]["measured"][0];
        assert!(burst["operations"].as_u64().unwrap() > 0, "{cell:#}");
        assert!(burst["p50_ms"].as_f64().unwrap() > 0.0, "{cell:#}");
    }
}

#[test]
fn the_usual_client_gets_the_same_answers() {
    let (clean, report) = measure(
        &[("floor", start_floor("multi"))],
        &["--work", "cache", "--seconds", "0.1", "--repeat", "1", "--client", "tonic"],
    );
    assert!(clean, "{report:#}");
}

#[test]
fn connections_and_threads_can_be_many() {
    let targets = [("floor", start_floor("current"))];
    for runtime in ["current", "multi"] {
        let (clean, report) = measure(
            &targets,
            &[
                "--work",
                "read-4k",
                "--work",
                "write-4k",
                "--seconds",
                "0.1",
                "--repeat",
                "2",
                "--connections",
                "3",
                "--client-threads",
                "2",
                "--client-runtime",
                runtime,
            ],
        );
        assert!(clean, "{report:#}");
    }
}

/// The floor remembers nothing, so under another name its answers are wrong.
#[test]
fn a_wrong_answer_is_no_speed() {
    let (clean, report) = measure(
        &[("server", start_floor("multi"))],
        &["--work", "find-missing", "--seconds", "0.1", "--repeat", "1"],
    );
    assert!(!clean);
    let outcome = &report["rows"][0]["cells"][0]["outcome"];
    let why = outcome["failed"].as_str().unwrap();
    assert!(why.contains("does not report exactly the blob that is missing"), "{why}");
}

/// A work that a server does not offer is neither a failure nor a figure.
#[test]
fn an_unsupported_work_is_left_empty() {
    let (clean, report) = measure(
        &[("floor", start_floor("multi"))],
        &["--work", "execute-serial", "--seconds", "0.1", "--repeat", "1"],
    );
    assert!(clean, "{report:#}");
    assert!(report["rows"][0]["cells"][0]["outcome"]["unsupported"].is_string(), "{report:#}");
}
