//! Pages of other sites in a real Chromium try to use a Kiln that only this machine reaches.

#![allow(clippy::panic, clippy::unwrap_used)]

use crate::support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kiln_cas::DigestFunction;
use kiln_protos::reapi;
use prost::Message;
use support::reapi::Client;
use support::server::Server;

const WITHIN: Duration = Duration::from_secs(60);
const UPLOAD: &str = "/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchUpdateBlobs";

/// Returns the body of a gRPC call that stores `data`, in the framing in which gRPC sends it.
fn upload(data: &[u8]) -> Vec<u8> {
    let request = reapi::BatchUpdateBlobsRequest {
        instance_name: "e2e/tests".into(),
        requests: vec![reapi::batch_update_blobs_request::Request {
            digest: Some(DigestFunction::Sha256.digest(data).to_wire()),
            data: data.to_vec(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let message = request.encode_to_vec();
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend(message);
    framed
}

/// Sends a request by HTTP/1.1, whose `head` lacks only its last lines. Returns the status and the body of the
/// answer.
fn send(address: &str, head: &str, body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    let head = format!("{head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no answer: {answer}")), answer)
}

async fn is_stored(client: &Client, data: &[u8]) -> bool {
    client.missing(&[DigestFunction::Sha256.digest(data).to_wire()]).await.is_empty()
}

/// Each line holds the headers that a browser sends in one attack, and the status with which the server has to refuse
/// it.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_other_pages_send_store_nothing() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &["--workers", "0"]);
    let client = Client::connect(&server.url()).await;
    let own = format!("Host: {}", server.address);
    let port = server.address.rsplit_once(':').unwrap().1;
    let rebound = format!("Host: evil.example:{port}");
    let grpc = "Content-Type: application/grpc";
    for (number, (status, headers)) in [
        (415, vec![&*own, "Content-Type: text/plain", "Origin: http://evil.example"]),
        (415, vec![&own, "Content-Type: text/plain"]),
        (403, vec![&own, grpc, "Origin: http://evil.example"]),
        (403, vec![&own, grpc, "Origin: null"]),
        (403, vec![&own, grpc, "Sec-Fetch-Site: same-site"]),
        (403, vec![&own, grpc, "Sec-Fetch-Site: same-origin"]),
        (403, vec![&own, grpc, "Authorization: Basic bWU6eA=="]),
        (421, vec![&rebound, grpc]),
        (403, vec![&rebound, grpc, &format!("Origin: http://evil.example:{port}")]),
    ]
    .into_iter()
    .enumerate()
    {
        let blob = format!("attack {number}");
        let head = format!("POST {UPLOAD} HTTP/1.1\r\n{}", headers.join("\r\n"));
        let (said, answer) = send(&server.address, &head, &upload(blob.as_bytes()));
        assert_eq!(said, status, "{head}: {answer}");
        assert!(!is_stored(&client, blob.as_bytes()).await, "{head}");
    }
    let head = format!("POST {UPLOAD} HTTP/1.1\r\n{own}\r\n{grpc}");
    send(&server.address, &head, &upload(b"no attack"));
    assert!(is_stored(&client, b"no attack").await, "the bytes are those of a real call");

    let hash = DigestFunction::Sha256.digest(b"put").hex();
    let put = |more: &str| {
        let head = format!("PUT /e2e/tests/cas/{hash} HTTP/1.1\r\n{own}{more}");
        send(&server.address, &head, b"put").0
    };
    assert_eq!(put("\r\nOrigin: http://evil.example"), 403);
    assert_eq!(put("\r\nSec-Fetch-Site: same-origin"), 403);
    assert!(!is_stored(&client, b"put").await);
    assert_eq!(put(""), 200, "an HTTP cache client");
    let (status, text) = send(&server.address, &format!("GET / HTTP/1.1\r\n{rebound}"), b"");
    assert_eq!(status, 421);
    assert!(text.contains("server.hosts") && !text.contains("Kiln</"), "{text}");
}

/// Returns a page that tries every attack on the server at `kiln` and reports each result.
fn page(kiln: &str, call: &[u8]) -> String {
    let hash = DigestFunction::Sha256.digest(b"from a page").hex();
    let body = STANDARD.encode(call);
    format!(
        "<!doctype html><title>evil</title><script>\n\
         const bytes = Uint8Array.from(atob('{body}'), c => c.charCodeAt(0));\n\
         const call = '{kiln}{UPLOAD}', blob = '{kiln}/e2e/tests/cas/{hash}';\n\
         const tries = [\n\
           ['plain', call, {{method: 'POST', mode: 'no-cors', body: new Blob([bytes])}}],\n\
           ['text', call, {{method: 'POST', mode: 'no-cors', headers: {{'Content-Type': 'text/plain'}},\n\
             body: bytes}}],\n\
           ['grpc', call, {{method: 'POST', headers: {{'Content-Type': 'application/grpc'}},\n\
             body: bytes}}],\n\
           ['put', blob, {{method: 'PUT', body: 'from a page'}}],\n\
           ['read', '{kiln}/api/v1/status', {{}}],\n\
         ];\n\
         (async () => {{\n\
           const said = [];\n\
           for (const [name, url, init] of tries) {{\n\
             try {{ const answer = await fetch(url, init);\n\
               said.push(name + ':' + answer.type + ':' + answer.status); }}\n\
             catch (error) {{ said.push(name + ':blocked'); }}\n\
           }}\n\
           navigator.sendBeacon(call, new Blob([bytes], {{type: 'text/plain'}}));\n\
           await fetch('/done?' + said.join(','));\n\
         }})();\n\
         </script>"
    )
}

/// Serves `page` on a port of its own. Returns the port, and a channel with the reports of the page.
fn site(page: String) -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(&stream);
            let mut line = String::new();
            if reader.read_line(&mut line).is_err() {
                continue;
            }
            let _head_ended = reader.lines().map_while(Result::ok).any(|line| line.is_empty());
            let path = line.split_whitespace().nth(1).unwrap_or_default();
            let body = if path == "/" { &*page } else { "" };
            let length = body.len();
            let _ = write!(
                &stream,
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n\
                 Connection: close\r\n\r\n{body}"
            );
            if let Some(said) = path.strip_prefix("/done?")
                && sender.send(said.to_owned()).is_err()
            {
                return;
            }
        }
    });
    (port, receiver)
}

fn chromium(program: &Path, profile: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .arg("--host-resolver-rules=MAP *.example 127.0.0.1")
        .arg(format!("--user-data-dir={}", profile.display()))
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_in_a_browser_neither_writes_nor_reads_and_a_foreign_name_shows_nothing() {
    let Some(program) = support::client("KILN_CHROMIUM") else { return };
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(&data.path().join("kiln"), &["--workers", "0"]);
    let client = Client::connect(&server.url()).await;
    let (kiln, call) = (server.url(), upload(b"from a page"));
    let (port, reports) = site(page(&kiln, &call));
    // The page comes once from another site, and once from another port of this machine, which browsers take for the
    // same site.
    for (number, host) in ["evil.example", "127.0.0.1"].into_iter().enumerate() {
        let profile = data.path().join(format!("profile-{number}"));
        let mut browser = chromium(&program, &profile)
            .args(["--remote-debugging-port=0", &format!("http://{host}:{port}/")])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let said = reports.recv_timeout(WITHIN);
        browser.kill().unwrap();
        browser.wait().unwrap();
        let said = said.unwrap_or_else(|error| panic!("the page at {host} never ran: {error}"));
        for name in ["grpc", "put", "read"] {
            assert!(said.contains(&format!("{name}:blocked")), "{host}: {said}");
        }
        assert!(!is_stored(&client, b"from a page").await, "{host}: {said}");
    }
    let metrics = support::server::get_text(&server.address, "/metrics");
    let turned_away = metrics.lines().find(|line| line.contains("reason=\"other_site\""));
    assert!(turned_away.is_some_and(|line| !line.ends_with(" 0")), "{turned_away:?}");

    let show = |host: &str| {
        let port = server.address.rsplit_once(':').unwrap().1;
        let profile = data.path().join("profile-show");
        let output = chromium(&program, &profile)
            .args(["--dump-dom", &format!("http://{host}:{port}/")])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let rebound = show("evil.example");
    assert!(rebound.contains("server.hosts") && !rebound.contains("/queue"), "{rebound}");
    let own = show("localhost");
    assert!(own.contains("/queue"), "{own}");
}
