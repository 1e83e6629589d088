//! What plain HTTP clients get from a server that asks who calls: pages, metrics and the cache protocol.

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::auth::roles::{access_file, bearer, guarded_plainly, lines_with, update};
use crate::support::reapi::Client;
use crate::support::server::{Server, command};

/// A scraper of metrics needs no credentials by default, and neither do health checks.
#[tokio::test(flavor = "multi_thread")]
async fn failures_are_counted_by_reason() {
    let dir = tempfile::tempdir().unwrap();
    let server = guarded_plainly(dir.path());
    let endpoint = tonic::transport::Endpoint::from_shared(server.url()).unwrap();
    let channel = endpoint.connect().await.unwrap();
    HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await.unwrap();
    for token in ["tok-x", "tok-y", "tok-reader"] {
        let mut caller = Client::as_caller(channel.clone(), bearer(token));
        caller.instance = "main".into();
        let action = kiln_cas::DigestFunction::Sha256.digest(b"x").to_wire();
        assert!(update(&caller, &action).await.is_err());
    }
    let (head, body) = get(&server.address, "/metrics", "");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    for line in [
        "kiln_auth_failures_total{reason=\"unknown_token\"} 2",
        "kiln_auth_failures_total{reason=\"denied\"} 1",
        "kiln_tls_handshake_failures_total 0",
    ] {
        assert!(body.contains(line), "{line} is not in {}", lines_with(&body, "auth"));
    }
}

/// The server makes browsers ask for a password and answers scripts in JSON. It tells both what to do.
#[test]
fn http_clients_get_401_with_a_challenge_and_403() {
    let dir = tempfile::tempdir().unwrap();
    let server = guarded_plainly(dir.path());
    let basic = "Authorization: Basic bWU6dG9rLWxhcHRvcA==\r\n";
    for path in ["/", "/api/v1/status", "/builds/x", "/nothing", "/cas/tree/sha256/ab/1"] {
        let (head, body) = get(&server.address, path, "");
        assert!(head.starts_with("HTTP/1.1 401"), "{path}: {head}");
        let head = head.to_ascii_lowercase();
        assert!(head.contains("www-authenticate: basic realm="), "{head}");
        assert!(head.contains("www-authenticate: bearer realm="), "{head}");
        assert!(body.contains("credentials"), "{body}");
        let (head, body) = get(&server.address, path, basic);
        assert!(head.starts_with("HTTP/1.1 403"), "{path}: {head}");
        assert!(body.contains("token laptop may not read in all instances"), "{body}");
    }
    let (head, body) = get(&server.address, "/api/v1/status", "Authorization: Bearer nope\r\n");
    assert!(head.starts_with("HTTP/1.1 401") && head.contains("invalid_token"), "{head}");
    let error: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert!(error["error"]["hint"].as_str().unwrap().contains("--token-file"), "{body}");
    let reader = "Authorization: Bearer tok-reader\r\n";
    assert!(get(&server.address, "/", reader).0.starts_with("HTTP/1.1 200"));
    let hash = "ab".repeat(32);
    let (head, body) = get(&server.address, &format!("/elsewhere/ac/{hash}"), basic);
    assert!(head.starts_with("HTTP/1.1 403") && body.contains("\"elsewhere\""), "{head} {body}");
    let (head, _) = get(&server.address, &format!("/m%61in/ac/{hash}"), basic);
    assert!(head.starts_with("HTTP/1.1 404"), "the instance is main, as it is decoded: {head}");
}

#[test]
fn pages_can_be_opened_and_metrics_closed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("access.toml");
    std::fs::write(&file, access_file()).unwrap();
    let mut open = command("127.0.0.1:0", &dir.path().join("data"), &["--workers", "0"]);
    open.arg("--access-file").arg(&file).env("KILN_AUTH_OPEN", "pages");
    let server = Server::spawn(open, &dir.path().join("data"));
    assert!(get(&server.address, "/", "").0.starts_with("HTTP/1.1 200"));
    assert!(get(&server.address, "/api/v1/status", "").0.starts_with("HTTP/1.1 200"));
    assert!(get(&server.address, "/metrics", "").0.starts_with("HTTP/1.1 401"));
    let hash = "ab".repeat(32);
    let (head, _) = get(&server.address, &format!("/ac/{hash}"), "");
    assert!(head.starts_with("HTTP/1.1 401"), "the cache is no page: {head}");
}

/// Waits until `is_so` holds, because the server looks at its files only from time to time. Panics after 30 s.
fn until(mut is_so: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !is_so() {
        assert!(std::time::Instant::now() < end, "it does not come");
        kiln_test_servers::pause();
    }
}

#[test]
fn an_access_file_that_cannot_be_used_is_told_of_until_it_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("access.toml");
    std::fs::write(&file, access_file()).unwrap();
    let mut open = command("127.0.0.1:0", &dir.path().join("data"), &["--workers", "0"]);
    open.arg("--access-file").arg(&file).env("KILN_AUTH_OPEN", "pages, metrics");
    let server = Server::spawn(open, &dir.path().join("data"));
    let gauge = || {
        let (_, text) = get(&server.address, "/metrics", "");
        let line = text.lines().find(|line| line.starts_with("kiln_reload_failed{")).unwrap_or("");
        line.to_owned()
    };
    assert_eq!(gauge(), "kiln_reload_failed{what=\"access\"} 0");
    std::fs::write(&file, "[[token]]\nname = \"half").unwrap();
    until(|| gauge().ends_with(" 1"));
    let mut status = std::process::Command::new(env!("CARGO_BIN_EXE_kiln"));
    status.args(["--server", &server.url(), "status"]);
    let (code, text) = crate::auth::house::said(&status.output().unwrap());
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("a change of access files and keys is not in force"), "{text}");
    assert!(text.contains("access.toml"), "{text}");
    std::fs::write(&file, access_file() + "# mended\n").unwrap();
    until(|| gauge().ends_with(" 0"));
}

#[test]
fn who_may_not_store_is_told_that_first() {
    let dir = tempfile::tempdir().unwrap();
    let kiln = |words: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_kiln"));
        command.args(words).current_dir(dir.path());
        crate::auth::house::said(&command.output().unwrap())
    };
    let new = ["token", "new", "reader", "--role", "read-cache", "--out", "reader.token"];
    let (code, entry) = kiln(&new);
    assert_eq!(code, 0, "{entry}");
    let (code, text) = kiln(&new);
    assert_eq!(code, 5, "{text}");
    assert!(text.contains("error: reader.token is there already\nhint: "), "{text}");
    std::fs::write(dir.path().join("access.toml"), entry).unwrap();
    let mut serve = command("127.0.0.1:0", &dir.path().join("data"), &["--workers", "0"]);
    serve.arg("--access-file").arg(dir.path().join("access.toml"));
    let server = Server::spawn(serve, &dir.path().join("data"));
    let put =
        ["--server", &server.url(), "--token-file", "reader.token", "cas", "put", "access.toml"];
    let (code, text) = kiln(&put);
    assert_eq!(code, 4, "{text}");
    assert!(text.starts_with("error: token reader may not store blobs"), "{text}");
}

/// Sends a plain GET with these header lines. Returns the head and the body of the answer.
fn get(address: &str, path: &str, headers: &str) -> (String, String) {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let end = "Connection: close\r\n\r\n";
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n{headers}{end}").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}
