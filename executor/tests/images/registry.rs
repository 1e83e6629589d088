//! A registry on loopback that answers as a test wants it to: whole, slowly, wrongly, not at all.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use crate::build::TestImage;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The path of the request, with its query.
    pub path: String,
    pub host: String,
    pub authorization: Option<String>,
    /// How often this path was asked for, this time included.
    pub time: usize,
}

#[derive(Debug, Clone, Default)]
pub struct RegistryResponse {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// After how many bytes of the body the connection ends; `None`: after all of them.
    pub cut: Option<usize>,
    /// After how many bytes of the body nothing more comes; `None`: all of it comes.
    pub stall: Option<usize>,
}

impl RegistryResponse {
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, body: body.into(), ..Self::default() }
    }

    pub fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

type Handler = dyn Fn(&Asked) -> RegistryResponse + Send + Sync;

pub struct TestRegistry {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    accepting: AbortHandle,
}

impl TestRegistry {
    pub async fn start(
        handler: impl Fn(&Asked) -> RegistryResponse + Send + Sync + 'static,
    ) -> Self {
        Self::at(([127, 0, 0, 1], 0).into(), handler).await
    }

    pub async fn at(
        address: SocketAddr,
        handler: impl Fn(&Asked) -> RegistryResponse + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, handler) = (asked.clone(), Arc::new(handler));
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, log.clone(), handler.clone()));
            }
        });
        Self { address, asked, accepting: accepting.abort_handle() }
    }

    /// Answers with the image's blobs.
    pub async fn of(image: &TestImage) -> Self {
        let blobs = image.blobs.clone();
        Self::start(move |asked| from_blobs(&blobs, asked)).await
    }

    pub fn name(&self, image: &TestImage) -> String {
        format!("docker://{}/team/tools@sha256:{}", self.address, image.digest)
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Requests for paths with `part` in them.
    pub fn count(&self, part: &str) -> usize {
        self.asked().iter().filter(|asked| asked.path.contains(part)).count()
    }
}

impl Drop for TestRegistry {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

pub fn from_blobs(blobs: &crate::build::Blobs, asked: &Asked) -> RegistryResponse {
    let name = asked.path.rsplit("sha256:").next().unwrap_or_default();
    match blobs.get(name) {
        Some(blob) => RegistryResponse::ok(blob.clone()),
        None => RegistryResponse::status(404),
    }
}

async fn serve(mut stream: TcpStream, log: Arc<Mutex<Vec<Asked>>>, handler: Arc<Handler>) {
    let mut received = Vec::new();
    while !received.windows(4).any(|window| window == b"\r\n\r\n") {
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk).await {
            Ok(count) if count > 0 => received.extend(&chunk[..count]),
            _ => return,
        }
        if received[0] == 22 {
            // A handshake of TLS, which is not spoken here.
            return;
        }
    }
    let head = String::from_utf8(received).unwrap();
    let mut lines = head.split("\r\n");
    let path = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let asked = {
        let mut log = log.lock().unwrap();
        let time = 1 + log.iter().filter(|asked| asked.path == path).count();
        let asked = Asked {
            path,
            host: headers.get("host").cloned().unwrap_or_default(),
            authorization: headers.get("authorization").cloned(),
            time,
        };
        log.push(asked.clone());
        asked
    };
    let answer = handler(&asked);
    let _ = write(&mut stream, answer).await;
}

async fn write(stream: &mut TcpStream, answer: RegistryResponse) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} X\r\nconnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !answer.headers.iter().any(|(name, _)| name == "transfer-encoding") {
        head.push_str(&format!("content-length: {}\r\n", answer.body.len()));
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).await?;
    let end = answer.cut.or(answer.stall).unwrap_or(answer.body.len());
    stream.write_all(&answer.body[..end]).await?;
    stream.flush().await?;
    if answer.stall.is_some() {
        // Until the other side has had enough.
        let _ = stream.read(&mut [0; 1]).await;
    }
    stream.shutdown().await
}
