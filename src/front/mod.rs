//! The one port: HTTP/1, HTTP/2 and gRPC on a few single-threaded runtimes.
//!
//! A connection lives on one thread: no request crosses cores, which more than doubles the
//! rate of small calls compared with a work-stealing runtime (docs/benchmarks.md).

mod connection;
mod gate;
pub mod health;
mod listen;
mod measure;
mod tls;
pub mod unknown;

use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::auth::Auth;
use crate::auth::failures::Failures;
use crate::telemetry::requests::{self, Requests};
use connection::{ConnectionError, Service, serve_connection};
use gate::Gate;
pub use listen::{Listen, Reserved, Resolved};
pub use tls::{Tls, TlsError, TlsOptions};

/// Connections accepted and not yet taken over by a thread.
const HANDOVER_BACKLOG: usize = 256;
/// Open connections of one server; more are closed at once.
pub const MAX_CONNECTIONS: u64 = 8192;
/// Threads that a front runtime may start for blocking reads and writes of large blobs.
const BLOCKING_THREADS: usize = 16;
/// After a failed `accept` (no file descriptors left), before the next.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// A running front. Cancel the token given to [`Front::start`], then [`Front::join`].
pub struct Front {
    threads: Vec<JoinHandle<()>>,
}

/// One thread's inbox and its counters, which say how many connections it holds.
#[derive(Clone)]
struct Lane {
    inbox: mpsc::Sender<TcpStream>,
    counters: Arc<requests::Lane>,
}

/// What a front serves, and how.
pub struct FrontParts<'a> {
    pub router: Router,
    /// `None`: without TLS.
    pub tls: Option<Arc<Tls>>,
    /// `None`: nobody is asked who calls.
    pub auth: Option<Arc<Auth>>,
    pub failures: Arc<Failures>,
    pub requests: &'a Requests,
    /// What open connections get to finish.
    pub drain: Duration,
}

impl Front {
    /// Serves on `listeners` with one thread for each lane of `requests` until `shutdown` is
    /// cancelled. Call within a tokio runtime.
    pub fn start(
        listeners: Vec<TcpListener>,
        parts: FrontParts<'_>,
        shutdown: &CancellationToken,
    ) -> io::Result<Self> {
        let FrontParts { router, tls, auth, failures, requests, drain } = parts;
        let mut lanes = Vec::new();
        let mut handles = Vec::new();
        for (index, counters) in requests.lanes().iter().enumerate() {
            let (inbox, streams) = mpsc::channel(HANDOVER_BACKLOG);
            let lane = Lane { inbox, counters: counters.clone() };
            let service = Service {
                router: router.clone(),
                counters: lane.counters.clone(),
                tls: tls.clone(),
                gate: auth.clone().map(Gate),
                failures: failures.clone(),
            };
            let shutdown = shutdown.clone();
            let worker = LaneWorker { service: Arc::new(service), drain, shutdown };
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .max_blocking_threads(BLOCKING_THREADS)
                .thread_name(format!("front-{index}-io"))
                .build()?;
            handles.push(
                std::thread::Builder::new()
                    .name(format!("front-{index}"))
                    .spawn(move || runtime.block_on(worker.run(streams)))?,
            );
            lanes.push(lane);
        }
        for listener in listeners {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tokio::spawn(accept(listener, lanes.clone(), shutdown.clone()));
        }
        Ok(Self { threads: handles })
    }

    /// Waits until every connection has ended or its drain time is over.
    pub async fn join(self) {
        let joined = tokio::task::spawn_blocking(move || {
            for thread in self.threads {
                if thread.join().is_err() {
                    tracing::error!("a front thread ended with a panic");
                }
            }
        });
        if let Err(error) = joined.await {
            tracing::error!(%error, "waiting for the front threads failed");
        }
    }
}

async fn accept(listener: tokio::net::TcpListener, lanes: Vec<Lane>, shutdown: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => hand_over(stream, &lanes),
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

/// Gives the connection to the thread with the fewest.
fn hand_over(stream: tokio::net::TcpStream, lanes: &[Lane]) {
    let open: u64 = lanes.iter().map(|lane| lane.counters.connections()).sum();
    if open >= MAX_CONNECTIONS {
        tracing::warn!(open, "too many connections: closing a new one");
        return;
    }
    let Ok(stream) = stream.into_std() else { return };
    let Some(lane) = lanes.iter().min_by_key(|lane| lane.counters.connections()) else {
        return;
    };
    lane.counters.opened();
    if lane.inbox.try_send(stream).is_err() {
        lane.counters.closed();
        tracing::warn!("a front thread is too busy to take a connection: closing it");
    }
}

struct LaneWorker {
    service: Arc<Service>,
    drain: Duration,
    shutdown: CancellationToken,
}

impl LaneWorker {
    async fn run(self, mut streams: mpsc::Receiver<TcpStream>) {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                stream = streams.recv() => match stream {
                    Some(stream) => self.take(stream, &mut connections),
                    None => break,
                }
            }
        }
        let all = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(self.drain, all).await.is_err() {
            tracing::warn!("connections are still open after the drain time: closing them");
        }
    }

    fn take(&self, stream: TcpStream, connections: &mut tokio::task::JoinSet<()>) {
        let service = self.service.clone();
        let open = OpenConnection(service.counters.clone());
        let shutdown = self.shutdown.clone();
        connections.spawn(async move {
            let _open = open;
            let failures = service.failures.clone();
            if let Err(error) = serve_connection(stream, service, shutdown).await {
                note(&error, &failures);
            }
        });
    }
}

/// Clients break off for many reasons; what ended a connection is rarely news.
fn note(error: &ConnectionError, failures: &Failures) {
    if let ConnectionError::Handshake(_) | ConnectionError::HandshakeTimeout = error {
        failures.count_handshake();
    }
    tracing::debug!(%error, "a connection ended with an error");
}

/// Counts a connection until it is dropped.
struct OpenConnection(Arc<requests::Lane>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.closed();
    }
}
