//! Somebody is told of each release that comes and is rejected, also across a crash of the server.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use kiln_deploy::signing::{Scheme, Signer as _, SigningKey};
use serde_json::Value;

use crate::support::said::kiln;
use crate::support::server::{Server, command};
use crate::support::{self, release};

/// How long a notice may take: the server looks every ten seconds, and another server's lease has to run out first.
const WITHIN: Duration = Duration::from_secs(120);

/// Reads one request with a JSON object as its body, and answers that it was heard.
fn heard(mut stream: TcpStream, notices: &Sender<Value>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(WITHIN))?;
    let mut request = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let read = stream.read(&mut chunk)?;
        request.extend_from_slice(&chunk[..read]);
        let body = request.windows(4).position(|it| it == b"\r\n\r\n").map(|at| at + 4);
        let notice = body.and_then(|at| serde_json::from_slice::<Value>(&request[at..]).ok());
        if let Some(notice) = notice {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
            // A test that has ended hears of nothing more.
            let _ = notices.send(notice);
            return Ok(());
        }
        if read == 0 {
            return Ok(());
        }
    }
}

/// Starts somebody who wants to be told. Returns the URL, and what was told.
fn listener() -> (String, Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
    let (notices, told) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // Who breaks off tells it again.
            let _ = heard(stream, &notices);
        }
    });
    (url, told)
}

fn start(data: &Path, url: &str) -> Server {
    let mut command = command("127.0.0.1:0", data, &["--workers", "0"]);
    command.env("KILN_RELEASES_WEBHOOK", url);
    Server::spawn(command, data)
}

#[test]
fn releases_that_come_and_are_rejected_are_told_across_a_crash() {
    let directory = tempfile::tempdir().expect("a directory");
    let (dir, data) = (directory.path(), directory.path().join("data"));
    let (key, _) = SigningKey::generate(Scheme::EcdsaP256).expect("a key");
    std::fs::write(dir.join("key.pub"), key.public_key().to_pem().expect("PEM")).expect("a file");
    let digest = release::export_program("team/app:1.0", "file", &key, &dir.join("release"));
    let (url, told) = listener();
    let server = start(&data, &url);
    let import = ["release", "import", "release", "--key", "key.pub"];
    kiln(Some(&server), dir, &import).ends_with(0);
    let notice = told.recv_timeout(WITHIN).expect("a notice");
    assert_eq!(notice["event"], "release.import");
    assert_eq!(notice["release"], "team/app:1.0");
    assert_eq!(notice["details"]["digest"], digest.to_string());
    assert_eq!(support::server::get_status(&server.address, "/releases/team/app%3A1.0"), 200);
    assert!(notice["link"].as_str().expect("a link").ends_with("/releases/team/app%3A1.0"));
    let reject = ["release", "reject", "team/app:1.0", "--reason", "it loses data"];
    kiln(Some(&server), dir, &reject).ends_with(0);
    server.kill();
    let _server = start(&data, &url);
    let mut notice = told.recv_timeout(WITHIN).expect("a notice");
    // The server may have ended before it could note that the first one was heard.
    if notice["event"] == "release.import" {
        notice = told.recv_timeout(WITHIN).expect("a notice");
    }
    assert_eq!(notice["event"], "release.reject");
    assert_eq!(notice["details"]["reason"], "it loses data");
}
