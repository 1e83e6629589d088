//! Connections that say nothing, a peer that opens too many of them, clients that wait for acknowledgements, and what
//! the server knows of a caller.

#![allow(clippy::panic, clippy::unwrap_used)]

use crate::support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use kiln_cas::DigestFunction;
use kiln_protos::worker::workers_client::WorkersClient;
use kiln_protos::worker::{Hello, WorkerMessage, worker_message::Kind};
use support::server::{Server, command, get_status};
use tonic::Code;
use tonic::transport::Channel;

/// Far longer than the limits that these tests set, even on a busy machine.
const SURELY: Duration = Duration::from_secs(30);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn start(data: &Path, limits: &[(&str, &str)]) -> Server {
    let mut command = command("127.0.0.1:0", data, &["--workers", "0"]);
    command.envs(limits.iter().copied());
    Server::spawn(command, data)
}

fn connect(server: &Server, first: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.write_all(first).unwrap();
    stream.set_read_timeout(Some(SURELY)).unwrap();
    stream
}

/// Reads until the server ends the connection, and returns the bytes that it sent. Panics, naming `what`, if the
/// server keeps the connection.
fn until_ended(stream: &mut TcpStream, what: &str) -> Vec<u8> {
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("{what}: the connection is kept: {error}"),
    }
    said
}

#[test]
fn who_says_nothing_is_given_up_wherever_it_stops() {
    let data = tempfile::tempdir().unwrap();
    let short = ["HANDSHAKE", "HEADER", "BODY"].map(|it| format!("KILN_SERVER_{it}_TIMEOUT"));
    let limits = short.each_ref().map(|name| (name.as_str(), "300ms"));
    let server = start(data.path(), &limits);
    let hash = DigestFunction::Sha256.digest(b"never sent").hex();
    let put =
        format!("PUT /cas/{hash} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nnev");
    for (what, first) in [
        ("nothing", &b""[..]),
        ("half a preface", &PREFACE[..12]),
        ("half a request line", b"GET / HT"),
        ("half of the headers", b"GET / HTTP/1.1\r\nHost: local"),
        ("half of a body", put.as_bytes()),
        ("nothing after an answer", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ] {
        until_ended(&mut connect(&server, first), what);
    }
    // An HTTP/2 client answers pings, which shows that it is there, so it may be silent for longer.
    let mut alive = connect(&server, PREFACE);
    alive.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).unwrap();
    alive.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut said = Vec::new();
    let kept = alive.read_to_end(&mut said).unwrap_err();
    assert_eq!(kept.kind(), ErrorKind::WouldBlock, "{said:?}");
}

#[test]
fn a_frame_may_hold_a_message_of_an_upload() {
    const SETTINGS: u8 = 4;
    const MAX_FRAME_SIZE: [u8; 2] = [0, 5];
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path(), &[]);
    let mut stream = connect(&server, PREFACE);
    stream.write_all(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]).unwrap();
    let mut head = [0; 9];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(head[3], SETTINGS, "{head:?}");
    let mut settings = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    stream.read_exact(&mut settings).unwrap();
    let mut sizes = settings.chunks(6).filter(|setting| setting.starts_with(&MAX_FRAME_SIZE));
    assert_eq!(sizes.next().map(|setting| &setting[2..]), Some(&[0, 2, 0, 0][..]), "{settings:?}");
}

#[test]
fn one_peer_cannot_lock_others_out() {
    let data = tempfile::tempdir().unwrap();
    let server = start(
        data.path(),
        &[
            ("KILN_SERVER_MAX_CONNECTIONS", "12"),
            ("KILN_SERVER_MAX_CONNECTIONS_PER_PEER", "8"),
            ("KILN_SERVER_HANDSHAKE_TIMEOUT", "5m"),
        ],
    );
    let mut silent: Vec<_> = (0..8).map(|_| connect(&server, b"")).collect();
    until_ended(&mut connect(&server, b""), "the ninth of one peer");
    let (_, port) = server.address.rsplit_once(':').unwrap();
    let other = Command::new("curl")
        .args(["-sf", "--max-time", "20", "--interface", "127.0.0.2"])
        .arg(format!("http://127.0.0.1:{port}/healthz"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&other.stdout), "ok\n", "{other:?}");
    // When the peer closes a connection, it may open another one.
    drop(silent.pop());
    let begun = Instant::now();
    loop {
        let mut again = connect(&server, b"GET /healthz HTTP/1.0\r\n\r\n");
        if until_ended(&mut again, "an answer").starts_with(b"HTTP/1.0 200") {
            break;
        }
        assert!(begun.elapsed() < SURELY, "no place is free");
        kiln_test_servers::pause();
    }
}

/// The client sends each request in two writes. Without TCP_NODELAY its kernel holds the second one back until the
/// server's acknowledges the first.
#[test]
fn a_client_without_nodelay_waits_for_no_acknowledgement() {
    const REQUESTS: u32 = 200;
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path(), &[]);
    assert_eq!(get_status(&server.address, "/healthz"), 200);
    let mut stream = connect(&server, b"");
    let hash = DigestFunction::Sha256.digest(b"0123456789").hex();
    let head = format!("PUT /cas/{hash} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n");
    let mut quick = 0;
    for _ in 0..REQUESTS {
        let begun = Instant::now();
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(b"0123456789").unwrap();
        let (mut answer, mut buffer) = (Vec::new(), [0; 1024]);
        while !answer.ends_with(b"\r\n\r\n") {
            let length = stream.read(&mut buffer).unwrap();
            assert!(length > 0, "the connection ended");
            answer.extend_from_slice(&buffer[..length]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        quick += u32::from(begun.elapsed() < Duration::from_millis(20));
    }
    // If the server did not help, the kernel would hold most requests back for 40 ms, except some at the start. Other
    // requests may be slow because the machine is busy, so not all have to be quick.
    assert!(quick > REQUESTS / 3, "{quick} requests took less than 20 ms");
}

fn log_of(command: &mut Command, file: &Path) {
    command.stderr(std::fs::File::create(file).unwrap());
}

async fn until_logged(file: &Path, what: &str) -> String {
    let begun = Instant::now();
    loop {
        let text = std::fs::read_to_string(file).unwrap();
        if text.contains(what) {
            return text;
        }
        assert!(begun.elapsed() < SURELY, "{what:?} is not in {text}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn hello(worker_id: &str, host_name: &str) -> WorkerMessage {
    let hello = Hello {
        worker_id: worker_id.into(),
        host_name: host_name.into(),
        slots: 1,
        ..Default::default()
    };
    WorkerMessage { kind: Some(Kind::Hello(hello)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_calls_itself_forges_no_line_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (data, log) = (dir.path().join("data"), dir.path().join("log"));
    let mut command = command("127.0.0.1:0", &data, &["--workers", "0"]);
    log_of(&mut command, &log);
    let server = Server::spawn_logged(command, &data);
    let channel = Channel::from_shared(server.url()).unwrap().connect().await.unwrap();
    let join = async |message| {
        let messages = stream::iter([message]).chain(stream::pending());
        WorkersClient::new(channel.clone()).session(messages).await
    };
    let forged = "x\nFORGED \u{1b}[2J";
    let refused = join(hello(forged, "host")).await.err().unwrap();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let _session = join(hello("honest", forged)).await.unwrap();
    let text = until_logged(&log, "a worker joined").await;
    assert!(text.contains("x\\nFORGED"), "{text}");
    assert!(!text.contains('\u{1b}') && !text.lines().any(|it| it.starts_with("FORGED")), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_its_own_user_may_work_for_a_server_on_loopback() {
    if !nix::unistd::geteuid().is_root() {
        return; // Only root can be somebody else.
    }
    let dir = tempfile::tempdir().unwrap();
    let everybody = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(dir.path(), everybody.clone()).unwrap();
    let kiln = dir.path().join("kiln");
    std::fs::copy(env!("CARGO_BIN_EXE_kiln"), &kiln).unwrap();
    std::fs::set_permissions(&kiln, everybody).unwrap();
    let server = start(&dir.path().join("data"), &[]);
    let worker = |user: &str| {
        let log = dir.path().join(format!("log-{user}"));
        let mut command = Command::new("setpriv");
        command.args(["--reuid", user, "--regid", user, "--clear-groups"]).arg(&kiln);
        command.args(["worker", "--slots", "1", "--server", &server.url(), "--data-dir"]);
        command.arg(dir.path().join(format!("worker-{user}"))).env("KILN_WORKERS_MEMORY", "1GiB");
        log_of(&mut command, &log);
        (command.stdout(Stdio::null()).spawn().unwrap(), log)
    };
    let (mut stranger, said) = worker("65534");
    let text = until_logged(&said, "no session").await;
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    for word in ["server's own user (0)", "user 65534", "auth.access_files"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let (mut own, said) = worker("0");
    until_logged(&said, "a session with the scheduler has begun").await;
    own.kill().unwrap();
    own.wait().unwrap();
}
