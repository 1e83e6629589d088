//! An HTTP server that keeps what a Kiln server sends to its webhook.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

pub struct Listener {
    pub url: String,
    heard: Arc<Mutex<Vec<Value>>>,
}

impl Listener {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
        let heard = Arc::<Mutex<Vec<Value>>>::default();
        let hears = heard.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if let Some(said) = request(stream) {
                    hears.lock().unwrap_or_else(PoisonError::into_inner).push(said);
                }
            }
        });
        Self { url, heard }
    }

    pub fn heard(&self) -> Vec<Value> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Reads a request and answers it with a success. Returns the JSON of its body, or `None` if the client has closed
/// the connection.
fn request(stream: TcpStream) -> Option<Value> {
    let mut source = BufReader::new(stream.try_clone().ok()?);
    let mut length = 0;
    loop {
        let mut line = String::new();
        source.read_line(&mut line).ok()?;
        let line = line.trim().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    source.read_exact(&mut body).ok()?;
    let answer = "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
    (&stream).write_all(answer.as_bytes()).ok()?;
    serde_json::from_slice(&body).ok()
}
