//! A web server from which Kiln downloads.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use futures_util::stream::{self, StreamExt};
use kiln_cas::services::{CallerHeaders, FetchConfig, ServicesConfig};
use kiln_net::Allowed;
use tokio::sync::{Semaphore, watch};

use crate::harness::{Server, start_with};

/// What the web server saw, and what it waits for.
pub struct Seen {
    requests: AtomicUsize,
    pub arrived: watch::Sender<usize>,
    /// A permit lets one answer of `/ok/gate/…` go.
    pub gate: Semaphore,
}

pub struct Origin {
    pub base: String,
    pub seen: Arc<Seen>,
    _spool: tempfile::TempDir,
}

impl Origin {
    pub fn ok(&self, path: &str) -> String {
        format!("{}/ok/{path}", self.base)
    }

    pub fn asked(&self) -> usize {
        self.seen.requests.load(Ordering::Relaxed)
    }

    pub async fn until_asked(&self, times: usize) {
        let mut arrived = self.seen.arrived.subscribe();
        arrived.wait_for(|seen| *seen >= times).await.unwrap();
    }
}

fn redirect(to: &'static str) -> axum::routing::MethodRouter<Arc<Seen>> {
    get(move || async move { (StatusCode::FOUND, [(header::LOCATION, to)]) })
}

async fn secret(headers: HeaderMap) -> Result<&'static str, StatusCode> {
    match headers.get("authorization").map(|value| value.as_bytes()) {
        Some(b"Bearer right") => Ok("secret content"),
        _ => Err(StatusCode::UNAUTHORIZED),
    }
}

/// Answers with the headers that matter here.
async fn echo(headers: HeaderMap) -> String {
    let of = |name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        format!("{name}={}", value.unwrap_or_default())
    };
    ["user-agent", "accept-encoding", "x-extra"].map(of).join(" ")
}

async fn gate(State(seen): State<Arc<Seen>>, Path(name): Path<String>) -> String {
    let count = seen.requests.fetch_add(1, Ordering::Relaxed) + 1;
    seen.arrived.send_replace(count);
    seen.gate.acquire().await.unwrap().forget();
    name
}

/// Says that as many bytes come as the path does, and sends one of them.
async fn stalled(State(seen): State<Arc<Seen>>, Path(length): Path<String>) -> Response {
    let count = seen.requests.fetch_add(1, Ordering::Relaxed) + 1;
    seen.arrived.send_replace(count);
    let first = stream::iter([Ok::<_, Infallible>("x")]);
    let body = Body::from_stream(first.chain(stream::pending()));
    ([(header::CONTENT_LENGTH, length)], body).into_response()
}

/// `hello`, gzip-coded whatever was asked for.
async fn coded() -> Response {
    const HELLO: &[u8] = &[
        0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xcb, 0x48, 0xcd, 0xc9, 0xc9, 7, 0, 0x86, 0xa6, 0x10,
        0x36, 5, 0, 0, 0,
    ];
    ([(header::CONTENT_ENCODING, "gzip")], HELLO).into_response()
}

/// A web server with some content, and Kiln with the right to download from one part of it.
pub async fn origin_with(change: impl FnOnce(&mut ServicesConfig)) -> (Origin, Server) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Seen {
        requests: AtomicUsize::new(0),
        arrived: watch::Sender::new(0),
        gate: Semaphore::new(0),
    });
    let absolute: &'static str = format!("HTTP://{}/ok/hello", &base["http://".len()..]).leak();
    let router = Router::new()
        .route("/ok/hello", get(|| async { "hello" }))
        .route("/ok/other", get(|| async { "other" }))
        .route("/ok/empty", get(|| async { "" }))
        .route("/ok/moved", get(|| async { Redirect::temporary("/ok/hello") }))
        .route("/ok/d/relative", redirect("../hello"))
        .route("/ok/beside", redirect("hello"))
        .route("/ok/query", redirect("?x"))
        .route("/ok/capitals", redirect(absolute))
        .route("/ok/nowhere", get(|| async { StatusCode::FOUND }))
        .route("/ok/out", redirect("/private/hello"))
        .route("/ok/up", redirect("%2e%2e/private/hello"))
        .route("/ok/away", redirect("http://user@127.0.0.1:1/ok/hello"))
        .route("/ok/loop", redirect("/ok/loop"))
        .route("/ok/large", get(|| async { vec![0_u8; 3 << 20] }))
        .route("/ok/coded", get(coded))
        .route("/ok/file.tar.gz", get(coded))
        .route("/ok/brotli", get(|| async { ([(header::CONTENT_ENCODING, "br")], "x") }))
        .route("/ok/secret", get(secret))
        .route("/ok/echo", get(echo))
        .route("/ok/gate/{name}", get(gate))
        .route("/ok/stalled/{length}", get(stalled))
        .route("/ok/never", get(std::future::pending::<()>))
        .route("/private/hello", get(|| async { "hello" }))
        .with_state(seen.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let spool = tempfile::tempdir().unwrap();
    let allowed = Allowed::new(&[format!("{base}/ok/")]).unwrap();
    let directory = spool.path().to_owned();
    let server = start_with(|config| {
        let headers = CallerHeaders::new(&["X-Extra".to_owned()]).unwrap();
        let fetch = FetchConfig::default();
        config.fetch = FetchConfig { allowed, headers, directory, max_size: 2 << 20, ..fetch };
        config.max_blob_size = 1 << 20;
        change(config);
    })
    .await;
    (Origin { base, seen, _spool: spool }, server)
}

pub async fn origin() -> (Origin, Server) {
    origin_with(|_| {}).await
}
